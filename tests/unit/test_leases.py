"""Who lives, who is taken for lost, and what becomes of the tasks."""

from __future__ import annotations

import threading
from typing import Any
from unittest.mock import Mock

import pytest
from django.db import OperationalError, connection, transaction

from carrot import clock, database
from carrot.board import ENDED, FREE, LEASE_MARGIN, READY, STARTING, Board, Slot
from carrot.conf import CarrotSettings
from carrot.leases import Leases, Reaper, Undertaker, release_orphans
from carrot.models import MessageLog, Status, WorkerProcess
from carrot.models.transitions import MAX_CRASHES, MessageLogQuerySet
from carrot.models.worker_process import WorkerProcessQuerySet
from tests.marks import committing
from tests.rows import claim_of, new_row, new_worker, status_of, unsaved_row

pytestmark = pytest.mark.django_db
SETTINGS = CarrotSettings(lease=30.0, heartbeat=5.0)
KILLED, EXITED_WITH_1 = 9, 1 << 8


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The monotonic clock, moved by hand."""

    class Time:
        now = 1000.0

    monkeypatch.setattr(clock, "monotonic", lambda: Time.now)
    return Time


def board_with(*workers: WorkerProcess, state: int = READY) -> tuple[Board, list[Slot]]:
    board = Board(len(workers) + 1, 2)
    for slot, worker in zip(board.slots, workers, strict=False):
        slot.worker_id, slot.state = worker.pk, state
    return board, board.slots


# -- leases -----------------------------------------------------------------------------------------------------------


def test_a_beat_prolongs_the_lease_of_every_ready_worker(time: Any) -> None:
    workers = [new_worker(), new_worker(), new_worker()]
    board, slots = board_with(*workers)
    slots[2].state = STARTING
    leases = Leases(board, SETTINGS)
    assert not slots[0].may_start()
    leases.step()
    assert [WorkerProcess.objects.get(pk=worker.pk).beat for worker in workers] == [1, 1, 0]
    time.now += SETTINGS.lease - LEASE_MARGIN - 0.1
    assert [slot.may_start() for slot in slots] == [True, True, False, False]
    time.now += 0.2
    assert not slots[0].may_start()


def test_beats_come_at_their_interval_with_or_without_a_worker(time: Any) -> None:
    assert Leases(board_with()[0], SETTINGS).step() == SETTINGS.heartbeat
    worker = new_worker()
    leases = Leases(board_with(worker)[0], SETTINGS)
    assert leases.step() == SETTINGS.heartbeat
    assert leases.beaten_at == time.now
    assert WorkerProcess.objects.get().beat == 1


def test_a_worker_that_somebody_declared_lost_is_told_to_go(time: Any) -> None:
    here, lost = new_worker(), new_worker()
    board, slots = board_with(here, lost)
    WorkerProcess.objects.end(lost.pk, "no heartbeat")
    Leases(board, SETTINGS).step()
    assert [slot.evicted for slot in slots] == [False, True, False]
    assert not slots[1].may_start()


def test_a_beat_that_took_long_does_not_evict_who_has_the_slot_by_now(
    time: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker died and was buried during the statement, and another one was started in its slot."""
    old, new = new_worker(), new_worker()
    board, slots = board_with(old)
    WorkerProcess.objects.end(old.pk, "killed")
    beat = WorkerProcessQuerySet.beat

    def slow_beat(self: WorkerProcessQuerySet, ids: list[int]) -> set[int]:
        found = beat(self, ids)
        slots[0].clear()
        slots[0].worker_id, slots[0].state = new.pk, READY
        return found

    monkeypatch.setattr(WorkerProcessQuerySet, "beat", slow_beat)
    Leases(board, SETTINGS).step()
    assert not slots[0].evicted


# -- deaths the master witnessed --------------------------------------------------------------------------------------


def bury(slots: list[Slot], board: Board, status: int, *, leaving: bool = False) -> None:
    slots[0].exit_status, slots[0].state = status, ENDED
    if leaving:
        slots[0].leave()
    Undertaker(board).step()


@pytest.mark.parametrize(
    ("status", "how"),
    [(KILLED, "its worker process was ended by SIGKILL"), (EXITED_WITH_1, "its worker process ended with status 1")],
)
def test_what_ran_in_a_process_that_died_is_blamed_and_what_waited_there_is_not(status: int, how: str) -> None:
    worker = new_worker()
    suspect, neighbour, other = new_row(), new_row(), new_row()
    claim_of(suspect, worker)
    claim_of(neighbour, worker)
    claim_of(other)
    board, slots = board_with(worker)
    slots[0].running(1, suspect.pk)
    bury(slots, board, status)
    assert status_of(suspect) == status_of(neighbour) == Status.PUBLISHED
    assert (suspect.crashes, neighbour.crashes) == (1, 0)
    assert status_of(other) == Status.IN_PROGRESS
    worker.refresh_from_db()
    assert (worker.alive, worker.ending) == (False, how)
    assert slots[0].state == FREE
    assert (slots[0].worker_id, slots[0].suspects()) == (0, [])


def test_the_third_death_is_a_failure_of_the_task(caplog: pytest.LogCaptureFixture) -> None:
    worker = new_worker()
    row = new_row(crashes=MAX_CRASHES - 1)
    claim_of(row, worker)
    board, slots = board_with(worker)
    slots[0].running(0, row.pk)
    bury(slots, board, KILLED)
    assert status_of(row) == Status.FAILED
    assert "three times" in caplog.text


def test_of_a_process_that_left_of_its_own_will_nobody_is_blamed() -> None:
    worker = new_worker()
    row = new_row()
    claim_of(row, worker)
    board, slots = board_with(worker)
    slots[0].running(0, row.pk)
    bury(slots, board, 3 << 8, leaving=True)
    assert status_of(row) == Status.PUBLISHED
    assert row.crashes == 0


