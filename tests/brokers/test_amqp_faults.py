"""RabbitMQ: what is not there, goes away, or is not as expected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest

from carrot import clock, publisher
from carrot.brokers import Broker
from carrot.brokers.amqp import settlement
from carrot.brokers.amqp.broker import AmqpBroker
from carrot.brokers.amqp.connection import ConnectionThread
from carrot.brokers.amqp.intake import Intake
from carrot.brokers.amqp.topology import Dialogue, Step, Steps
from carrot.conf import get_queue, get_settings
from carrot.exceptions import CarrotError
from carrot.models import MessageLog, Status
from carrot.relay import Relay
from carrot.services import publish_message
from tests.brokers.conftest import Receivers
from tests.brokers.probe import Probe
from tests.brokers.receiver import Receiver
from tests.marks import committing
from tests.rows import ADD
from tests.servers import RabbitMQ
from tests.servers.process import free_ports, wait_until

pytestmark = committing


@pytest.fixture
def broker_url(amqp_url: str) -> str:
    return amqp_url


def vhost_of(url: str) -> str:
    return url.rpartition("/")[2]


def queue_in(url: str) -> str:
    """The queue ``default`` as an Erlang expression."""
    return f'element(2, rabbit_amqqueue:lookup(rabbit_misc:r(<<"{vhost_of(url)}">>, queue, <<"default">>)))'


def major_version(rabbitmq: RabbitMQ) -> int:
    return int(rabbitmq.evaluate("rabbit_misc:version()").strip('"').partition(".")[0])


def note_of(row: MessageLog) -> str:
    row.refresh_from_db()
    return row.note


def receive_with_relay(here: Receiver, count: int) -> None:
    """Claims until ``count`` tasks are here, the service's relay ringing meanwhile."""
    relay = Relay(get_settings())

    def came() -> bool:
        relay.step()
        return len(here.claims) >= count

    here.until(came, f"{count} claims")


# -- unroutable -------------------------------------------------------------------------------------------------------


@pytest.fixture
def retried_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settlement, "UNROUTABLE_RETRY", 0.2)


@pytest.mark.usefixtures("retried_soon")
def test_a_task_for_a_missing_exchange_waits_and_says_so_until_the_exchange_is_made(
    broker: Broker, probe: Probe, receiver: Receivers
) -> None:
    row = publish_message(ADD, 1, 0, exchange="shop", routing_key="orders")
    assert wait_until(lambda: "shop" in note_of(row), 10.0)
    assert (row.status, row.ring_at is None) == (Status.PUBLISHED, False)
    here = receiver()
    probe.channel.exchange_declare("shop", "direct")
    probe.channel.queue_declare("default", passive=True)
    probe.channel.queue_bind("default", "shop", "orders")
    receive_with_relay(here, 1)
    assert note_of(row) == ""


@pytest.mark.usefixtures("retried_soon")
def test_a_task_that_no_queue_takes_waits_and_says_so_until_the_binding_is_made(
    broker: Broker, probe: Probe, receiver: Receivers
) -> None:
    probe.channel.exchange_declare("shop", "direct")
    row = publish_message(ADD, 1, 0, exchange="shop", routing_key="orders")
    assert wait_until(lambda: "orders" in note_of(row), 10.0)
    assert "shop" in row.note
    assert row.status == Status.PUBLISHED
    here = receiver()
    probe.channel.queue_bind("default", "shop", "orders")
    receive_with_relay(here, 1)


@pytest.mark.usefixtures("retried_soon")
def test_a_task_that_cannot_be_delivered_holds_up_no_other(broker: Broker, receiver: Receivers) -> None:
    publish_message(ADD, "nowhere", 0, exchange="missing")
    publish_message(ADD, "fine", 0)
    publish_message(ADD, "no key", 0, routing_key="nothing")
    publish_message(ADD, "fine too", 0)
    here = receiver()
    here.collect(2)
    assert here.arguments() == ["fine", "fine too"]
    assert publisher.flush(10.0)
    assert wait_until(lambda: MessageLog.objects.exclude(note="").count() == 2, 10.0)


