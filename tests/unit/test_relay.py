"""What is rung, where, and when not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from django.db import connection

from carrot import clock, publisher
from carrot.brokers.database import DatabaseBroker
from carrot.conf import get_settings
from carrot.message import Message
from carrot.models import MessageLog, Status
from carrot.relay import LOOK, Relay
from carrot.virtual_host import VirtualHost
from tests.rows import in_seconds, new_row, new_worker, status_of

pytestmark = pytest.mark.django_db
HERE, THERE = "amqp://here", "amqp://there"


class Bells(DatabaseBroker):
    """A broker that notes what it is given."""

    rows_are_messages = False

    def __init__(self, host: VirtualHost) -> None:
        super().__init__(host)
        self.rung: list[Message] = []
        self.away = False

    def ring(self, messages: Sequence[Message]) -> None:
        self.rung += messages

    def can_ring(self) -> bool:
        return not self.away

    def describe(self) -> str:
        return "takes no messages: low on memory" if self.away else "well"


@pytest.fixture
def brokers(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Bells]:
    """Two virtual hosts with a queue each, ``default`` and ``other``; returns the broker by its URL."""
    settings.CARROT = {
        "default_broker": f"{HERE}/a",
        "queues": [{"name": "default"}, {"name": "other", "host": f"{THERE}/b"}],
    }
    made: dict[VirtualHost, Bells] = {}
    monkeypatch.setattr(publisher, "broker_of", lambda host: made.setdefault(host, Bells(host)))
    return lambda url: made.setdefault(VirtualHost.parse(url), Bells(VirtualHost.parse(url)))


def relay() -> Relay:
    return Relay(get_settings())


def address(url: str) -> str:
    return VirtualHost.parse(url).address


def test_due_rows_are_rung_on_the_broker_of_their_queue_with_the_next_bell_armed(brokers: Any) -> None:
    one = new_row(ring_at=in_seconds(-1), broker=address(f"{HERE}/a"))
    two = new_row(ring_at=in_seconds(-1), queue="other", broker=address(f"{THERE}/b"))
    new_row(ring_at=in_seconds(60), broker=address(f"{HERE}/a"))
    assert relay().step() == 0.0
    assert [message.uuid for message in brokers(f"{HERE}/a").rung] == [one.uuid]
    assert [message.uuid for message in brokers(f"{THERE}/b").rung] == [two.uuid]
    one.refresh_from_db()
    assert one.ring_at is not None
    again = 2 * get_settings().confirm_timeout
    assert in_seconds(again - 2) < one.ring_at <= in_seconds(again)


def test_a_delayed_task_is_rung_when_its_time_has_come(brokers: Any) -> None:
    row = new_row(status=Status.WAITING, ring_at=in_seconds(-1), broker=address(f"{HERE}/a"))
    later = new_row(status=Status.WAITING, ring_at=in_seconds(60), broker=address(f"{HERE}/a"))
    relay().step()
    assert [message.uuid for message in brokers(f"{HERE}/a").rung] == [row.uuid]
    assert status_of(row) == Status.PUBLISHED
    assert status_of(later) == Status.WAITING


@pytest.mark.parametrize("key", ["confirm_timeout", "reconcile_interval"])
def test_a_bell_that_the_settings_put_off_for_long_is_no_wrong_clocks(brokers: Any, settings: Any, key: str) -> None:
    settings.CARROT = settings.CARROT | {key: 500}
    row, wrong = (
        new_row(ring_at=in_seconds(seconds), broker=address(f"{HERE}/a")) for seconds in (2 * 500, 2 * 500 + 100)
    )
    relay().step()
    assert [message.uuid for message in brokers(f"{HERE}/a").rung] == [wrong.uuid]
    row.refresh_from_db()
    assert row.ring_at > in_seconds(2 * 500 - 60)


def test_while_a_broker_is_away_its_rows_are_not_pushed_forward_and_the_others_are_rung(brokers: Any) -> None:
    when = in_seconds(-1)
    row = new_row(ring_at=when, broker=address(f"{HERE}/a"))
    other = new_row(ring_at=when, queue="other", broker=address(f"{THERE}/b"))
    brokers(f"{HERE}/a").away = True
    here = relay()
    here.step()
    row.refresh_from_db()
    assert row.ring_at == when
    assert [message.uuid for message in brokers(f"{THERE}/b").rung] == [other.uuid]
    assert here.step() == LOOK  # no hurry
    brokers(f"{HERE}/a").away = False
    here.step()
    assert [message.uuid for message in brokers(f"{HERE}/a").rung] == [row.uuid]


def test_waiting_rows_follow_their_queue_to_another_broker(brokers: Any) -> None:
    row = new_row(broker="amqp://old/%2f")
    stays = new_row(broker=address(f"{HERE}/a"))
    here = relay()
    new_row(broker="amqp://unknown/%2f", queue="not in the settings", ring_at=in_seconds(-1))
    here.step()
    here.step()
    assert [message.uuid for message in brokers(f"{HERE}/a").rung] == [row.uuid]
    row.refresh_from_db()
    assert row.broker == address(f"{HERE}/a")
    stays.refresh_from_db()
    assert stays.ring_at is None


@pytest.mark.usefixtures("brokers")
def test_it_sleeps_until_the_next_bell_but_never_longer_than_its_look(monkeypatch: pytest.MonkeyPatch) -> None:
    now = clock.now()
    monkeypatch.setattr(clock, "now", lambda: now)
    assert relay().step() == LOOK
    new_row(ring_at=in_seconds(60), broker=address(f"{HERE}/a"))
    assert relay().step() == LOOK
    new_row(ring_at=in_seconds(0.2), broker=address(f"{HERE}/a"))
    assert relay().step() == pytest.approx(0.2)


def test_it_goes_on_without_a_pause_while_there_is_work(brokers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carrot.relay.BATCH", 2)
    for _ in range(3):
        new_row(ring_at=in_seconds(-1), broker=address(f"{HERE}/a"))
    here = relay()
    assert here.step() == 0.0
    assert len(brokers(f"{HERE}/a").rung) == 2
    here.step()
    assert len(brokers(f"{HERE}/a").rung) == 3
    assert here.step() > 0.0


def test_a_row_that_is_no_json_says_why_it_waits_and_the_others_are_rung(brokers: Any) -> None:
    bad, good = (new_row(ring_at=in_seconds(when), broker=address(f"{HERE}/a")) for when in (-2, -1))
    with connection.cursor() as cursor:
        cursor.execute("UPDATE carrot_messagelog SET kwargs = 'no JSON' WHERE id = %s", [bad.pk])
    here = relay()
    here.step()
    assert [message.uuid for message in brokers(f"{HERE}/a").rung] == [good.uuid]
    assert status_of(bad) == Status.PUBLISHED
    assert bad.note.startswith("no message can be made of it: What is stored is no JSON")
    assert bad.ring_at is not None
    assert bad.ring_at > in_seconds(60)
    assert here.step() == LOOK


@pytest.mark.usefixtures("brokers")
def test_a_row_of_the_embedded_broker_needs_no_further_bell(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.CARROT = {"default_broker": "database://"}
    monkeypatch.setattr(Bells, "rows_are_messages", True)
    row = new_row(status=Status.WAITING, ring_at=in_seconds(-1))
    relay().step()
    assert status_of(row) == Status.PUBLISHED
    assert row.ring_at is None
    assert MessageLog.objects.claim_next("default", 1, 0) == []  # no such worker


@pytest.mark.usefixtures("brokers")
def test_a_row_of_the_embedded_broker_that_is_no_json_can_be_claimed(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.CARROT = {"default_broker": "database://"}
    monkeypatch.setattr(Bells, "rows_are_messages", True)
    row = new_row(status=Status.WAITING, ring_at=in_seconds(-1))
    with connection.cursor() as cursor:
        cursor.execute("UPDATE carrot_messagelog SET args = 'no JSON' WHERE id = %s", [row.pk])
    relay().step()
    assert [claim.id for claim in MessageLog.objects.claim_next("default", 1, new_worker().pk)] == [row.pk]


def test_what_keeps_due_messages_from_being_sent_is_told_when_it_is_seen_twice_and_when_it_is_over(
    brokers: Any,
) -> None:
    new_row(ring_at=in_seconds(-1), broker=address(f"{HERE}/a"))
    new_row(ring_at=in_seconds(-1), queue="other", broker=address(f"{THERE}/b"))
    told: list[str] = []
    here = Relay(get_settings(), told.append)
    brokers(f"{HERE}/a").away = True
    here.step()
    assert told == []
    here.step()
    here.step()
    why = f"{VirtualHost.parse(f'{HERE}/a')}: takes no messages: low on memory"
    assert told == [why, why]  # a worker may have been started between the two
    brokers(f"{HERE}/a").away = False
    for _ in range(3):
        here.step()
    assert told == [why, why, ""]
    brokers(f"{THERE}/b").away = True  # of which nothing is wanted
    new_row(ring_at=in_seconds(-1), queue="gone", broker=address(f"{HERE}/a"))
    for _ in range(3):
        here.step()
    assert told == [why, why, ""]


def test_what_a_service_before_it_has_told_is_taken_back_by_a_relay_that_can_send(brokers: Any) -> None:
    told: list[str] = []
    here = Relay(get_settings(), told.append)
    for _ in range(3):
        here.step()
    assert told == [""]
