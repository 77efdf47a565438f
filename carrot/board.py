"""A page of memory that the processes of one service share: who lives, what runs, until when a lease holds.

The master makes it before it forks. Each cell has one writer, and an aligned eight-byte write is seen whole by others,
so no lock is needed; a process killed at any moment leaves the board readable, which is its purpose: it tells what ran
in a worker that is gone.
"""

from __future__ import annotations

import mmap
from typing import Final

from carrot import clock

#: States of a slot. FREE and STARTING are the master's to leave, ENDED is left by the maintenance process.
FREE, STARTING, READY, ENDED = range(4)

#: What a slot holds, in cells of eight bytes, before its running tasks.
STATE, PID, WORKER, START_UNTIL, TICK, STATUS, EVICTED, LEAVING = range(8)
HEADER: Final = 8

#: Cells at the board's beginning: the maintenance process's ticks and the service's own news.
MAINTENANCE_TICK, MAINTENANCE_READY, TEST_DONE, TEST_LEFT = range(4)
BOARD_HEADER: Final = 8

#: Seconds before the end of a lease in which nothing new is started; a quarter of a lease that is short.
LEASE_MARGIN = 2.0


class Board:
    """``slots`` slots for worker processes, each with room for ``cells`` running tasks."""

    def __init__(self, slots: int, cells: int) -> None:
        self.cells = cells
        size = (BOARD_HEADER + slots * (HEADER + cells)) * 8
        self._memory = mmap.mmap(-1, size)  # anonymous and shared: inherited over fork, gone with the last process
        self.integers = memoryview(self._memory).cast("q")
        self.floats = memoryview(self._memory).cast("d")
        self.slots = [Slot(self, index) for index in range(slots)]

    def tick(self, cell: int = MAINTENANCE_TICK) -> None:
        self.floats[cell] = clock.monotonic()


class Slot:
    """One worker process's part of the board."""

    def __init__(self, board: Board, index: int) -> None:
        self.index = index
        self._cells = board.cells
        self._base = BOARD_HEADER + index * (HEADER + board.cells)
        self._integers = board.integers
        self._floats = board.floats

    def clear(self) -> None:
        """All but the state, which comes last: a slot that is FREE may have another tenant at any moment."""
        for cell in range(STATE + 1, HEADER + self._cells):
            self._integers[self._base + cell] = 0

    # -- who ------------------------------------------------------------------------------------------------------

    @property
    def state(self) -> int:
        return self._integers[self._base + STATE]

    @state.setter
    def state(self, value: int) -> None:
        self._integers[self._base + STATE] = value

    @property
    def pid(self) -> int:
        return self._integers[self._base + PID]

    @pid.setter
    def pid(self, value: int) -> None:
        self._integers[self._base + PID] = value

    @property
    def worker_id(self) -> int:
        return self._integers[self._base + WORKER]

    @worker_id.setter
    def worker_id(self, value: int) -> None:
        self._integers[self._base + WORKER] = value

    @property
    def exit_status(self) -> int:
        """What ``waitpid`` said of the process."""
        return self._integers[self._base + STATUS]

    @exit_status.setter
    def exit_status(self, value: int) -> None:
        self._integers[self._base + STATUS] = value

    # -- leases and life ------------------------------------------------------------------------------------------

    def prolong(self, since: float, lease: float) -> None:
        """The lease holds for so many seconds from a moment of the monotonic clock, which all processes of a host
        share."""
        self._floats[self._base + START_UNTIL] = since + lease - min(LEASE_MARGIN, lease / 4)

    def may_start(self) -> bool:
        """Whether a task begun now begins under a lease that surely holds."""
        return clock.monotonic() < self._floats[self._base + START_UNTIL]

    @property
    def evicted(self) -> bool:
        """Somebody declared this worker lost: it has to go."""
        return self._integers[self._base + EVICTED] == self.worker_id != 0

    def evict(self, worker_id: int) -> None:
        """Says so of this worker. Another one that has the slot by now is not meant."""
        self._integers[self._base + EVICTED] = worker_id

    @property
    def leaving(self) -> bool:
        """The process ends of its own will: no task is to blame, whatever its exit status is."""
        return bool(self._integers[self._base + LEAVING])

    def leave(self) -> None:
        self._integers[self._base + LEAVING] = 1

    def tick(self) -> None:
        self._floats[self._base + TICK] = clock.monotonic()

    @property
    def ticked_at(self) -> float:
        return self._floats[self._base + TICK]

    # -- what runs ------------------------------------------------------------------------------------------------

    def running(self, cell: int, message_log_id: int) -> None:
        """Thread ``cell`` runs this task; 0: none."""
        self._integers[self._base + HEADER + cell] = message_log_id

    def suspects(self) -> list[int]:
        """The ids of the tasks that run in this process, or ran when it ended."""
        first = self._base + HEADER
        return [task for task in self._integers[first : first + self._cells] if task]
