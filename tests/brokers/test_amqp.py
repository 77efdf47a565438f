"""RabbitMQ: the contract, and what other programs see on the wire."""

from __future__ import annotations

import json
import threading
import uuid
from typing import Any

import pytest

from carrot import clock, publisher
from carrot.brokers import Broker
from carrot.brokers.amqp import settlement
from carrot.conf import get_queue, get_settings
from carrot.models import Installation, MessageLog, Status, StrayMessage
from carrot.relay import Relay
from carrot.services import publish_message
from tests.brokers.conftest import Receivers
from tests.brokers.contract import BrokerContract
from tests.brokers.probe import Probe
from tests.marks import committing
from tests.rows import ADD
from tests.servers import RabbitMQ
from tests.servers.process import wait_until

pytestmark = committing


@pytest.fixture
def broker_url(amqp_url: str) -> str:
    return amqp_url


class TestContract(BrokerContract):
    """The contract, over a real server."""


def own_headers(task: str = ADD) -> dict[str, Any]:
    """The headers of a message of this installation."""
    return {"type": task, "carrot": {"site": str(Installation.objects.site()), "v": 2}}


# -- what other programs read and write -------------------------------------------------------------------------------


def test_a_message_is_readable_by_any_amqp_client_in_the_format_of_1_x(broker: Broker, probe: Probe) -> None:
    row = publish_message(ADD, 1, b="Café", priority=4)
    assert publisher.flush(10.0)
    properties, body = probe.get()
    assert properties.headers["type"] == ADD
    assert properties.headers["carrot"] == {"site": str(Installation.objects.site()), "v": 2}
    assert properties.message_id == str(row.uuid)
    assert (properties.content_type, properties.type) == ("application/json", "django-carrot message")
    assert (properties.priority, properties.delivery_mode) == (4, 2)
    assert json.loads(body) == {"args": [1], "kwargs": {"b": "Café"}}


def test_the_queue_is_durable_with_priorities_and_bound_to_the_exchange_of_its_name(
    broker: Broker, probe: Probe
) -> None:
    publish_message(ADD, 1, 0)
    assert publisher.flush(10.0)
    probe.channel.queue_declare("default", durable=True, arguments={"x-max-priority": 10})  # refused if it differed
    probe.channel.exchange_declare("default", "direct", durable=True)
    probe.get()
    row = publish_message(ADD, 2, 0, exchange="default")
    assert publisher.flush(10.0)
    assert probe.get()[0].message_id == str(row.uuid)


class TestAQueueForAnotherProgram:
    @pytest.fixture
    def carrot_settings(self) -> dict[str, Any]:
        return {"queues": [{"name": "default", "consumable": False}]}

    def test_a_confirm_ends_our_duty(self, broker: Broker, probe: Probe) -> None:
        row = publish_message(ADD, 1, 0)
        assert publisher.flush(10.0)

        def handed_over() -> bool:
            row.refresh_from_db()
            return row.status == Status.HANDED_OVER

        assert wait_until(handed_over, 10.0)
        assert row.ring_at is None
        assert probe.ready() == 1


def test_the_row_counts_whatever_a_forged_message_says(broker: Broker, probe: Probe, receiver: Receivers) -> None:
    row = publish_message(ADD, 1, 0)
    assert publisher.flush(10.0)
    probe.get()
    forged = {"args": ["forged"], "kwargs": {}}
    probe.put(json.dumps(forged).encode(), message_id=str(row.uuid), headers={"type": "os.system"})
    (claim,) = receiver().collect(1)
    assert (claim.task, claim.args) == (ADD, [1, 0])


def test_garbage_and_messages_without_a_row_are_kept_for_the_operator_and_stop_nothing(
    broker: Broker, probe: Probe, receiver: Receivers
) -> None:
    here = receiver()
    here.subscription.demand(1000)
    publish_message(ADD, "before", 0)
    here.collect(1)
    stranger = str(uuid.uuid4())
    probe.put(b"\xff\x00 no json")
    probe.put(b"{}", message_id="no uuid", headers={"type": "a" * 5000})
    probe.put(b"{}", message_id=str(Installation.objects.site()), headers=own_headers())
    probe.put(b'{"args": [1]}', message_id=stranger, headers={"type": "shop.tasks.pay"}, type="x\0y")
    probe.put(b"", type="django-carrot marker", headers=own_headers())
    publish_message(ADD, "after", 0)
    here.until(lambda: StrayMessage.objects.count() == 5 and len(here.claims) == 2)
    assert here.arguments() == ["before", "after"]
    found = StrayMessage.objects.get(message_id=stranger)
    assert (found.queue, found.task, found.body) == ("default", "shop.tasks.pay", '{"args": [1]}')
    assert found.reason == "no task has this message id"
    assert "guest" not in found.broker
    here.subscription.demand(0)
    assert wait_until(lambda: probe.ready() == 0, 10.0)