def test_a_process_that_died_before_it_had_a_row_leaves_its_slot(time: Any) -> None:
    board, slots = board_with()
    slots[0].state = ENDED
    Undertaker(board).step()
    assert slots[0].state == FREE


# -- the reaper -------------------------------------------------------------------------------------------------------


class Watch(Reaper):
    """A reaper in a service whose own beats are taken, unless the test says otherwise."""

    def __init__(self) -> None:
        self.leases = Leases(Board(1, 1), SETTINGS)
        super().__init__(SETTINGS, self.leases)


def watch(reaper: Watch, time: Any, seconds: float, beating: WorkerProcess | None = None, taken: bool = True) -> None:
    """Lets the reaper look once a second, while one worker beats."""
    for _ in range(int(seconds)):
        time.now += 1.0
        if taken:
            reaper.leases.beaten_at = time.now
        if beating is not None:
            WorkerProcess.objects.beat([beating.pk])
        reaper.step()


def test_a_beat_seen_unchanged_for_a_whole_lease_is_a_lost_worker(time: Any) -> None:
    silent, beating = new_worker(), new_worker()
    rows = [new_row(), new_row()]
    claim_of(rows[0], silent)
    claim_of(rows[1], beating)
    reaper = Watch()
    watch(reaper, time, 31, beating)
    assert set(WorkerProcess.objects.alive()) == {silent, beating}
    watch(reaper, time, 1, beating)
    assert set(WorkerProcess.objects.alive()) == {beating}
    assert [status_of(row) for row in rows] == [Status.PUBLISHED, Status.IN_PROGRESS]
    silent.refresh_from_db()
    assert silent.ending == "no heartbeat for 30 s"


def test_one_beat_just_before_the_end_is_a_whole_lease_more(time: Any) -> None:
    worker = new_worker()
    reaper = Watch()
    watch(reaper, time, 30)
    WorkerProcess.objects.beat([worker.pk])
    watch(reaper, time, 30)
    assert WorkerProcess.objects.get().alive


def test_after_an_outage_everybody_has_a_whole_lease_to_beat_again(time: Any) -> None:
    """Nobody could beat while the database was away, and the reaper did not see it either."""
    new_worker()
    reaper = Watch()
    watch(reaper, time, 25)
    time.now += 600.0
    reaper.step()
    watch(reaper, time, 30)
    assert WorkerProcess.objects.get().alive
    watch(reaper, time, 2)
    assert not WorkerProcess.objects.get().alive


def test_while_the_database_takes_no_beats_nobody_is_judged(time: Any) -> None:
    """A standby before its promotion is read well and not written."""
    new_worker()
    reaper = Watch()
    watch(reaper, time, 15)
    watch(reaper, time, 600, taken=False)
    watch(reaper, time, 30)
    assert WorkerProcess.objects.get().alive
    watch(reaper, time, 2)
    assert not WorkerProcess.objects.get().alive


def test_a_look_that_failed_begins_the_watch_anew(time: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    new_worker()
    reaper = Watch()
    watch(reaper, time, 25)
    with monkeypatch.context() as patch:
        patch.setattr(WorkerProcess.objects, "alive", Mock(side_effect=OperationalError("gone")))
        with pytest.raises(OperationalError):
            watch(reaper, time, 1)
    watch(reaper, time, 30)
    assert WorkerProcess.objects.get().alive


def test_the_wall_clock_plays_no_part(time: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = new_worker(beat_at="2001-01-01T00:00:00Z", started_at="2001-01-01T00:00:00Z")
    reaper = Watch()
    watch(reaper, time, 40, worker)
    assert WorkerProcess.objects.get().alive


def test_claims_committed_after_the_death_are_released_by_a_later_look(time: Any) -> None:
    worker = new_worker()
    reaper = Watch()
    watch(reaper, time, 33)
    row = new_row()
    MessageLog.objects.filter(pk=row.pk).update(status=Status.IN_PROGRESS, worker=worker, fence=1)
    watch(reaper, time, 1)
    assert status_of(row) == Status.PUBLISHED


def test_many_orphans_are_released_in_pieces(caplog: pytest.LogCaptureFixture) -> None:
    MessageLog.objects.bulk_create([unsaved_row(status=Status.IN_PROGRESS, fence=1) for _ in range(1100)])
    assert release_orphans() == 1100
    assert not MessageLog.objects.filter(status=Status.IN_PROGRESS).exists()
    assert release_orphans() == 0
    assert "1100 task(s) of lost workers" in caplog.text


@committing
@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="it has no locks of rows")
def test_orphans_whose_rows_are_locked_keep_no_others_waiting_and_are_released_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    look = MessageLogQuerySet.orphans
    monkeypatch.setattr(MessageLogQuerySet, "orphans", lambda rows, *, but: look(rows, 1, but=but))
    held, *others = [new_row(status=Status.IN_PROGRESS, fence=1) for _ in range(3)]
    locked, checked = threading.Event(), threading.Event()

    def hold() -> None:
        with database.closing(), transaction.atomic():
            MessageLog.objects.select_for_update().get(pk=held.pk)
            locked.set()
            checked.wait(10.0)

    holder = threading.Thread(target=hold)
    holder.start()
    assert locked.wait(10.0)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '2s'")
        assert release_orphans() == 2
    finally:
        checked.set()
        holder.join(10.0)
    assert [status_of(row) for row in (held, *others)] == [Status.IN_PROGRESS, Status.PUBLISHED, Status.PUBLISHED]
    assert release_orphans() == 1
    connection.close()  # with its lock_timeout
