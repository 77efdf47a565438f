"""Says which workers live, and releases the tasks of those that do not.

Receives the board from the master and the worker rows of every service; hands tasks back into their queues.
"""

from __future__ import annotations

import logging

from carrot import clock, forking
from carrot.board import ENDED, FREE, READY, Board, Slot
from carrot.conf import CarrotSettings
from carrot.loops import LAST_RETRY, Loop
from carrot.models import MessageLog, WorkerProcess

logger = logging.getLogger(__name__)

#: Seconds between two looks for tasks without a worker.
ORPHAN_LOOK = 1.0


class Leases(Loop):
    """Beats for the workers that the master vouches for, and buries those that ended."""

    def __init__(self, board: Board, settings: CarrotSettings) -> None:
        # With a short lease, the usual wait after a failure could be a lost one.
        super().__init__("leases", last_retry=min(LAST_RETRY, settings.heartbeat))
        self._board = board
        self._settings = settings
        self._beat_at = 0.0

    def step(self) -> float:
        for slot in self._board.slots:
            if slot.state == ENDED:
                self._bury(slot)
        if clock.monotonic() >= self._beat_at:
            self._beat()
        return min(0.2, self._settings.heartbeat)

    def _beat(self) -> None:
        slots = {slot.worker_id: slot for slot in self._board.slots if slot.state == READY and slot.worker_id}
        # The lease is counted from before the statement: others count it from after they have seen the beat.
        before = clock.monotonic()
        self._beat_at = before + self._settings.heartbeat
        if not slots:
            return
        alive = WorkerProcess.objects.beat(list(slots))
        for worker_id, slot in slots.items():
            if worker_id in alive:
                slot.prolong(before + self._settings.lease)
            else:
                slot.evict()

    def _bury(self, slot: Slot) -> None:
        """A worker process of this service has ended: the master has waited for it, so nothing of it runs any more."""
        worker_id = slot.worker_id
        how = f"its worker process {forking.words(slot.exit_status)}"
        if worker_id:
            if not slot.leaving:
                failed = MessageLog.objects.blame(slot.suspects(), worker_id, how)
                for task in failed:
                    logger.error("Task %s took its worker with it three times; it is FAILED.", task)
            WorkerProcess.objects.end(worker_id, how)
            release_orphans()
        slot.clear()
        slot.state = FREE


class Reaper(Loop):
    """Declares workers of any service lost whose beat **this process has itself seen** unchanged for a whole lease.

    By its own monotonic clock over successful reads: no two clocks are compared, and after a database outage everybody
    has a whole lease to beat again before anybody is declared lost.
    """

    def __init__(self, settings: CarrotSettings) -> None:
        super().__init__("reaper")
        self._lease = settings.lease
        self._period = min(settings.heartbeat, ORPHAN_LOOK)
        self._seen: dict[int, tuple[int, float]] = {}
        self._read_at = 0.0

    def step(self) -> float:
        beats = dict(WorkerProcess.objects.alive().values_list("pk", "beat"))
        now = clock.monotonic()
        if now - self._read_at > self._period + self._lease / 3:
            self._seen.clear()  # the database, or this process, was away: begin to watch anew
        self._read_at = now
        self._seen = {
            pk: self._seen[pk] if pk in self._seen and self._seen[pk][0] == beat else (beat, now)
            for pk, beat in beats.items()
        }
        for pk, (_beat, since) in self._seen.items():
            if now - since > self._lease and WorkerProcess.objects.end(pk, f"no heartbeat for {self._lease:g} s"):
                logger.error("Worker %s gave no sign for %g s: its tasks are released.", pk, self._lease)
        release_orphans()
        return self._period


def release_orphans() -> int:
    """Releases tasks that are claimed by a worker that is gone; how many. Repeated for ever, never done once a death:
    a claim that was waiting for a lock may be committed after its worker was declared lost."""
    released = 0
    while orphans := MessageLog.objects.orphans():
        count = MessageLog.objects.release((pk, fence) for pk, fence, _worker in orphans)
        released += count
        if not count:
            break
    if released:
        logger.warning("%d task(s) of lost workers run again.", released)
    return released
