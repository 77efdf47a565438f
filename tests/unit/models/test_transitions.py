"""Every change of status, and who else may touch the row at that moment: what one row goes through."""

from __future__ import annotations

from uuid import uuid4

import pytest

from carrot.models import Attempt, MessageLog, Status, WorkerProcess
from tests.rows import claim_of, in_seconds, new_row, new_worker, outcome_of, status_of

pytestmark = pytest.mark.django_db

ENDED = [Status.COMPLETED, Status.FAILED, Status.CANCELLED]
NOT_CLAIMABLE = [Status.WAITING, Status.IN_PROGRESS, *ENDED]


# -- claim ------------------------------------------------------------------------------------------------------------


def test_a_claim_takes_the_row_raises_the_fence_and_counts_the_try() -> None:
    row, worker = new_row(ring_at=in_seconds(5), note="why", priority=2), new_worker()
    claim = MessageLog.objects.claim([row.uuid, uuid4()], worker.pk)[row.uuid]
    assert status_of(row) == Status.IN_PROGRESS
    assert (row.worker_id, row.fence, row.tries, row.ring_at, row.note) == (worker.pk, 1, 1, None, "")
    assert (claim.id, claim.fence, claim.tries, claim.args, claim.kwargs) == (row.pk, 1, 1, [1, 2], {})
    assert row.state_at > row.publish_time


@pytest.mark.parametrize("status", NOT_CLAIMABLE)
def test_what_does_not_wait_to_run_now_is_not_claimed(status: Status) -> None:
    row, worker = new_row(status=status), new_worker()
    assert MessageLog.objects.claim([row.uuid], worker.pk) == {}
    assert MessageLog.objects.claim_next("default", 10, worker.pk) == []
    assert (status_of(row), row.fence) == (status, 0)


def test_what_was_handed_over_to_another_program_is_claimed_when_its_message_comes_here_after_all() -> None:
    row = new_row(status=Status.HANDED_OVER)
    assert claim_of(row).fence == 1


def test_the_second_claim_of_a_row_gets_nothing() -> None:
    row = new_row()
    claim_of(row)
    assert MessageLog.objects.claim([row.uuid], new_worker().pk) == {}
    assert MessageLog.objects.claim_next("default", 10, new_worker().pk) == []
    assert status_of(row) == Status.IN_PROGRESS
    assert row.fence == 1


def test_a_worker_that_was_declared_lost_claims_nothing() -> None:
    row, worker = new_row(), new_worker()
    assert WorkerProcess.objects.end(worker.pk, "lost")
    assert not WorkerProcess.objects.end(worker.pk, "twice")
    assert MessageLog.objects.claim([row.uuid], worker.pk) == {}
    assert MessageLog.objects.claim_next("default", 1, worker.pk) == []
    assert MessageLog.objects.claim([row.uuid], 0) == {}
    assert status_of(row) == Status.PUBLISHED
    worker.refresh_from_db()
    assert (worker.alive, worker.ending) == (False, "lost")


def test_the_next_ones_are_the_highest_priorities_then_the_oldest_of_their_queue() -> None:
    rows = [new_row(priority=priority) for priority in (0, 5, 9, 5)]
    new_row(queue="other", priority=10)
    new_row(priority=10, ring_at=in_seconds(60))
    found = [claim.id for claim in MessageLog.objects.claim_next("default", 3, new_worker().pk)]
    assert found == [rows[2].pk, rows[1].pk, rows[3].pk]
    assert status_of(rows[0]) == Status.PUBLISHED


# -- hand back, release -----------------------------------------------------------------------------------------------


def test_what_is_handed_back_waits_again_and_counts_no_try() -> None:
    row = new_row()
    claim = claim_of(row)
    (returned,) = MessageLog.objects.hand_back([claim], ring_in=60.0, note="its turn did not come")
    assert returned.pk == row.pk
    assert status_of(row) == Status.PUBLISHED
    assert (row.worker_id, row.tries, row.hand_backs, row.fence) == (None, 0, 1, 1)
    assert row.note == "its turn did not come"
    assert row.ring_at is not None
    assert in_seconds(50) < row.ring_at < in_seconds(61)


