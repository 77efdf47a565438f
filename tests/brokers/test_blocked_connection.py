"""RabbitMQ that takes no messages from a connection, as its memory is short: what carrot knows of it, says and does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from carrot import clock, publisher
from carrot.brokers import Broker
from carrot.brokers.amqp import AmqpBroker
from carrot.conf import get_queue
from carrot.exceptions import BrokerUnreachable
from carrot.models import Status
from carrot.services import publish_message
from tests.brokers.conftest import Receivers
from tests.marks import committing
from tests.rows import ADD
from tests.servers import RabbitMQ
from tests.servers.process import wait_until

pytestmark = committing

#: Seconds. A connection is lost after two of them without a sign: this process may stand still for longer than one.
HEARTBEAT = 5
#: Seconds in which pika has looked for a sign of the server: it does so five seconds later than every heartbeat.
JUDGED = HEARTBEAT + 6.0


@pytest.fixture
def broker_url(amqp_url: str) -> str:
    return f"{amqp_url}?heartbeat={HEARTBEAT}"


@contextmanager
def alarm(rabbitmq: RabbitMQ) -> Iterator[None]:
    limit = rabbitmq.evaluate("vm_memory_monitor:get_vm_memory_high_watermark()")
    rabbitmq.evaluate("vm_memory_monitor:set_vm_memory_high_watermark(0.0)")
    try:
        yield
    finally:
        rabbitmq.evaluate(f"vm_memory_monitor:set_vm_memory_high_watermark({limit})")


def block(broker: Broker) -> None:
    """Publish: RabbitMQ tells those of the alarm who do."""
    publish_message(ADD, "under the alarm", 0)
    assert wait_until(lambda: "takes no messages" in broker.describe(), 10.0)
    assert not broker.can_ring()


def block_unnoticed(broker: Broker) -> None:
    """The same with a message of no row, which is not confirmed: nothing is open afterwards."""
    broker.send_marker(get_queue("default"), clock.now())
    assert wait_until(lambda: "takes no messages" in broker.describe(), 10.0)


def test_an_alarm_is_said_once_and_described_until_it_is_over(
    broker: Broker, receiver: Receivers, rabbitmq: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    here = receiver()
    publish_message(ADD, 1, 0)
    assert publisher.flush(10.0)
    assert broker.can_ring()
    here.collect(1)
    well = broker.describe()
    with alarm(rabbitmq):
        block(broker)
        assert broker.describe() == "takes no messages: low on memory"
        with pytest.raises(BrokerUnreachable, match="takes no messages: low on memory"):
            broker.depth(get_queue("default"), 10.0)
    assert wait_until(broker.can_ring, 10.0)
    assert broker.describe() == well
    assert publisher.flush(10.0)
    told = [record.getMessage() for record in caplog.records if "messages" in record.getMessage()]
    assert [f"{broker.host} takes no messages: low on memory (publisher)" in text for text in told] == [True, False]
    assert told[1] == f"{broker.host} takes messages again (publisher)."


# What has waited for most of it is dropped and left to the relay. There is none here; the alarm may take long to end.
@pytest.mark.parametrize("carrot_settings", [{"confirm_timeout": 120.0}], ids=["patient"])
def test_what_was_published_meanwhile_is_sent_when_the_alarm_is_over(
    broker: Broker, receiver: Receivers, rabbitmq: RabbitMQ
) -> None:
    here = receiver()
    publish_message(ADD, 0, 0)
    here.collect(1)
    assert publisher.flush(10.0)
    with alarm(rabbitmq):
        block_unnoticed(broker)
        for number in (1, 2):
            publish_message(ADD, number, 0)
        assert not publisher.flush(0.2)
    here.collect(3)  # without the relay, which would ring them some seconds later
    assert here.arguments() == [0, 1, 2]


@pytest.mark.slow
def test_what_could_not_be_sent_for_some_seconds_is_left_to_the_relay(
    broker: Broker, receiver: Receivers, rabbitmq: RabbitMQ
) -> None:
    here = receiver()
    publish_message(ADD, 0, 0)
    here.collect(1)
    assert publisher.flush(10.0)
    with alarm(rabbitmq):
        block_unnoticed(broker)
        row = publish_message(ADD, 1, 0)
        assert publisher.flush(20.0), "nothing of it waits in this process"
    row.refresh_from_db()
    assert (row.status, row.ring_at is None) == (Status.PUBLISHED, False)


@pytest.mark.slow
def test_a_blocked_connection_stays_while_its_heartbeats_come(
    broker: Broker, rabbitmq: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    with alarm(rabbitmq):
        block(broker)
        time.sleep(JUDGED)  # in which it would be lost
        assert "takes no messages" in broker.describe()
    assert publisher.flush(10.0)
    assert "No connection to" not in caplog.text


def test_a_blocked_connection_is_closed_at_once(broker: Broker, rabbitmq: RabbitMQ) -> None:
    with alarm(rabbitmq):
        block(broker)
        assert isinstance(broker, AmqpBroker)
        thread = broker.publisher()
        assert thread.shut(10.0), "RabbitMQ does not read that it is to be closed"
