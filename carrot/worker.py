"""A worker process: connections, claimer, executors and recorder of some queues, from its start to its end.

Receives its part of the board from the master; hands outcomes to the database. Ends itself when any of its threads
died: a process is never half alive.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import threading
from collections.abc import Iterable, Sequence

from django.db import Error as DatabaseFailure

import carrot
from carrot import clock, database, forking, publisher, registry
from carrot.arguments import clean_text
from carrot.board import READY, Board, Slot
from carrot.claimer import Claimer, Lane
from carrot.conf import CarrotSettings, QueueSettings
from carrot.consumer import make_consumer, record_failure
from carrot.context import TaskContext, capture_logging
from carrot.executor import Ended, Executor
from carrot.models import WorkerProcess
from carrot.models.claim import Held, Outcome
from carrot.recorder import Recorder

logger = logging.getLogger(__name__)
#: One line for each task that ended.
task_logger = logging.getLogger("carrot.tasks")

#: Seconds between two looks of the main thread.
LOOK = 0.5
#: Bytes of what a worker tells its operator.
MAX_NOTICE = 4_096
#: Seconds a process whose master has died gives its running tasks.
ORPHAN_GRACE = 5.0
#: Seconds over the grace in which what was not begun is given back and the last outcomes are written.
LAST_WORDS = 6.0

#: How a worker process ends.
EXIT_DONE, EXIT_UNFINISHED, EXIT_BROKEN = 0, 3, forking.BROKEN


class Worker:
    """Runs in a process of its own, forked by the master."""

    def __init__(
        self, settings: CarrotSettings, queues: Sequence[QueueSettings], board: Board, slot: Slot, parent: int
    ):
        self._settings = settings
        self._queues = queues
        self._slot = slot
        self._parent = parent
        self._grace = settings.grace
        self._told_to_stop = False
        self._grace_ends = math.inf
        self._woken = forking.WakeUp()
        self._held: Held = {}
        self._lanes: list[Lane] = []
        self._awake = clock.Awake()
        self._trouble = self._told = ""

    def run(self) -> int:
        """The process's life; returns its exit status. Raises ``DatabaseError`` where it cannot begin."""
        forking.handle({signal.SIGTERM: self._on_signal, signal.SIGQUIT: self._on_signal})
        database.harden("worker")
        registry.load()
        capture_logging()
        leased_at = clock.monotonic()
        self._worker = self._register()
        database.close()  # of the main thread, which needs it no more
        self._slot.prolong(leased_at, self._settings.lease)
        self._slot.worker_id = self._worker.pk
        self._build()
        self._slot.state = READY
        try:
            self._watch()
            return self._drain()
        finally:
            publisher.close(2.0)
            database.close()

    def _on_signal(self, number: int, _frame: object) -> None:
        # SIGQUIT is the end of the grace. SIGTERM may come twice, from the master and from whoever signals the whole
        # group.
        self._told_to_stop = True
        if number == signal.SIGQUIT:
            self._grace_ends = min(self._grace_ends, clock.monotonic())
        self._woken.ring()

    def _register(self) -> WorkerProcess:
        now = clock.now()
        return WorkerProcess.objects.create(
            host=socket.gethostname(),
            pid=os.getpid(),
            service_pid=self._parent,
            queues=", ".join(queue.name for queue in self._queues),
            concurrency=sum(queue.concurrency for queue in self._queues),
            version=carrot.__version__,
            started_at=now,
            beat_at=now,
        )

    def _build(self) -> None:
        self._recorder = Recorder(self._held, self._running, _log_outcome, self._tell)
        self._recorder.start()
        self._claimer = Claimer(self._worker.pk, self._held, self._slot, self._recorder.full, self._settings)
        first_cell = 0
        for queue in self._queues:
            lane = self._lane(queue, first_cell)
            self._lanes.append(lane)
            self._claimer.add(lane)
            first_cell += queue.concurrency
        self._claimer.start()

    def _lane(self, queue: QueueSettings, first_cell: int) -> Lane:
        consumer = make_consumer(queue)
        hears = consumer.hears_failures

        def finished(ended: Ended) -> None:
            outcome, written = ended.outcome, ended.written
            if ended.error is not None and hears:
                rest = record_failure(consumer, outcome, ended.error)
                outcome, written = rest or outcome, rest is None
            if written:
                self._held.pop((outcome.claim.id, outcome.claim.fence), None)
                _log_outcome(outcome)
            else:
                self._recorder.put(outcome)

        broker = publisher.broker_of(queue.host)
        executor = Executor(
            queue.name,
            queue.concurrency,
            self._slot,
            first_cell,
            finished,
            lambda: self._claimer.ended(lane),
            log_limit=self._settings.max_log_size,
            output_limit=self._settings.max_output_size,
            patience=self._settings.deploy_patience,
        )
        adopt = consumer.get_message_log if consumer.adopts else None
        lane = Lane(queue.name, broker, broker.subscribe(queue, lambda: self._claimer.wake(), adopt), executor)
        return lane

    def _running(self) -> Iterable[TaskContext | None]:
        return [context for lane in self._lanes for context in lane.executor.running]

    def _tell(self) -> None:
        """Notes in the worker's row what keeps it from its queues, for the monitor. On the recorder's thread."""
        problems = ((lane.name, lane.subscription.problem()) for lane in self._lanes)
        seen, self._trouble = self._trouble, "\n".join(f"Queue {name}: {text}" for name, text in problems if text)
        if self._trouble != seen or seen == self._told:
            return  # told when it is seen twice: every connection has a moment in which it is not there yet
        try:
            WorkerProcess.objects.filter(pk=self._worker.pk).update(notice=clean_text(seen, MAX_NOTICE))
        except DatabaseFailure:
            database.drop_broken()  # told at the next look
        else:
            self._told = seen

    # -- the main thread's life -----------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Until told to stop: ticks for the master, and looks that every thread is well."""
        while not self._told_to_stop:
            self._slot.tick()
            if os.getppid() != self._parent:
                logger.error("The master process is gone; this worker stops.")
                self._grace = min(self._grace, ORPHAN_GRACE)
                return
            if self._slot.evicted:
                logger.error("This worker was taken for lost, and its tasks run elsewhere; it ends.")
                self._slot.leave()
                os._exit(EXIT_BROKEN)
            if broken := self._broken(self._awake.look()):
                logger.critical("%s; the process ends and is replaced.", broken)
                if not self._broken(clock.monotonic()):
                    # It only waits, and no task makes it wait. But a thread that died may have been a task's victim, as
                    # by taking all memory: like any death, it counts against those that run.
                    self._slot.leave()
                os._exit(EXIT_BROKEN)
            self._woken.wait(LOOK)

    def _broken(self, awake_since: float) -> str:
        """Which thread has died, or has been silent for too long since ``awake_since``; empty when all are well."""
        now = clock.monotonic()
        for thread in (self._claimer, self._recorder):
            if not thread.is_alive():
                return f"Thread {thread.name} has died"
            if now - max(thread.ticked_at, awake_since) > database.PATIENCE:
                return f"Thread {thread.name} has not moved for {database.PATIENCE:g} s"
        for lane in self._lanes:
            if not lane.executor.alive():
                return f"A thread of queue {lane.name} has died"
            if not lane.broker.healthy(awake_since):
                return f"The connection thread to {lane.broker.host} has died or does not move"
        return ""

    def _drain(self) -> int:
        """Lets running tasks finish within the grace, gives back the rest. A second signal ends the grace."""
        self._grace_ends = min(self._grace_ends, clock.monotonic() + self._grace)
        self._slot.leave()
        self._claimer.stop()
        for lane in self._lanes:
            lane.executor.stop()
        while any(lane.executor.load() for lane in self._lanes) or self._claimer.is_alive():
            if clock.monotonic() > self._grace_ends:
                break
            self._slot.tick()
            self._woken.wait(0.05)
        self._join(self._claimer)
        self._recorder.finish()
        self._join(self._recorder)
        left = [context.claim for context in self._running() if context is not None]
        for claim in left:
            task_logger.warning("%s %s did not finish within the grace; it will run again.", claim.task, claim.uuid)
        return EXIT_UNFINISHED if left or self._recorder.is_alive() else EXIT_DONE

    def _join(self, thread: threading.Thread) -> None:
        """Waits for a thread, :data:`LAST_WORDS` seconds over the grace, which a signal may end meanwhile."""
        while thread.is_alive() and clock.monotonic() < self._grace_ends + LAST_WORDS:
            self._slot.tick()
            thread.join(0.05)


def _log_outcome(outcome: Outcome) -> None:
    claim = outcome.claim
    took = (outcome.end_time - outcome.start_time).total_seconds()
    if outcome.status == "COMPLETED":
        task_logger.info("%s %s completed in %.3f s", claim.task, claim.uuid, took)
    elif outcome.status == "PUBLISHED":
        task_logger.warning("%s %s will run again after %.3f s: %s", claim.task, claim.uuid, took, outcome.exception)
    else:
        task_logger.error("%s %s failed after %.3f s: %s", claim.task, claim.uuid, took, outcome.exception)
