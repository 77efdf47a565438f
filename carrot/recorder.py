"""Writes outcomes: one thread a worker process, as many outcomes a transaction as have come.

Receives outcomes from the executors; hands on nothing: a recorded outcome is the end of a claim. Loses none: while the
database is away they stay here, and the claimer stops taking more; one that the database refuses is found and replaced.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue

from django.db import DataError, IntegrityError
from django.db import Error as DatabaseFailure

from carrot import clock, database
from carrot.context import TaskContext
from carrot.models import MessageLog
from carrot.models.claim import Held, Outcome

logger = logging.getLogger(__name__)

#: Outcomes written in one transaction.
BATCH = 500
#: Outcomes waiting here at which nothing more is claimed.
FULL = 5000
#: Seconds a task has run before its log is shown, and between two looks.
LONG = 1.0
#: Seconds between tries while the database is away.
RETRY = 0.5


class Recorder(threading.Thread):
    """``held`` is the worker's memory of its claims; an entry goes when its end is written."""

    def __init__(
        self,
        held: Held,
        running: Callable[[], Iterable[TaskContext | None]],
        done: Callable[[Outcome], None],
        look: Callable[[], None] = lambda: None,
    ):
        """``look`` is called once a second or so, on this thread, which has a database connection."""
        super().__init__(name="carrot-recorder", daemon=True)
        self._held = held
        self._running = running
        self._done = done
        self._look = look
        self._outcomes: SimpleQueue[Outcome | None] = SimpleQueue()
        self._complain = database.Complaint(logger)
        self._complain_of_logs = database.Complaint(logger)
        self._shown: dict[tuple[int, int], int] = {}
        self._snapshots: bool | None = None
        self._looked_at = clock.monotonic()
        #: When the thread was last seen to be well, by the monotonic clock.
        self.ticked_at = clock.monotonic()

    # -- any thread -----------------------------------------------------------------------------------------------

    def put(self, outcome: Outcome) -> None:
        self._outcomes.put(outcome)

    def full(self) -> bool:
        return self._outcomes.qsize() > FULL

    def finish(self) -> None:
        """The thread ends when everything put in before is written."""
        self._outcomes.put(None)

    # -- this thread ----------------------------------------------------------------------------------------------

    def run(self) -> None:
        with database.closing():
            going = True
            while going:
                self.ticked_at = clock.monotonic()
                batch, going = self._next_batch()
                if batch:
                    self._write(batch)
                if clock.monotonic() - self._looked_at >= LONG:
                    self._looked_at = clock.monotonic()
                    self._show_progress()
                    self._look()

    def _next_batch(self) -> tuple[list[Outcome], bool]:
        """What has come since the last flush, at once if there is anything; and whether to go on."""
        batch: list[Outcome] = []
        try:
            outcome = self._outcomes.get(timeout=LONG / 2)
            while True:
                if outcome is None:
                    return batch, False
                batch.append(outcome)
                if len(batch) >= BATCH:
                    return batch, True
                outcome = self._outcomes.get_nowait()
        except Empty:
            return batch, True

    def _write(self, batch: list[Outcome]) -> None:
        """Writes all of ``batch``, however long the database makes it wait."""
        while True:
            try:
                written = MessageLog.objects.record(batch)
            except (DataError, IntegrityError, ValueError) as error:
                database.drop_broken()
                self._bisect(batch, error)
                return
            except DatabaseFailure as error:
                self._complain("%d outcome(s) wait for the database: %s", len(batch), str(error).strip())
                database.drop_broken()
                self.ticked_at = clock.monotonic()
                time.sleep(RETRY)
            else:
                self._complain.over()
                break
        for outcome in batch:
            self._held.pop((outcome.claim.id, outcome.claim.fence), None)
            if outcome.claim.id in written:
                self._done(outcome)
            else:
                logger.warning(
                    "%s %s: its outcome (%s) came late; the task was released meanwhile.",
                    outcome.claim.task,
                    outcome.claim.uuid,
                    outcome.status,
                )

    def _bisect(self, batch: list[Outcome], error: Exception) -> None:
        """The database refuses something in ``batch``: halves it until the culprit stands alone, and replaces that."""
        if len(batch) > 1:
            middle = len(batch) // 2
            self._write(batch[:middle])
            self._write(batch[middle:])
            return
        outcome = batch[0]
        logger.error("The database refuses the outcome of %s %s: %s", outcome.claim.task, outcome.claim.uuid, error)
        plain = f"The outcome could not be stored: {type(error).__name__}"
        if outcome.exception != plain:
            self._write([outcome._replace(output=None, log="", exception=plain, traceback="")])
        else:
            self._held.pop((outcome.claim.id, outcome.claim.fence), None)

    def _show_progress(self) -> None:
        """Writes the logs of tasks that run for longer than a second and have logged anything since the last look."""
        shown: dict[tuple[int, int], int] = {}
        for context in self._running():
            if context is None or clock.monotonic() - context.started_at < LONG:
                continue
            key = (context.claim.id, context.claim.fence)
            version = context.log.version
            if self._shown.get(key) != version:
                took = clock.monotonic() - context.started_at
                try:
                    if not self._must_not_touch(context):
                        MessageLog.objects.write_progress(context.claim, took, context.log.text())
                except DatabaseFailure as error:
                    self._complain_of_logs("The log of a running task waits for the database: %s", str(error).strip())
                    database.drop_broken()
                    return
            shown[key] = version
        self._complain_of_logs.over()
        self._shown = shown

    def _must_not_touch(self, context: TaskContext) -> bool:
        """Whether an atomic task could not write its end any more if its row were changed meanwhile."""
        if not context.atomic:
            return False
        if self._snapshots is None:
            self._snapshots = database.keeps_snapshots()
        return self._snapshots
