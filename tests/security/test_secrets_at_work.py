"""A service at work, its commands, its pages and its broker: the password of a broker and secret arguments stay inside.

One project whose queues have the password in every place there is: some reach RabbitMQ, one is refused, one is away.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika
import pytest

from tests.project import Project, ProjectFactory
from tests.security.accounts import Account, account_on
from tests.security.secret import ARGUMENT, ARGUMENT_WORD, ENCODED, PASSWORD, leaks, leaks_below
from tests.servers import RabbitMQ
from tests.servers.process import free_ports

pytestmark = pytest.mark.acceptance

#: Run by a project: the text of every page of the monitor that there is for the rows there are.
PAGES = """
from django.contrib.auth.models import User
from django.test import Client
from tests.security.addresses import routes
from tests.security.population import all_models
client = Client(raise_request_exception=True)
client.force_login(User.objects.create_superuser('root'))
models = {model._meta.model_name: model for model in all_models()}
for route in routes('/admin/', 'tests.urls'):
    keys = models[route.model].objects.values_list('pk', flat=True) if route.model in models else [0]
    for key in keys:
        url = '/admin/' + route.filled(object_id=key, app_label='carrot', url='x', content_type_id=1)
        if 'logout' not in url:
            print(url, client.get(url).content.decode())
"""
PUBLISH = """
import logging, sys
logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)  # what a web process may log at most, pika's own words too
logging.getLogger('django').setLevel(logging.WARNING)  # it logs the arguments of each statement
from carrot import operations, publisher
from carrot.conf import get_settings
from carrot.exceptions import CarrotError
from carrot.utilities import publish_message
argument = {argument!r}
for queue in get_settings().queues:
    publish_message('tests.admin.samples.log_in', 'anna', argument, queue=queue)
    publish_message('tests.admin.samples.log_in', user='anna', password=argument, queue=queue)
    publish_message('tests.admin.samples.pay', argument, 1, queue=queue)
    try:
        publish_message('tests.admin.samples.log_in', argument, queue=queue, nonsense=argument)
    except CarrotError as error:
        print(error, repr(error))
publisher.flush(2.0)
operations.purge_queue('away')
"""


@pytest.fixture
def account(rabbitmq: RabbitMQ, amqp_url: str) -> Iterator[Account]:
    with account_on(rabbitmq, amqp_url.rpartition("/")[2]) as account:
        account.grant()
        yield account


@pytest.fixture
def site(project: ProjectFactory, account: Account, rabbitmq: RabbitMQ) -> Project:
    [closed] = free_ports(1)
    parts = {"host": "127.0.0.1", "port": rabbitmq.port, "name": account.vhost, "username": account.name}
    several = account.url().replace("@127.0.0.1", f"@127.0.0.1:{closed},127.0.0.1")
    return project(
        default_broker=account.url(),
        queues=[
            {"name": "default"},
            {"name": "url", "host": account.url()},
            {"name": "dict", "host": {"url": account.url()}},
            {"name": "parts", "host": {**parts, "password": PASSWORD}},
            {"name": "several", "host": several},
            {"name": "refused", "host": f"amqp://nobody:{ENCODED}@127.0.0.1:{rabbitmq.port}/{account.vhost}"},
            {"name": "away", "host": f"amqp://{account.name}:{ENCODED}@127.0.0.1:{closed}/{account.vhost}"},
        ],
    )


def process_titles(site: Project) -> str:
    """What ``ps`` and ``top`` can show of the processes of the project: command lines and names, of threads too."""
    shown = ""
    for pid in site.processes():
        for name in [Path(f"/proc/{pid}/cmdline"), *Path(f"/proc/{pid}/task").glob("*/comm")]:
            shown += name.read_bytes().replace(b"\0", b" ").decode() + "\n"
    return shown


def test_nothing_that_a_service_writes_shows_or_sends_has_it(
    site: Project, account: Account, rabbitmq: RabbitMQ, amqp_url: str
) -> None:
    files = ["--pidfile", str(site.directory / "carrot.pid"), "--logfile", str(site.directory / "daemon.log")]
    log_begins = rabbitmq.log.stat().st_size
    said: dict[str, str] = {"check": site.manage("check").stdout}
    service = site.service("--processes", "2", "--loglevel", "DEBUG")
    service.wait_ready()
    said["publish"] = site.python(PUBLISH.format(argument=ARGUMENT)).stdout
    # A task that hangs in the hands of a worker, for the status to name; one with arguments that do not fit.
    site.sql("UPDATE carrot_messagelog SET args = '[]' WHERE id = (SELECT min(id) FROM carrot_messagelog)")
    send(amqp_url, f'{{"args": ["{ARGUMENT_WORD}"], "kwargs": {{"password": "{ARGUMENT_WORD}"}}}}'.encode())
    site.wait_until("SELECT count(*) >= 12 FROM carrot_messagelog WHERE status IN ('COMPLETED', 'FAILED')", 60.0)
    site.wait_until("SELECT count(*) = 1 FROM carrot_straymessage")
    site.wait_until(lambda: "was refused" in service.output() and "Connection refused" in service.output())
    said["titles"] = process_titles(site)
    said["connections"] = rabbitmq.ctl("list_connections", "name", "user", "client_properties", "connected_at")
    said["queues"] = rabbitmq.ctl("list_queues", "--vhost", account.vhost, "name", "arguments")
    assert service.stop() == 0
    for mode in ("start", "status", "stop"):
        said[f"daemon {mode}"] = site.manage("carrot_daemon", mode, *files).stdout
        if mode == "start":
            said["titles of the daemon"] = process_titles(site)
    said["pages"] = site.python(PAGES).stdout
    said["service"] = service.output()
    said["log"] = "".join((site.directory / name).read_text() for name in ("carrot.log", "daemon.log"))
    with open(rabbitmq.log, errors="replace") as log:
        log.seek(log_begins)
        said["broker"] = log.read()

    assert "anna" in said["pages"], "the arguments that are not secret are shown"
    assert account.name in said["broker"]
    assert "carrot consumer" in said["connections"]
    assert "carrot" in said["titles"]
    for what, text in said.items():
        assert not leaks(text, arguments=True), what
    assert not leaks_below(site.directory)
    brokers = {row["broker"] for row in site.sql("SELECT DISTINCT broker FROM carrot_messagelog")}
    assert not [broker for broker in brokers if "@" in broker or account.name in broker]


def test_commands_that_are_given_secrets_do_not_repeat_them(site: Project) -> None:
    for name, words in {
        "by position": ["tests.admin.samples.log_in", "anna", ARGUMENT],
        "in a dictionary": ["tests.admin.samples.greet", f'{{"password": "{ARGUMENT_WORD}"}}'],
        "said by the task": ["tests.admin.samples.pay", ARGUMENT, "1"],
        "too many": ["tests.admin.samples.log_in", "anna", ARGUMENT, "1", ARGUMENT],
        "no queue": ["tests.admin.samples.log_in", "anna", ARGUMENT, "--queue", "none"],
    }.items():
        done = site.manage("carrot_send", *words, check=False)
        assert not leaks(done.stdout, arguments=True), name


def send(url: str, body: bytes) -> None:
    """A message of another program, whose arguments go by secret names."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        properties: Any = pika.BasicProperties(headers={"type": "tests.admin.samples.log_in"}, message_id="x")
        connection.channel().basic_publish("", "default", body, properties)
