"""A project's own consumers, in a real service: messages of other programs, and failure callbacks."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pika
import pytest

from tests.faults.combinations import corners, on_postgresql_and_rabbitmq
from tests.project import Project

pytestmark = pytest.mark.acceptance

#: The example of the documentation of 1.x, as it stands there.
RETRY_EXAMPLE = """
from carrot.consumer import Consumer
from carrot.utilities import publish_message


class CustomConsumer(Consumer):
    def __init__(self, host, queue, logger, name, durable=True, queue_arguments=None, exchange_arguments=None):
        super(CustomConsumer, self).__init__(host, queue, logger, name, durable, queue_arguments, exchange_arguments)
        self.add_failure_callback(self.retry)

    def retry(self, log, exception):
        if log.task == 'myapp.tasks.retry_test':
            attempt = log.positionals[0] + 1
            if attempt <= 5:
                log.delete()
                publish_message('myapp.tasks.retry_test', attempt)
"""

RAISING = """
from carrot.consumer import Consumer
from tests.app.models import Effect


class RaisingConsumer(Consumer):
    def fail(self, log, err):
        assert isinstance(err, ValueError) and log.status == 'FAILED', (log.status, err)
        Effect.objects.create(message_id='callback', attempt=1, pid=1)
        raise RuntimeError('the callback broke')
"""

ADOPTING = """
from carrot.consumer import Consumer
from carrot.models import MessageLog


class AdoptingConsumer(Consumer):
    def get_message_log(self, properties, body):
        if body == b'broken':
            raise ValueError('a body that is broken')
        if body == b'ignore':
            return None
        args, kwargs = self.serializer.serialize_arguments(body)
        return MessageLog(task=self.get_task_type(properties, body), args=list(args), kwargs=kwargs)
"""


def write(site: Project, path: str, text: str) -> None:
    """A module in the project's directory, which is on its import path."""
    file = Path(site.directory, path)
    file.parent.mkdir(exist_ok=True)
    (file.parent / "__init__.py").touch() if file.parent != site.directory else None
    file.write_text(text)


def consume_with(site: Project, consumer_class: str) -> None:
    site.configure(queues=[{"name": "default", "consumer_class": consumer_class}])


def send(url: str, body: bytes, message_id: str | None, task: str | None = None) -> None:
    """What another program does, with pika alone."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    properties = pika.BasicProperties(message_id=message_id, headers={"type": task} if task else None)
    connection.channel().basic_publish("", "default", body, properties)
    connection.close()


@corners
def test_the_retry_example_of_1_x_tries_five_times(project: Any, database: Any, broker: Any) -> None:
    site = project(database=database, broker=broker)
    write(site, "myapp/tasks.py", "def retry_test(attempt):\n    raise ValueError(f'attempt {attempt} failed')\n")
    write(site, "consumers.py", RETRY_EXAMPLE)
    consume_with(site, "consumers.CustomConsumer")
    site.service().wait_ready()
    site.publish("myapp.tasks.retry_test", 1)
    site.wait_until("SELECT count(*) = 1 FROM carrot_messagelog WHERE status = 'FAILED'")
    rows = site.sql("SELECT status, args, exception FROM carrot_messagelog")
    assert rows == [{"status": "FAILED", "args": "[5]", "exception": "ValueError: attempt 5 failed"}]


@corners
def test_a_callback_that_raises_leaves_nothing_but_a_word_in_the_log(project: Any, database: Any, broker: Any) -> None:
    site = project(database=database, broker=broker)
    write(site, "consumers.py", RAISING)
    consume_with(site, "consumers.RaisingConsumer")
    site.service().wait_ready()
    site.publish("tests.app.tasks.fail", "on purpose")
    site.wait_until("SELECT count(*) = 1 FROM carrot_messagelog WHERE status = 'FAILED'")
    (row,) = site.sql("SELECT exception, log FROM carrot_messagelog")
    assert row["exception"] == "ValueError: on purpose"
    assert "A failure callback raised RuntimeError: the callback broke" in row["log"]
    assert site.sql("SELECT count(*) AS n FROM app_effect") == [{"n": 0}]


@on_postgresql_and_rabbitmq
def test_messages_of_other_programs_become_tasks_once(project: Any, database: Any, broker: Any) -> None:
    # Tasks that do not fit the code are rung again, as after any trouble, before they fail.
    site = project(database=database, broker=broker, deploy_patience=6.0)
    write(site, "consumers.py", ADOPTING)
    consume_with(site, "consumers.AdoptingConsumer")
    site.service().wait_ready()
    url = site.settings["default_broker"]
    add = json.dumps({"args": [1], "kwargs": {"b": 2}}).encode()
    site.publish("tests.app.tasks.add", 40, 2)  # carrot's own message never reaches the hook
    send(url, add, "order-1", "tests.app.tasks.add")
    send(url, add, "order-1", "tests.app.tasks.add")  # delivered again
    send(url, add, None, "tests.app.tasks.add")  # no id: each is a message of its own
    send(url, add, "order-2", "os.system")  # not registered: FAILED, and nothing is imported
    send(url, b"broken", "order-3")
    send(url, b"ignore", "order-4")
    site.wait_until("SELECT count(*) = 4 FROM carrot_messagelog WHERE status IN ('COMPLETED', 'FAILED')")
    site.wait_until("SELECT count(*) = 2 FROM carrot_straymessage")
    rows = site.sql("SELECT task, status, origin, output FROM carrot_messagelog ORDER BY origin, task DESC, id")
    assert [tuple(row.values()) for row in rows] == [
        ("tests.app.tasks.add", "COMPLETED", "code", "42"),
        ("tests.app.tasks.add", "COMPLETED", "message", "3"),
        ("tests.app.tasks.add", "COMPLETED", "message", "3"),
        ("os.system", "FAILED", "message", None),
    ]
    reasons = [row["reason"] for row in site.sql("SELECT reason FROM carrot_straymessage ORDER BY reason")]
    assert reasons == [
        "get_message_log() raised ValueError: a body that is broken",
        "the consumer's get_message_log() made no task of it",
    ]


def test_queues_live_on_several_virtual_hosts_and_on_the_embedded_broker(project: Any, rabbitmq: Any) -> None:
    site = project(database="postgresql", broker="amqp")
    name = f"far-{uuid.uuid4().hex[:8]}"
    far = rabbitmq.add_vhost(name)
    try:
        site.configure(
            queues=[{"name": "default"}, {"name": "far", "host": far}, {"name": "near", "host": "database://"}]
        )
        site.service().wait_ready()
        for queue in ("default", "far", "near"):
            site.publish("tests.app.tasks.add", 1, 2, queue=queue)
        site.wait_until("SELECT count(*) = 3 FROM carrot_messagelog WHERE status = 'COMPLETED'")
        brokers = {row["queue"]: row["broker"] for row in site.sql("SELECT queue, broker FROM carrot_messagelog")}
        assert brokers["near"] == "database://"
        assert brokers["far"].endswith(name)
        assert brokers["default"] not in (brokers["far"], brokers["near"])
    finally:
        rabbitmq.delete_vhost(name)
