"""What the processes of a service tell each other in shared memory."""

from __future__ import annotations

import os

import pytest

from carrot import clock
from carrot.board import ENDED, FREE, LEASE_MARGIN, MAINTENANCE_READY, READY, Board


def test_slots_are_free_and_separate() -> None:
    board = Board(3, 2)
    board.slots[1].state, board.slots[1].worker_id, board.slots[1].pid = READY, 2**40, 4711
    board.slots[1].running(1, 2**50)
    board.slots[1].exit_status = 9
    assert [slot.state for slot in board.slots] == [FREE, READY, FREE]
    assert [slot.suspects() for slot in board.slots] == [[], [2**50], []]
    assert [slot.worker_id for slot in board.slots] == [0, 2**40, 0]
    assert (board.slots[1].pid, board.slots[1].exit_status) == (4711, 9)
    board.slots[1].clear()
    board.slots[1].state = FREE
    assert [(slot.state, slot.pid, slot.suspects(), slot.worker_id) for slot in board.slots] == [(FREE, 0, [], 0)] * 3


def test_a_thread_that_is_done_is_no_suspect() -> None:
    slot = Board(1, 2).slots[0]
    slot.running(0, 1)
    slot.running(1, 2)
    slot.running(0, 0)
    assert slot.suspects() == [2]


def test_nothing_may_start_in_the_last_seconds_of_a_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    slot = Board(1, 1).slots[0]
    assert not slot.may_start()
    slot.prolong(100.0, 30.0)
    assert slot.may_start()
    now[0] = 130.0 - LEASE_MARGIN
    assert not slot.may_start()


@pytest.mark.parametrize("lease", [0.4, 1.0, 3.0])
def test_under_the_shortest_lease_there_is_time_to_start_something(
    monkeypatch: pytest.MonkeyPatch, lease: float
) -> None:
    now = [100.0]
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    slot = Board(1, 1).slots[0]
    slot.prolong(100.0, lease)
    now[0] += 0.5 * lease  # a beat comes three times in a lease
    assert slot.may_start()
    now[0] += 0.3 * lease
    assert not slot.may_start()


def test_only_the_worker_that_was_taken_for_lost_is_evicted() -> None:
    slot = Board(1, 1).slots[0]
    slot.evict(7)
    assert not slot.evicted, "there is no worker yet"
    slot.worker_id = 8
    assert not slot.evicted
    slot.evict(8)
    assert slot.evicted


def test_a_slot_keeps_its_state_while_it_is_cleared() -> None:
    """The master may take it at the moment when it is free, and must not find it half cleared afterwards."""
    slot = Board(1, 3).slots[0]
    slot.worker_id, slot.pid, slot.state = 7, 77, ENDED
    slot.running(2, 5)
    slot.clear()
    assert (slot.state, slot.worker_id, slot.pid, slot.suspects()) == (ENDED, 0, 0, [])


def test_ticks_evictions_and_leaves_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "monotonic", lambda: 12.5)
    board = Board(1, 1)
    slot = board.slots[0]
    assert (slot.evicted, slot.leaving, slot.ticked_at) == (False, False, 0.0)
    slot.worker_id = 3
    slot.tick()
    slot.evict(3)
    slot.leave()
    board.tick()
    assert (slot.evicted, slot.leaving, slot.ticked_at, board.floats[0]) == (True, True, 12.5, 12.5)
    slot.clear()
    assert (slot.evicted, slot.leaving) == (False, False)
    assert board.floats[0] == 12.5


def test_what_a_child_process_wrote_is_there_after_it_was_killed() -> None:
    board = Board(2, 3)
    pid = os.fork()
    if pid == 0:
        board.slots[1].running(2, 77)
        board.slots[1].state = ENDED
        board.integers[MAINTENANCE_READY] = 1
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    assert board.slots[1].suspects() == [77]
    assert board.slots[1].state == ENDED
    assert board.integers[MAINTENANCE_READY] == 1