def test_a_message_of_another_installation_stays_in_the_queue_which_is_no_longer_consumed(
    broker: Broker, probe: Probe, receiver: Receivers
) -> None:
    here = receiver()
    publish_message(ADD, 1, 0)
    here.collect(1)
    foreign = {"type": ADD, "carrot": {"site": str(uuid.uuid4()), "v": 2}}
    probe.put(b"{}", message_id=str(uuid.uuid4()), headers=foreign)
    here.until(here.subscription.problem, "word about the foreign message")
    assert "another installation" in here.subscription.problem()
    assert "guest:guest" not in here.subscription.problem()
    here.subscription.demand(1000)
    publish_message(ADD, 2, 0)
    assert wait_until(lambda: probe.ready() == 2, 10.0)
    assert here.claim() == []
    assert StrayMessage.objects.count() == 0
    assert probe.get()[0].headers["carrot"] == foreign["carrot"]


# -- what the operator and the reconciler ask -------------------------------------------------------------------------


def test_the_server_names_itself_at_connect(broker: Broker, receiver: Receivers, rabbitmq: RabbitMQ) -> None:
    assert "connect" in broker.describe()
    assert wait_until(broker.can_ring, 10.0)
    version = rabbitmq.evaluate("rabbit_misc:version()").strip('"')
    assert broker.describe() == f"RabbitMQ {version}"


def test_a_worker_has_all_its_threads_before_its_first_task(broker: Broker) -> None:
    """Later there may be no memory for one, and its start then never returns."""
    broker.subscribe(get_queue("default"), lambda: None)
    before = set(threading.enumerate())
    publish_message(ADD, 1, 0)
    assert publisher.flush(10.0)
    assert set(threading.enumerate()) <= before


def test_the_depth_counts_what_is_ready_and_who_consumes(broker: Broker, receiver: Receivers) -> None:
    publish_message(ADD, 1, 0)
    publish_message(ADD, 2, 0)
    assert publisher.flush(10.0)
    here = receiver()
    depth = broker.depth(here.subscription.queue, 5.0)
    assert depth is not None
    here.collect(2)
    assert depth.ready <= 2

    def settled() -> bool:
        found = broker.depth(here.subscription.queue, 5.0)
        return found is not None and (found.ready, found.consumers) == (0, 1)

    assert wait_until(settled, 10.0)


def test_a_marker_has_the_tasks_rung_again_whose_messages_should_have_come_before_it(
    broker: Broker, probe: Probe, receiver: Receivers
) -> None:
    lost, waiting = publish_message(ADD, "lost", 0), publish_message(ADD, "waits", 0)
    assert publisher.flush(10.0)
    probe.get()
    MessageLog.objects.confirmed([lost.uuid, waiting.uuid], 0)
    here = receiver()
    broker.send_marker(here.subscription.queue, clock.now())
    here.until(lambda: MessageLog.objects.filter(pk=lost.pk, ring_at__isnull=False).exists(), "bell for the lost one")
    assert here.arguments() == ["waits"]
    assert StrayMessage.objects.count() == 0
    MessageLog.objects.filter(pk=lost.pk).update(ring_at=lost.publish_time)
    relay = Relay(get_settings())
    here.until(lambda: [relay.step(), here.claims][1][1:], "lost task")
    assert here.arguments() == ["waits", "lost"]


def test_a_row_is_armed_until_its_message_is_confirmed(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settlement, "PATIENCE", 600.0)  # the confirm is not written yet, however slow the machine
    row = publish_message(ADD, 1, 0)
    row.refresh_from_db()
    assert row.status == Status.PUBLISHED
    assert row.ring_at is not None
    assert (row.ring_at - row.publish_time).total_seconds() == pytest.approx(5.0)
    monkeypatch.setattr(settlement, "PATIENCE", 0.0)
    assert wait_until(lambda: MessageLog.objects.filter(pk=row.pk, ring_at=None).exists(), 10.0)