def test_tasks_that_come_while_their_exchange_is_missing_are_looked_up_and_told_together(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    first = publish_message(ADD, 0, 0, exchange="missing")
    assert wait_until(lambda: "missing" in note_of(first), 10.0)
    rows = [publish_message(ADD, number, 0, exchange="missing") for number in range(1, 50)]
    assert publisher.flush(10.0)
    assert all("missing" in note_of(row) for row in rows)
    assert sum("cannot deliver" in record.getMessage() for record in caplog.records) < 10


# -- queues -----------------------------------------------------------------------------------------------------------


def test_an_existing_queue_with_other_arguments_is_used_as_it_is_and_the_operator_told(
    broker: Broker, probe: Probe, receiver: Receivers, caplog: pytest.LogCaptureFixture
) -> None:
    probe.channel.queue_declare("default", arguments={"x-max-priority": 3, "x-message-ttl": 600_000})
    publish_message(ADD, 1, 0)
    here = receiver()
    here.collect(1)
    assert wait_until(lambda: "it is not as the settings say" in here.subscription.problem(), 10.0)
    assert "Queue default on" in caplog.text
    assert "inequivalent arg" in caplog.text


def test_a_queue_deleted_under_its_consumer_is_declared_again(
    broker: Broker, probe: Probe, receiver: Receivers
) -> None:
    here = receiver()
    publish_message(ADD, 1, 0)
    here.collect(1)
    probe.channel.queue_delete("default")
    assert wait_until(lambda: "went away" in here.subscription.problem(), 10.0)
    assert wait_until(lambda: not here.subscription.problem(), 10.0)
    publish_message(ADD, 2, 0)
    here.collect(2)
    assert here.arguments() == [1, 2]


class TestAQuorumQueue:
    @pytest.fixture
    def carrot_settings(self) -> dict[str, Any]:
        return {"queues": [{"name": "default", "queue_arguments": {"x-queue-type": "quorum"}}]}

    def test_never_drops_a_message_however_often_it_is_handed_back(
        self, broker: Broker, receiver: Receivers, rabbitmq: RabbitMQ, broker_url: str
    ) -> None:
        publish_message(ADD, 1, 0)
        assert publisher.flush(10.0)
        here = receiver()
        for _ in range(25):  # RabbitMQ 4 has a limit of 20 unless told otherwise
            here.subscription.demand(4)
            assert wait_until(here.subscription.has_work, 10.0)
            here.subscription.demand(0)
        here.subscription.demand(4)
        here.collect(1)
        queue = queue_in(broker_url)
        assert rabbitmq.evaluate(f"amqqueue:get_type({queue})") == "rabbit_quorum_queue"
        limit = f'rabbit_misc:table_lookup(amqqueue:get_arguments({queue}), <<"x-delivery-limit">>)'
        # Up to RabbitMQ 3.13, -1 is a limit that the first hand-back exceeds.
        assert rabbitmq.evaluate(limit) == ("undefined" if major_version(rabbitmq) < 4 else "{signedint, -1}")


# -- connections ------------------------------------------------------------------------------------------------------


def test_closed_connections_come_back_and_nothing_is_lost(
    broker: Broker, receiver: Receivers, rabbitmq: RabbitMQ, broker_url: str
) -> None:
    here = receiver()
    here.subscription.demand(1000)
    for number in range(5):
        publish_message(ADD, number, 0)
    here.collect(2, limit=2)
    rabbitmq.close_all_connections("a test", vhost_of(broker_url))
    publish_message(ADD, 5, 0)
    # The message may have gone into the connection that was closed: then its bell is still armed.
    MessageLog.objects.filter(status=Status.PUBLISHED, ring_at__isnull=False).update(ring_at=clock.now())
    receive_with_relay(here, 6)
    assert sorted(map(str, here.arguments())) == ["0", "1", "2", "3", "4", "5"]
    assert here.subscription.problem() == ""
    assert broker.healthy()


def test_messages_whose_claim_failed_over_anything_come_again(
    broker: Broker, receiver: Receivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = receiver()
    publish_message(ADD, 1, 0)
    here.subscription.demand(4)
    assert wait_until(here.subscription.has_work, 10.0)
    with monkeypatch.context() as patch:
        patch.setattr(Intake, "take", Mock(side_effect=LookupError("a mistake of ours")))
        with pytest.raises(LookupError):
            here.subscription.claim(4, here.worker.pk)
    here.collect(1)
    assert here.arguments() == [1]


@pytest.mark.parametrize("begin", [AmqpBroker.publisher, lambda broker: broker.subscribe(get_queue("default"), print)])
def test_a_connection_that_is_just_begun_is_not_taken_for_dead(
    broker: AmqpBroker, monkeypatch: pytest.MonkeyPatch, begin: Callable[[AmqpBroker], object]
) -> None:
    """A worker would be replaced over it, with all that runs in it."""
    seen: list[bool] = []
    begun: list[ConnectionThread] = []
    start = ConnectionThread.start

    def watched(thread: ConnectionThread) -> None:
        seen.append(broker.healthy())
        start(thread)
        seen.append(broker.healthy())
        begun.append(thread)

    monkeypatch.setattr(ConnectionThread, "start", watched)
    begin(broker)
    assert seen
    assert all(seen)
    assert begun[-1].wait_connected(10.0)


def test_an_answer_that_comes_while_the_connection_is_being_closed_ends_what_asked() -> None:
    """Not the connection's thread, with an error of pika."""
    ended: list[CarrotError | None] = []

    def steps() -> Steps[None]:
        yield Step("queue_declare", {})
        yield Step("exchange_declare", {})

    channel = Mock(is_open=True)
    connection = Mock(is_open=True, channel=lambda on_open_callback: on_open_callback(channel))
    Dialogue(connection, steps(), lambda _value, error: ended.append(error))
    (asked,) = channel.queue_declare.mock_calls
    channel.is_open = False
    asked.kwargs["callback"](None)
    assert [str(error) for error in ended] == ["the connection is being closed"]
    assert not channel.exchange_declare.called


def test_a_memory_alarm_stops_publishing_but_not_consuming_or_acknowledging(
    broker: Broker, receiver: Receivers, rabbitmq: RabbitMQ, broker_url: str
) -> None:
    here = receiver()
    for number in range(20):
        publish_message(ADD, number, 0)
    assert publisher.flush(10.0)
    here.collect(1, limit=1)
    limit = rabbitmq.evaluate("vm_memory_monitor:get_vm_memory_high_watermark()")
    rabbitmq.evaluate("vm_memory_monitor:set_vm_memory_high_watermark(0.0)")
    try:
        publish_message(ADD, "under the alarm", 0)
        assert not publisher.flush(0.5)
        here.collect(20, limit=4)
        messages = f"rabbit_amqqueue:info({queue_in(broker_url)}, [messages])"
        assert wait_until(lambda: rabbitmq.evaluate(messages) == "[{messages, 0}]", 10.0)  # all acknowledged
    finally:
        rabbitmq.evaluate(f"vm_memory_monitor:set_vm_memory_high_watermark({limit})")
    here.collect(21)
    assert here.arguments()[-1] == "under the alarm"


def test_while_the_broker_is_away_publishing_neither_waits_nor_fails(
    settings: Any, transactional_db: None, rabbitmq: RabbitMQ
) -> None:
    settings.CARROT = {"default_broker": f"amqp://user:secret@127.0.0.1:{free_ports(1)[0]}/x"}
    try:
        row = publish_message(ADD, 1, 0)
        broker = publisher.broker_of(get_queue("default").host)
        assert not broker.can_ring()
        assert not publisher.flush(0.1)
        assert wait_until(lambda: "Connection refused" in broker.describe(), 10.0), broker.describe()
        row.refresh_from_db()
        assert row.ring_at is not None
    finally:
        publisher.close(1.0)
