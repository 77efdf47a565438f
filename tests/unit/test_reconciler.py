"""Tasks whose message vanished from the broker are found, and no others."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from carrot import clock, publisher
from carrot.brokers import Depth
from carrot.conf import QueueSettings, get_settings
from carrot.exceptions import BrokerUnreachable
from carrot.models import MessageLog, Status
from carrot.reconciler import Reconciler
from tests.rows import claim_of, in_seconds, new_row, status_of

pytestmark = pytest.mark.django_db
INTERVAL = 5.0


class Queues:
    """A broker that says what is ready in its queues."""

    def __init__(self) -> None:
        self.ready: int | None = 0
        self.away = False
        self.asked: list[str] = []
        self.markers: list[str] = []

    def depth(self, queue: QueueSettings, timeout: float) -> Depth | None:
        self.asked.append(queue.name)
        if self.away:
            raise BrokerUnreachable("away")
        return None if self.ready is None else Depth(ready=self.ready, consumers=1)

    def send_marker(self, queue: QueueSettings, before: datetime) -> None:
        self.markers.append(queue.name)
        self.before = before


@pytest.fixture
def broker(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Queues:
    settings.CARROT = {
        "default_broker": "amqp://host/v",
        "queues": [{"name": "default"}, {"name": "rows", "host": "database://"}],
    }
    queues = Queues()
    monkeypatch.setattr(publisher, "broker_of", lambda _host: queues)
    return queues


def make() -> Reconciler:
    return Reconciler(list(get_settings().queues.values()), get_settings())


def settled_row(**changes: Any) -> MessageLog:
    return new_row(state_at=in_seconds(-INTERVAL - 1), **changes)


def is_armed(row: MessageLog) -> bool:
    row.refresh_from_db()
    return row.ring_at is not None


def test_a_row_that_waits_beside_an_empty_queue_is_rung_again_at_the_second_look(broker: Queues) -> None:
    row = settled_row()
    loop = make()
    assert loop.step() == INTERVAL
    assert not is_armed(row)
    loop.step()
    assert is_armed(row)
    assert row.ring_at is not None
    assert row.ring_at <= in_seconds(0)
    assert broker.markers == []


def test_two_looks_must_follow_each_other(broker: Queues) -> None:
    row = settled_row()
    loop = make()
    loop.step()
    broker.ready = 1
    loop.step()
    broker.ready = 0
    loop.step()
    assert not is_armed(row)
    broker.away = True
    loop.step()
    broker.away = False
    loop.step()
    assert not is_armed(row)
    loop.step()
    assert is_armed(row)


def test_rows_that_came_just_now_run_or_have_a_bell_are_not_missed(broker: Queues) -> None:
    fresh, running, delayed = new_row(), settled_row(), settled_row(status=Status.WAITING, ring_at=in_seconds(60))
    armed = settled_row(ring_at=in_seconds(60))
    claim_of(running)
    loop = make()
    loop.step()
    loop.step()
    assert broker.asked == []
    assert not is_armed(fresh)
    assert status_of(running) == Status.IN_PROGRESS
    for row in (delayed, armed):
        row.refresh_from_db()
        assert row.ring_at is not None
        assert row.ring_at > in_seconds(50)


def test_fewer_messages_than_rows_have_a_marker_sent_now_and_then(
    broker: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [settled_row() for _ in range(3)]
    loop = make()
    broker.ready = 3
    loop.step()
    assert broker.markers == []
    broker.ready = 2
    loop.step()
    loop.step()
    assert broker.markers == ["default"]
    moment = clock.monotonic() + 12 * INTERVAL
    monkeypatch.setattr("carrot.clock.monotonic", lambda: moment)
    loop.step()
    assert broker.markers == ["default", "default"]
    assert not any(map(is_armed, rows))


def test_a_marker_does_not_speak_of_tasks_whose_messages_may_be_sent_after_it(broker: Queues) -> None:
    """As after an outage: bells of old tasks are still being rung, and come out of the queue behind the marker."""
    for _ in range(2):
        settled_row()
    broker.ready = 1
    make().step()
    assert broker.before > in_seconds(-5)
    unsent = new_row(state_at=in_seconds(-300), ring_at=in_seconds(-200))
    in_hand = new_row(state_at=in_seconds(-200), ring_at=in_seconds(4))
    soon, old = in_seconds(4), in_seconds(-900)
    new_row(state_at=old, ring_at=soon, note="refused")
    new_row(state_at=old, ring_at=soon, exchange="missing")
    new_row(state_at=old, ring_at=soon, status=Status.WAITING)
    new_row(state_at=old, ring_at=soon, queue="other", routing_key="other")
    make().step()
    assert broker.before == unsent.state_at
    MessageLog.objects.filter(pk=unsent.pk).update(ring_at=None)
    make().step()
    assert broker.before == in_hand.state_at


def test_while_very_many_bells_are_due_no_marker_is_sent(broker: Queues, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carrot.reconciler.COUNTED", 3)
    for _ in range(3):
        settled_row()
        unsent = settled_row(ring_at=in_seconds(-1))
    broker.ready = 1
    loop = make()
    loop.step()
    assert broker.markers == []
    MessageLog.objects.filter(pk=unsent.pk).update(ring_at=None)
    loop.step()
    assert broker.markers == ["default"]


def test_of_a_broker_that_does_not_answer_nothing_is_concluded(broker: Queues) -> None:
    row = settled_row()
    loop = make()
    broker.away = True
    for _ in range(3):
        assert loop.step() == INTERVAL
    broker.away, broker.ready = False, None
    for _ in range(3):
        loop.step()
    assert not is_armed(row)


def test_queues_of_the_embedded_broker_are_not_asked(broker: Queues) -> None:
    row = settled_row(queue="rows", routing_key="rows")
    loop = make()
    loop.step()
    loop.step()
    assert broker.asked == []
    assert not is_armed(row)


def test_rows_that_went_another_way_than_into_the_queue_of_their_name_are_not_counted(broker: Queues) -> None:
    elsewhere = [settled_row(routing_key="orders"), settled_row(exchange="shop")]
    loop = make()
    loop.step()
    loop.step()
    assert broker.asked == []
    row = settled_row(exchange="default")
    loop.step()
    loop.step()
    assert is_armed(row)
    assert not any(map(is_armed, elsewhere))
