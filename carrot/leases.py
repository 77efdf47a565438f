"""Says which workers live, and releases the tasks of those that do not.

Receives the board from the master and the worker rows of every service; hands tasks back into their queues.
"""

from __future__ import annotations

import logging

from django.db import Error as DatabaseFailure

from carrot import clock, forking
from carrot.board import ENDED, FREE, READY, Board, Slot
from carrot.conf import CarrotSettings
from carrot.loops import LAST_RETRY, Loop
from carrot.models import MessageLog, WorkerProcess

logger = logging.getLogger(__name__)

#: Seconds between two looks for tasks without a worker.
ORPHAN_LOOK = 1.0


class Leases(Loop):
    """Beats for the workers that the master vouches for; and nothing else, so that no lock makes a beat late."""

    def __init__(self, board: Board, settings: CarrotSettings) -> None:
        # With a short lease, the usual wait after a failure could be a lost one.
        super().__init__("leases", last_retry=min(LAST_RETRY, settings.heartbeat))
        self._board = board
        self._settings = settings
        #: When the database last took a beat of ours, by the monotonic clock.
        self.beaten_at = 0.0

    def step(self) -> float:
        slots = {slot.worker_id: slot for slot in self._board.slots if slot.state == READY and slot.worker_id}
        # The lease is counted from before the statement: others count it from after they have seen the beat.
        before = clock.monotonic()
        alive = WorkerProcess.objects.beat([*slots, 0])  # with no worker a write too, which tells that there can be one
        for worker_id, slot in slots.items():
            # The statement may have taken long: the slot may have another tenant by now.
            if worker_id not in alive:
                slot.evict(worker_id)
            elif slot.worker_id == worker_id:
                slot.prolong(before, self._settings.lease)
        self.beaten_at = clock.monotonic()
        return self._settings.heartbeat


class Undertaker(Loop):
    """Releases the tasks of worker processes of this service that ended, and blames those that ran. May wait for
    locks."""

    def __init__(self, board: Board) -> None:
        super().__init__("undertaker")
        self._board = board

    def step(self) -> float:
        for slot in self._board.slots:
            if slot.state == ENDED:
                self._bury(slot)
        return 0.2

    def _bury(self, slot: Slot) -> None:
        """The master has waited for the process, so nothing of it runs any more."""
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

    By its own monotonic clock, over successful reads, while its own service's beats are taken: no two clocks are
    compared, and after an outage in which nobody could beat, everybody has a whole lease to beat again.
    """

    def __init__(self, settings: CarrotSettings, leases: Leases) -> None:
        super().__init__("reaper")
        self._lease = settings.lease
        self._heartbeat = settings.heartbeat
        self._leases = leases
        self._period = min(settings.heartbeat, ORPHAN_LOOK)
        self._seen: dict[int, tuple[int, float]] = {}
        self._read_at = 0.0

    def step(self) -> float:
        try:
            self._look()
        except DatabaseFailure:
            self._seen.clear()
            raise
        release_orphans()
        return self._period

    def _look(self) -> None:
        beats = dict(WorkerProcess.objects.alive().values_list("pk", "beat"))
        now = clock.monotonic()
        away = now - self._read_at > self._period + self._lease / 3
        if away or now - self._leases.beaten_at > 2 * self._heartbeat:
            self._seen.clear()  # this process was away, or nobody can write: begin to watch anew
        self._read_at = now
        self._seen = {
            pk: self._seen[pk] if pk in self._seen and self._seen[pk][0] == beat else (beat, now)
            for pk, beat in beats.items()
        }
        for pk, (_beat, since) in self._seen.items():
            if now - since > self._lease and WorkerProcess.objects.end(pk, f"no heartbeat for {self._lease:g} s"):
                logger.error("Worker %s gave no sign for %g s: its tasks are released.", pk, self._lease)


def release_orphans() -> int:
    """Releases tasks that are claimed by a worker that is gone; how many. Repeated for ever, never done once a death:
    a claim that was waiting for a lock may be committed after its worker was declared lost.

    Passes over rows that are locked, perhaps by a worker whose host vanished within a transaction: they are looked at
    again, and the others do not wait for them.
    """
    released = 0
    locked: set[int] = set()
    while orphans := MessageLog.objects.orphans(but=locked):
        count = MessageLog.objects.release(((pk, fence) for pk, fence, _worker in orphans), skip_locked=True)
        released += count
        if count < len(orphans):
            locked.update(pk for pk, _fence, _worker in orphans)
    if released:
        logger.warning("%d task(s) of lost workers run again.", released)
    return released