def test_a_claim_handed_back_late_changes_nothing() -> None:
    row = new_row()
    stale = claim_of(row)
    MessageLog.objects.release([(row.pk, stale.fence)])
    current = claim_of(row)
    assert MessageLog.objects.hand_back([stale]) == []
    assert status_of(row) == Status.IN_PROGRESS
    assert (row.fence, row.tries, row.hand_backs) == (current.fence, 2, 0)
    assert MessageLog.objects.hand_back([]) == []


def test_of_claims_handed_back_together_only_those_still_held_return() -> None:
    rows = [new_row(), new_row(), new_row()]
    claims = [claim_of(row) for row in rows]
    MessageLog.objects.record([outcome_of(claims[1])])
    assert {row.pk for row in MessageLog.objects.hand_back(claims)} == {rows[0].pk, rows[2].pk}
    assert status_of(rows[1]) == Status.COMPLETED


def test_a_released_claim_runs_again_at_once_and_its_try_counts() -> None:
    row = new_row()
    claim = claim_of(row)
    assert MessageLog.objects.release([(row.pk, claim.fence), (row.pk + 999, 1)]) == 1
    assert status_of(row) == Status.PUBLISHED
    assert (row.worker_id, row.tries, row.fence) == (None, 1, 1)
    assert row.ring_at is not None
    assert row.ring_at <= in_seconds(0)
    assert MessageLog.objects.release([]) == 0


def test_a_release_with_an_old_fence_leaves_the_new_claim_alone() -> None:
    row = new_row()
    old = claim_of(row)
    MessageLog.objects.release([(row.pk, old.fence)])
    claim_of(row)
    assert MessageLog.objects.release([(row.pk, old.fence)]) == 0
    assert status_of(row) == Status.IN_PROGRESS


# -- outcomes that come late ------------------------------------------------------------------------------------------


def test_an_outcome_is_dropped_when_its_claim_was_released_meanwhile() -> None:
    row = new_row()
    late = claim_of(row)
    MessageLog.objects.release([(row.pk, late.fence)])
    assert MessageLog.objects.record([outcome_of(late)]) == set()
    assert status_of(row) == Status.PUBLISHED
    assert row.output is None


def test_an_outcome_is_dropped_when_another_worker_has_the_row() -> None:
    row = new_row()
    late = claim_of(row)
    MessageLog.objects.release([(row.pk, late.fence)])
    current = claim_of(row)
    assert MessageLog.objects.record([outcome_of(late)]) == set()
    assert status_of(row) == Status.IN_PROGRESS
    assert MessageLog.objects.record([outcome_of(current, "FAILED")]) == {row.pk}
    assert status_of(row) == Status.FAILED
    assert MessageLog.objects.record([outcome_of(late)]) == set()
    assert status_of(row) == Status.FAILED


def test_progress_is_shown_for_the_claim_that_holds_and_for_no_other() -> None:
    row = new_row()
    late = claim_of(row)
    assert MessageLog.objects.write_progress(late, 2.0, "line 1")
    MessageLog.objects.release([(row.pk, late.fence)])
    assert not MessageLog.objects.write_progress(late, 3.0, "line 2")
    claim_of(row)
    assert not MessageLog.objects.write_progress(late, 4.0, "line 3")
    row.refresh_from_db()
    assert row.log == "line 1"
    assert row.start_time is None  # that of the new attempt, which has not begun


# -- lost workers -----------------------------------------------------------------------------------------------------


