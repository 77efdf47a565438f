"""The bells of waiting rows, ``ring_at`` (verbs of ``carrot/models/transitions.py``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from carrot import clock
from carrot.models import MessageLog, Status, transitions
from tests.rows import claim_of, in_seconds, new_row, new_worker, status_of

pytestmark = pytest.mark.django_db

ENDED = [Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.HANDED_OVER, Status.IN_PROGRESS]


def ring(*queues: str, again_in: float | None = 10.0, limit: int = 100) -> list[int]:
    rows = MessageLog.objects.ring(queues or ("default",), again_in=again_in, broker="amqp://new/%2f", limit=limit)
    return [row.pk for row in rows]


@pytest.fixture
def next_change(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
    """Has something done by somebody else as soon as the next change of rows is committed, once."""

    def then(meanwhile: Callable[[], Any]) -> None:
        real = transitions.update_returning

        def change(*args: Any, **kwargs: Any) -> Any:
            monkeypatch.setattr(transitions, "update_returning", real)
            changed = real(*args, **kwargs)
            meanwhile()
            return changed

        monkeypatch.setattr(transitions, "update_returning", change)

    return then


def test_due_rows_are_rung_and_their_next_bell_is_armed_first() -> None:
    row = new_row(ring_at=in_seconds(-1), note="unroutable")
    assert ring() == [row.pk]
    row.refresh_from_db()
    assert row.ring_at is not None
    assert in_seconds(8) < row.ring_at < in_seconds(11)
    assert (row.status, row.note, row.broker) == (Status.PUBLISHED, "", "amqp://new/%2f")
    assert ring() == []


def test_a_delayed_row_becomes_published_when_its_time_has_come() -> None:
    due, later = (new_row(status=Status.WAITING, ring_at=in_seconds(seconds)) for seconds in (-1, 60))
    assert ring(again_in=None) == [due.pk]
    assert (status_of(due), due.ring_at) == (Status.PUBLISHED, None)
    assert status_of(later) == Status.WAITING


@pytest.mark.parametrize("status", ENDED)
def test_nothing_else_is_ever_rung(status: Status) -> None:
    row = new_row(status=status, ring_at=in_seconds(-1))
    assert not MessageLog.objects.due(clock.now()).exists()
    assert ring() == []
    assert status_of(row) == status


def test_the_earliest_bells_of_the_asked_queues_are_rung_first() -> None:
    rows = [new_row(ring_at=in_seconds(seconds)) for seconds in (-1, -3, -2)]
    other = new_row(queue="other", ring_at=in_seconds(-9))
    due = list(MessageLog.objects.due(clock.now()))
    assert due == [other, rows[1], rows[2], rows[0]]
    assert sorted(ring(limit=2)) == sorted([rows[1].pk, rows[2].pk])
    assert ring() == [rows[0].pk]
    assert MessageLog.objects.due(clock.now()).get() == other


def test_a_confirm_disarms_the_bell() -> None:
    row = new_row(ring_at=in_seconds(5), note="was unroutable")
    assert MessageLog.objects.confirmed([row.uuid], 0) == 1
    assert (status_of(row), row.ring_at, row.note) == (Status.PUBLISHED, None, "")


def test_a_confirm_that_comes_after_the_claim_changes_nothing() -> None:
    row = new_row(ring_at=in_seconds(5))
    claim_of(row)
    assert MessageLog.objects.confirmed([row.uuid], 0) == 0
    assert MessageLog.objects.confirmed([row.uuid], 0, handed_over=True) == 0
    assert status_of(row) == Status.IN_PROGRESS


def test_a_confirm_of_an_earlier_message_does_not_disarm_the_bell_of_a_released_claim() -> None:
    row = new_row(ring_at=in_seconds(5))
    claim = claim_of(row)
    MessageLog.objects.release([(row.pk, claim.fence)])
    assert MessageLog.objects.confirmed([row.uuid], 0) == 0
    row.refresh_from_db()
    assert row.ring_at is not None
    assert MessageLog.objects.confirmed([row.uuid], 1) == 1


def test_a_row_that_is_claimed_as_soon_as_it_was_rung_is_not_rung_with_the_fence_of_that_claim(
    next_change: Callable[[Callable[[], Any]], None],
) -> None:
    row = new_row(ring_at=in_seconds(-1))
    next_change(lambda: claim_of(row))  # by an earlier message, which was not confirmed
    (rung,) = MessageLog.objects.ring(["default"], again_in=10.0, broker="amqp://new/%2f", limit=100)
    row.refresh_from_db()
    MessageLog.objects.release([(row.pk, row.fence)])
    # The message found the row running and was acknowledged: the bell of the release is all there is.
    assert MessageLog.objects.confirmed([row.uuid], rung.to_message().fence) == 0


def test_a_row_that_is_claimed_as_soon_as_it_was_handed_back_is_not_rung_with_the_fence_of_that_claim(
    next_change: Callable[[Callable[[], Any]], None],
) -> None:
    row = new_row()
    first = claim_of(row)
    next_change(lambda: claim_of(row))
    (returned,) = MessageLog.objects.hand_back([first], ring_in=5.0)
    row.refresh_from_db()
    MessageLog.objects.release([(row.pk, row.fence)])
    assert MessageLog.objects.confirmed([row.uuid], returned.to_message().fence) == 0


def test_ringing_is_one_statement_however_many_rows_are_due(django_assert_max_num_queries: Any) -> None:
    rows = [new_row(ring_at=in_seconds(-number)) for number in range(50)]
    with django_assert_max_num_queries(3):  # a savepoint around it where there are row locks
        assert ring() == [row.pk for row in rows]


def test_a_confirm_of_a_queue_that_is_not_ours_hands_the_task_over() -> None:
    row = new_row(ring_at=in_seconds(5))
    assert MessageLog.objects.confirmed([row.uuid], 0, handed_over=True) == 1
    assert (status_of(row), row.ring_at) == (Status.HANDED_OVER, None)


@pytest.mark.parametrize("status", [Status.CANCELLED, Status.WAITING])
def test_a_confirm_changes_only_what_waits_for_its_message(status: Status) -> None:
    row = new_row(status=status, ring_at=in_seconds(5))
    assert MessageLog.objects.confirmed([row.uuid], 0) == 0
    assert MessageLog.objects.confirmed([row.uuid], 0, handed_over=True) == 0
    assert status_of(row) == status
    assert row.ring_at is not None


def test_what_cannot_be_delivered_waits_and_says_why() -> None:
    row, running = new_row(), new_row()
    claim_of(running)
    assert MessageLog.objects.undeliverable([row.uuid, running.uuid], "no exchange " * 50, 15.0) == 1
    row.refresh_from_db()
    assert row.ring_at is not None
    assert in_seconds(10) < row.ring_at < in_seconds(16)
    assert row.note.startswith("no exchange")
    assert len(row.note) == 255


def test_a_bell_is_armed_in_waiting_rows_and_a_claim_in_between_wins() -> None:
    silent, armed, running = new_row(), new_row(ring_at=in_seconds(60)), new_row()
    claim_of(running)
    assert MessageLog.objects.all().arm(10.0) == 2
    for row in (silent, armed):
        row.refresh_from_db()
        assert row.ring_at is not None
        assert in_seconds(5) < row.ring_at < in_seconds(11)
    assert status_of(running) == Status.IN_PROGRESS
    assert running.ring_at is None


def test_only_a_message_that_is_sent_from_now_on_disarms_a_bell_that_was_armed() -> None:
    row = new_row()
    MessageLog.objects.believed_in("default").arm(10.0)
    assert MessageLog.objects.confirmed([row.uuid], row.fence) == 0
    row.refresh_from_db()
    assert row.ring_at is not None
    assert MessageLog.objects.confirmed([row.uuid], row.to_message().fence) == 1


def test_a_claim_takes_a_row_whose_bell_was_armed_meanwhile() -> None:
    row = new_row()
    MessageLog.objects.all().arm(10.0)
    claim_of(row)
    assert (status_of(row), row.ring_at) == (Status.IN_PROGRESS, None)


def test_waiting_rows_of_a_queue_follow_it_to_its_new_broker() -> None:
    old, new, other = new_row(), new_row(broker="amqp://new/%2f"), new_row(queue="other")
    running = new_row()
    claim_of(running)
    assert MessageLog.objects.moved("default", "amqp://new/%2f") == 1
    old.refresh_from_db()
    assert old.broker == "amqp://new/%2f"
    assert old.ring_at is not None
    assert old.ring_at <= in_seconds(0)
    for row in (new, other, running):
        row.refresh_from_db()
        assert row.ring_at is None
    assert MessageLog.objects.moved("default", "amqp://new/%2f") == 0


def test_a_confirm_of_the_old_broker_does_not_disarm_the_bell_for_the_new_one() -> None:
    row = new_row(ring_at=in_seconds(5))
    MessageLog.objects.moved("default", "amqp://new/%2f")
    assert MessageLog.objects.confirmed([row.uuid], row.fence) == 0


@pytest.mark.parametrize("status", [Status.PUBLISHED, Status.WAITING])
def test_waiting_rows_can_be_withdrawn(status: Status) -> None:
    row = new_row(status=status, ring_at=in_seconds(60))
    assert MessageLog.objects.filter(pk=row.pk).withdraw() == 1
    assert (status_of(row), row.ring_at) == (Status.CANCELLED, None)
    assert MessageLog.objects.claim([row.uuid], new_worker().pk) == {}


def test_a_claim_that_came_first_is_not_withdrawn() -> None:
    row = new_row()
    claim_of(row)
    assert MessageLog.objects.filter(pk=row.pk).withdraw() == 0
    assert status_of(row) == Status.IN_PROGRESS


def test_only_a_task_whose_worker_was_lost_is_rung_with_a_priority_above_its_own() -> None:
    def priority(row: MessageLog) -> int:
        row.refresh_from_db()
        return row.to_message().priority

    fresh, lost, killed, returned, armed, first = (new_row(priority=number) for number in (4, 4, 4, 4, 4, 255))
    for row in (lost, first):
        MessageLog.objects.release([(row.pk, claim_of(row).fence)])
    worker = new_worker()
    claim_of(killed, worker)
    MessageLog.objects.blame([killed.pk], worker.pk, "it was killed")
    MessageLog.objects.hand_back([claim_of(returned)], note="another version of the code")
    MessageLog.objects.filter(pk=armed.pk).arm(0.0)
    assert [priority(row) for row in (fresh, lost, killed, returned, armed, first)] == [4, 5, 5, 4, 4, 255]
    MessageLog.objects.hand_back([claim_of(lost)])
    assert priority(lost) == 5
    MessageLog.objects.filter(pk=lost.pk).update(status="FAILED")
    MessageLog.objects.requeue([lost.pk], {"default": ("amqp://h/", 0.0)})
    assert priority(lost) == 4
