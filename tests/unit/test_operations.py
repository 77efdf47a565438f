"""What an operator does with tasks (``carrot/operations.py``)."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection, transaction

from carrot import operations, publisher
from carrot.brokers.database import DatabaseBroker
from carrot.conf import QueueSettings
from carrot.models import Attempt, MessageLog, Origin, Status
from carrot.models.claim import Claim
from carrot.models.transitions import MessageLogQuerySet
from tests.rows import claim_of, in_seconds, new_row, new_worker, outcome_of, status_of

pytestmark = pytest.mark.django_db


def failed_row(**changes: Any) -> MessageLog:
    """A row whose first attempt failed, as the recorder leaves it."""
    row = new_row(**changes)
    worker = new_worker()
    assert MessageLog.objects.record([outcome_of(claim_of(row, worker), "FAILED")])
    row.refresh_from_db()
    return row


def test_a_failed_task_is_requeued_as_the_same_row_with_its_attempt_in_the_history() -> None:
    row = failed_row()
    uuid, traceback = row.uuid, row.traceback
    assert operations.requeue([row.pk]) == operations.Result(done=1)
    assert status_of(row) == Status.PUBLISHED
    assert (row.uuid, row.exception, row.traceback, row.log, row.failure_time, row.worker_id) == (
        uuid, "", "", "", None, None,
    )  # fmt: skip
    assert row.ring_at is not None  # W: armed until the message is confirmed, or the row is claimed
    (attempt,) = Attempt.objects.filter(message_log=row)
    assert (attempt.number, attempt.traceback, attempt.worker[:5]) == (1, traceback, "host:")


def test_a_requeued_task_can_be_claimed_and_its_old_outcome_is_late() -> None:
    row = new_row()
    worker = new_worker()
    claim: Claim = claim_of(row, worker)
    MessageLog.objects.record([outcome_of(claim, "FAILED")])
    operations.requeue([row.pk])
    again = claim_of(row, worker)
    assert again.fence > claim.fence
    assert MessageLog.objects.record([outcome_of(claim)]) == set()
    assert MessageLog.objects.record([outcome_of(again)]) == {row.pk}


def test_a_late_confirm_does_not_disarm_the_bell_of_a_requeued_task(settings: Any) -> None:
    settings.CARROT = {"default_broker": "amqp://host/v", "publisher": "relay"}
    row = new_row(ring_at=in_seconds(5))  # its message is sent, and confirmed
    operations.withdraw([row.pk])
    assert MessageLog.objects.claim([row.uuid], new_worker().pk) == {}  # its message comes, and is acknowledged
    operations.requeue([row.pk])
    MessageLog.objects.confirmed([row.uuid], 0)  # what was said of the first message is written now
    row.refresh_from_db()
    assert row.ring_at is not None


@pytest.mark.parametrize(("publisher", "seconds"), [("thread", 300), ("relay", 0)])
def test_the_bell_of_a_requeued_task_waits_only_for_a_process_that_sends_its_message(
    settings: Any, publisher: str, seconds: int
) -> None:
    settings.CARROT = {"default_broker": "amqp://host/v", "publisher": publisher, "confirm_timeout": 300}
    row = failed_row()
    operations.requeue([row.pk])
    row.refresh_from_db()
    assert in_seconds(seconds - 5) < row.ring_at <= in_seconds(seconds)


def test_a_task_whose_arguments_cannot_be_read_is_requeued_like_its_neighbours(settings: Any) -> None:
    settings.CARROT = {"default_broker": "amqp://host/v", "publisher": "thread"}
    bad, good = failed_row(), failed_row()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE carrot_messagelog SET args = 'no JSON' WHERE id = %s", [bad.pk])
    assert operations.requeue([bad.pk, good.pk]).done == 2
    bad.refresh_from_db()
    assert "no JSON" in bad.note


def test_a_second_press_requeues_nothing() -> None:
    row = failed_row()
    operations.requeue([row.pk])
    second = operations.requeue([row.pk])
    assert (second.done, dict(second.skipped)) == (0, {"status: Queued": 1})
    assert Attempt.objects.count() == 1


def test_what_cannot_be_requeued_is_counted_by_its_reason() -> None:
    running = new_row()
    claim_of(running)
    gone = failed_row(queue="left the settings")
    result = operations.requeue([failed_row().pk, running.pk, gone.pk, 10**9])
    assert result.done == 1
    assert dict(result.skipped) == {
        "status: Running": 1,
        "queue left the settings is not in the settings any more": 1,
        "not there any more": 1,
    }
    assert status_of(gone) == Status.FAILED


def test_a_requeue_that_is_rolled_back_leaves_the_task_failed() -> None:
    row = failed_row()
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        operations.requeue([row.pk])
        raise ZeroDivisionError
    assert status_of(row) == Status.FAILED
    assert not Attempt.objects.exists()


def test_thousands_are_requeued_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "SLICE", 3)
    rows = [failed_row() for _ in range(8)]
    assert operations.requeue(row.pk for row in rows).done == 8
    assert MessageLog.objects.filter(status=Status.PUBLISHED).count() == 8


def test_the_model_has_requeue_as_a_method_as_in_1_x() -> None:
    row = failed_row()
    assert row.requeue().pk == row.pk
    assert row.status == Status.PUBLISHED


def test_run_again_makes_a_new_row_and_leaves_the_old_one() -> None:
    row = new_row(args=[1], kwargs={"b": 2}, priority=3, exchange="x", routing_key="y")
    MessageLog.objects.record([outcome_of(claim_of(row))])
    copy = operations.run_again(row, origin=Origin.ADMIN)
    assert copy.pk != row.pk
    assert copy.uuid != row.uuid
    assert (copy.args, copy.kwargs, copy.priority, copy.exchange, copy.routing_key, copy.origin) == (
        [1], {"b": 2}, 3, "x", "y", "admin",
    )  # fmt: skip
    assert status_of(row) == Status.COMPLETED


def test_waiting_tasks_are_withdrawn_and_running_ones_are_not() -> None:
    waiting, delayed, running = new_row(), new_row(status="WAITING", ring_at=in_seconds(60)), new_row()
    claim_of(running)
    result = operations.withdraw([waiting.pk, delayed.pk, running.pk])
    assert (result.done, dict(result.skipped)) == (2, {"status: Running": 1})
    assert [status_of(row) for row in (waiting, delayed, running)] == ["CANCELLED", "CANCELLED", "IN_PROGRESS"]


def test_only_tasks_that_are_over_are_deleted_with_their_history() -> None:
    failed, waiting = failed_row(), new_row()
    operations.requeue([failed.pk])
    MessageLog.objects.record([outcome_of(claim_of(failed))])
    result = operations.delete([failed.pk, waiting.pk])
    assert (result.done, dict(result.skipped)) == (1, {"status: Queued": 1})
    assert list(MessageLog.objects.values_list("pk", flat=True)) == [waiting.pk]
    assert not Attempt.objects.exists()


def test_a_purge_withdraws_what_waits_in_the_queue_and_nothing_else(settings: Any) -> None:
    settings.CARROT = {"default_broker": "database://", "queues": [{"name": "default"}, {"name": "other"}]}
    waiting, running, delayed, other = new_row(), new_row(), new_row(status="WAITING"), new_row(queue="other")
    claim_of(running)
    assert operations.purge_queue("default") == 1
    assert [status_of(row) for row in (waiting, running, delayed, other)] == [
        "CANCELLED", "IN_PROGRESS", "WAITING", "PUBLISHED",
    ]  # fmt: skip
    assert operations.purge_queue() == 1


@pytest.mark.parametrize("consumable", [True, False])
def test_a_confirm_in_hand_does_not_disarm_the_bell_of_a_task_published_during_a_purge(
    settings: Any, monkeypatch: pytest.MonkeyPatch, consumable: bool
) -> None:
    settings.CARROT = {"default_broker": "amqp://host/v", "queues": [{"name": "default", "consumable": consumable}]}
    rows: list[MessageLog] = []

    class Emptied(DatabaseBroker):
        def purge(self, queue: QueueSettings, timeout: float) -> int:
            rows.append(new_row(ring_at=in_seconds(5)))  # published, confirmed, and removed with the others
            return 1

    monkeypatch.setattr(publisher, "broker_of", Emptied)
    assert operations.purge_queue("default") == 0
    (row,) = rows
    assert MessageLog.objects.confirmed([row.uuid], row.fence, handed_over=not consumable) == 0
    assert status_of(row) == Status.PUBLISHED
    assert row.ring_at is not None
    assert row.ring_at <= in_seconds(0)


def test_a_confirm_in_hand_does_not_disarm_the_bell_of_a_task_rung_again(settings: Any) -> None:
    settings.CARROT = {"default_broker": "amqp://localhost:1/"}
    row = new_row(ring_at=in_seconds(5))  # its message is sent, confirmed, and lost by the broker
    assert operations.requeue_all() == 1
    assert MessageLog.objects.confirmed([row.uuid], row.fence) == 0
    row.refresh_from_db()
    assert row.ring_at is not None
    assert row.ring_at <= in_seconds(0)


def test_requeue_all_rings_what_waits_and_releases_orphans_but_no_live_task(settings: Any) -> None:
    settings.CARROT = {"default_broker": "amqp://localhost:1/"}
    waiting, orphan, running = new_row(), new_row(), new_row()
    dead = new_worker(alive=False)
    claim_of(running)
    MessageLog.objects.filter(pk=orphan.pk).update(status="IN_PROGRESS", fence=1, worker=dead)
    assert operations.requeue_all() == 2
    assert [status_of(row) for row in (waiting, orphan, running)] == ["PUBLISHED", "PUBLISHED", "IN_PROGRESS"]
    assert waiting.ring_at is not None
    assert orphan.ring_at is not None


def test_requeue_all_rings_and_releases_thousands_in_slices(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.CARROT = {"default_broker": "amqp://localhost:1/"}
    monkeypatch.setattr(operations, "SLICE", 2)
    waiting = [new_row() for _ in range(5)]
    dead = new_worker(alive=False)
    orphans = [new_row(status="IN_PROGRESS", worker=dead) for _ in range(5)]
    look = MessageLogQuerySet.orphans
    monkeypatch.setattr(MessageLogQuerySet, "orphans", lambda rows, *_limit: look(rows, 2))
    armed: list[int] = []
    arm = MessageLogQuerySet.arm
    monkeypatch.setattr(MessageLogQuerySet, "arm", lambda rows, *args: armed.append(done := arm(rows, *args)) or done)
    assert operations.requeue_all() == 10
    assert armed == [2, 2, 1]
    for row in (*waiting, *orphans):
        assert status_of(row) == Status.PUBLISHED
        assert row.ring_at is not None