def test_orphans_are_running_rows_whose_worker_is_gone() -> None:
    here, gone, forgotten = new_worker(), new_worker(), new_worker()
    rows = [new_row() for _ in range(4)]
    claims = [claim_of(row, worker) for row, worker in zip(rows, [here, gone, forgotten, gone], strict=True)]
    MessageLog.objects.record([outcome_of(claims[3])])
    WorkerProcess.objects.end(gone.pk, "killed")
    forgotten.delete()
    nobody = new_row(status=Status.IN_PROGRESS)
    found = sorted(MessageLog.objects.orphans())
    assert [pk for pk, _fence, _worker in found] == [rows[1].pk, rows[2].pk, nobody.pk]
    assert found[0] == (rows[1].pk, 1, gone.pk)
    assert len(MessageLog.objects.orphans(limit=2)) == 2


def test_a_task_that_took_its_worker_with_it_three_times_is_failed() -> None:
    row = new_row()
    for time in (1, 2):
        worker = new_worker()
        claim_of(row, worker)
        assert MessageLog.objects.blame([row.pk], worker.pk, "it was killed") == []
        assert status_of(row) == Status.PUBLISHED
        assert (row.crashes, row.worker_id, row.exception) == (time, None, "")
        assert row.ring_at is not None
        attempt = Attempt.objects.get(message_log=row, number=time)
        assert "worker lost: it was killed" in attempt.exception
        assert (attempt.worker, attempt.end_time is None) == (str(worker), False)
    worker = new_worker()
    claim_of(row, worker)
    assert MessageLog.objects.blame([row.pk], worker.pk, "it was killed") == [row.pk]
    assert status_of(row) == Status.FAILED
    assert row.exception == "worker lost: it was killed while this task was running (time 3 of 3)"
    assert (row.crashes, row.tries, row.worker_id) == (3, 3, worker.pk)
    assert row.failure_time is not None
    assert row.ring_at is None
    assert Attempt.objects.filter(message_log=row).count() == 2


def test_what_a_lost_attempt_showed_is_in_the_history_and_not_in_the_next_one() -> None:
    row, worker = new_row(), new_worker()
    assert MessageLog.objects.write_progress(claim_of(row, worker), 5.0, "a log")
    MessageLog.objects.blame([row.pk], worker.pk, "it was killed")
    row.refresh_from_db()
    assert (row.start_time, row.log, row.exception, row.traceback) == (None, "", "", "")
    MessageLog.objects.filter(pk=row.pk).withdraw()
    MessageLog.objects.requeue([row.pk], {"default": ("database://", 0.0)})
    (attempt,) = Attempt.objects.filter(message_log=row)
    assert (attempt.number, attempt.log, attempt.start_time is None) == (1, "a log", False)


@pytest.mark.parametrize("text", ["cannot read caf\udce9.ini", "a\0b", "é" * 400, "\0" * 400])
def test_a_note_is_kept_whatever_it_holds(text: str) -> None:
    back, released, waiting = new_row(), new_row(), new_row()
    MessageLog.objects.hand_back([claim_of(back)], note=text)
    claim = claim_of(released)
    MessageLog.objects.release([(claim.id, claim.fence)], note=text)
    MessageLog.objects.undeliverable([waiting.uuid], text, 5.0)
    for row in (back, released, waiting):
        row.refresh_from_db()
        assert row.note[:2] in text.replace("\0", "\\x00")
        assert len(row.note) <= 255


def test_a_worker_is_blamed_on_its_own_running_tasks_only() -> None:
    dead, other = new_worker(), new_worker()
    done, theirs, waiting = new_row(), new_row(), new_row()
    MessageLog.objects.record([outcome_of(claim_of(done, dead))])
    claim_of(theirs, other)
    assert MessageLog.objects.blame([done.pk, theirs.pk, waiting.pk], dead.pk, "killed") == []
    for row, status in ((done, Status.COMPLETED), (theirs, Status.IN_PROGRESS), (waiting, Status.PUBLISHED)):
        assert status_of(row) == status
        assert row.crashes == 0
    assert not Attempt.objects.exists()


def test_an_attempt_shows_a_worker_whose_row_is_gone_by_its_number() -> None:
    worker = new_worker()
    row = new_row()
    claim_of(row, worker)
    number = worker.pk
    worker.delete()
    row.refresh_from_db()
    assert row.worker_name == f"#{number}"
    assert new_row().worker_name == ""
