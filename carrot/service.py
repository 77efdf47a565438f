"""The service of ``manage.py carrot``: a master that forks and watches worker processes and a maintenance process.

The master opens no database and no broker, and has one thread, so that it can fork at any time. What it knows of its
children it writes on the board; the maintenance process acts on it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import logging
import os
import select
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from carrot import clock, database, forking, publisher
from carrot.board import ENDED, FREE, MAINTENANCE_READY, READY, STARTING, TEST_DONE, Board, Slot
from carrot.conf import CarrotSettings, QueueSettings
from carrot.exceptions import ServiceError
from carrot.maintenance import TEST_CLEAR, Maintenance
from carrot.worker import Worker

logger = logging.getLogger(__name__)

#: Seconds between two looks at the children.
LOOK = 0.2
#: Seconds a process may be silent before it is killed.
STALLED = 60.0
#: Seconds to wait before starting a process again: doubled while it dies young.
FIRST_DELAY = 0.1
LAST_DELAY = 4.0
#: Seconds of life after which a process is no longer young.
YOUNG = 20.0
#: Seconds, over the grace, after which a worker that does not end is killed.
OVERTIME = 10.0
#: Seconds in which dead workers are buried at the end, and as many for the end of the maintenance process.
LAST_RITES = 3.0


@dataclass
class Child:
    """A process of this service. ``slot`` is None for the maintenance process."""

    pid: int
    slot: Slot | None
    started_at: float


class Service:
    """``processes`` worker processes for ``queues``."""

    def __init__(
        self,
        settings: CarrotSettings,
        queues: Sequence[QueueSettings],
        *,
        processes: int = 1,
        testmode: bool = False,
        scheduler: bool = True,
        say: Callable[[str], None] = print,
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        # A test is to say at once what does not fit.
        self._settings = dataclasses.replace(settings, deploy_patience=0.0) if testmode else settings
        self._queues = queues
        self._processes = processes
        self._testmode = testmode
        self._scheduler = scheduler
        self._tell = say
        self._ready_now = ready
        # Slots of dead workers stay until they are buried, so there are more of them than processes.
        self._board = Board(processes * 2 + 4, sum(queue.concurrency for queue in queues))
        self._children: dict[int, Child] = {}
        self._awake = clock.Awake()
        self._delay: dict[bool, float] = {True: FIRST_DELAY, False: FIRST_DELAY}
        self._start_at: dict[bool, float] = {True: 0.0, False: 0.0}
        self._signals = 0
        self._kill_at = 0.0
        self._started = self._announced = False

    def run(self) -> int:
        """Runs until it is told to stop; returns the exit status. Raises :class:`ServiceError` if it cannot start."""
        if not hasattr(os, "fork"):
            raise ServiceError("The service needs a system with fork(): Linux, macOS or another Unix.")
        # What the project opened while it was loaded would be shared by all children.
        database.close_all()
        publisher.close(2.0)
        self._banner()
        reader, writer = socket.socketpair()
        for end in (reader, writer):
            end.setblocking(False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup
                signal.signal(number, self._on_signal)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        gc.collect()
        gc.freeze()  # what was loaded so far is never looked at again, so its pages stay shared with the children
        try:
            self._start_maintenance(first=True)
            self._started = True
            status = self._watch(reader)
        finally:
            self._end_all()
            signal.set_wakeup_fd(-1)
            reader.close()
            writer.close()
        self._say("carrot has stopped.")
        return status

    def _on_signal(self, number: int, _frame: object) -> None:
        # Two signals of one kind may arrive as one, so there is one that says "at once" by itself.
        self._signals += 2 if number == signal.SIGQUIT else 1

    def _banner(self) -> None:
        for queue in self._queues:
            threads = self._processes * queue.concurrency
            self._say(
                f"queue {queue.name} on {queue.host}: {threads} consumer(s) ({self._processes} × {queue.concurrency})"
            )
        self._say(f"{self._processes} worker process(es), master process {os.getpid()}. Stop with Ctrl+C.")

    # -- the master's life ----------------------------------------------------------------------------------------

    def _watch(self, reader: socket.socket) -> int:
        forwarded = 0
        status = 0
        while True:
            self._look_at_children()
            if self._signals > forwarded:
                forwarded = self._signals
                self._tell_workers_to_stop()
            if forwarded:
                if not self._workers():
                    return status
                self._keep_maintenance()  # without beats, those that finish would be taken for lost
                if clock.monotonic() > self._kill_at:
                    self._kill_workers("did not end in time")
                elif forwarded > 1:
                    self._signal_workers(signal.SIGQUIT)  # again and again: a worker just born ignores it
            else:
                self._keep_maintenance()
                self._start_missing_workers()
                if self._testmode and self._board.integers[TEST_DONE]:
                    status = 0 if self._board.integers[TEST_DONE] == TEST_CLEAR else 1
                    self._signals += 1
                    continue
            select.select([reader], [], [], LOOK)
            with contextlib.suppress(BlockingIOError):
                reader.recv(4096)

    def _look_at_children(self) -> None:
        for child in list(self._children.values()):
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                self._ended(child, status)
            elif self._stalled(child):
                logger.error("Process %d does not move; it is killed and replaced.", child.pid)
                os.kill(child.pid, signal.SIGKILL)
        if not self._announced and self._ready():
            self._announced = True
            threads = self._processes * sum(queue.concurrency for queue in self._queues)
            self._say(f"carrot is ready: {self._processes} worker process(es) with {threads} thread(s) in all.")
            self._ready_now()

    def _ready(self) -> bool:
        ready = sum(slot.state == READY for slot in self._board.slots)
        return ready >= self._processes and bool(self._board.integers[MAINTENANCE_READY])

    def _stalled(self, child: Child) -> bool:
        tick = child.slot.ticked_at if child.slot is not None else self._board.floats[0]
        return clock.monotonic() - max(tick, child.started_at, self._awake.look()) > STALLED

    def _ended(self, child: Child, status: int) -> None:
        del self._children[child.pid]
        is_worker = child.slot is not None
        if child.slot is not None:
            child.slot.exit_status = status
            child.slot.state = ENDED
        young = clock.monotonic() - child.started_at < YOUNG
        longest = self._last_delay(is_worker)
        self._delay[is_worker] = min(longest, self._delay[is_worker] * 2) if young else FIRST_DELAY
        self._start_at[is_worker] = clock.monotonic() + (self._delay[is_worker] if young else 0.0)
        if self._started and not (is_worker and self._signals):
            kind = "Worker" if is_worker else "Maintenance"
            logger.error("%s process %d %s; another takes its place.", kind, child.pid, forking.words(status))

    def _last_delay(self, is_worker: bool) -> float:
        """Without a maintenance process nobody beats: it has to be there again before the leases end."""
        return LAST_DELAY if is_worker else min(LAST_DELAY, self._settings.lease / 4)

    def _workers(self) -> list[Child]:
        return [child for child in self._children.values() if child.slot is not None]

    # -- starting -------------------------------------------------------------------------------------------------

    def _keep_maintenance(self) -> None:
        now = clock.monotonic()
        if all(child.slot is not None for child in self._children.values()) and now >= self._start_at[False]:
            try:
                self._start_maintenance(first=False)
            except OSError as error:
                self._start_at[False] = now + self._last_delay(is_worker=False)
                logger.error("The maintenance process could not be started (%s); trying again.", error.strerror)

    def _start_missing_workers(self) -> None:
        now = clock.monotonic()
        if now >= self._start_at[True]:
            for _ in range(self._processes - len(self._workers())):
                free = next((slot for slot in self._board.slots if slot.state == FREE), None)
                if free is None:
                    break  # the maintenance process has not buried the last ones yet
                try:
                    self._start_worker(free)
                except OSError as error:  # no room for another process just now
                    free.state = FREE
                    self._start_at[True] = now + self._last_delay(is_worker=True)
                    logger.error("No worker process could be started (%s); trying again.", error.strerror)
                    break

    def _start_worker(self, slot: Slot) -> None:
        slot.clear()
        slot.state = STARTING
        worker = Worker(self._settings, self._queues, self._board, slot, os.getpid())
        pid = forking.fork(worker.run)
        slot.pid = pid
        self._children[pid] = Child(pid, slot, clock.monotonic())

    def _start_maintenance(self, *, first: bool) -> None:
        """At the service's start, waits for its word: it is the first that meets the database."""
        maintenance = Maintenance(
            self._settings,
            self._queues,
            self._board,
            os.getpid(),
            testmode=self._testmode,
            scheduler=self._scheduler,
        )
        if not first:
            pid = forking.fork(lambda: maintenance.run(_log_problem))
            self._children[pid] = Child(pid, None, clock.monotonic())
            return
        reader, writer = os.pipe()

        def report(problem: str) -> None:
            os.write(writer, (problem or "ready").encode())
            os.close(writer)

        pid = forking.fork(lambda: maintenance.run(report))
        self._children[pid] = Child(pid, None, clock.monotonic())
        os.close(writer)
        word = b""
        while chunk := os.read(reader, 4096):
            word += chunk
        os.close(reader)
        if word != b"ready":
            raise ServiceError(word.decode() or "The maintenance process ended before it could say why; see the log.")

    # -- stopping -------------------------------------------------------------------------------------------------

    def _tell_workers_to_stop(self) -> None:
        if self._signals == 1 and not self._testmode:
            running = sum(len(slot.suspects()) for slot in self._board.slots if slot.state == READY)
            self._say(f"Stopping: {running} running task(s) get up to {self._settings.grace:g} s to finish.")
        self._kill_at = clock.monotonic() + (self._settings.grace if self._signals == 1 else 0) + OVERTIME
        self._signal_workers(signal.SIGTERM if self._signals == 1 else signal.SIGQUIT)

    def _signal_workers(self, number: int) -> None:
        for child in self._workers():
            forking.send(child.pid, number)

    def _kill_workers(self, why: str) -> None:
        for child in self._workers():
            logger.error("Worker process %d %s; it is killed.", child.pid, why)
            if child.slot is not None:
                child.slot.leave()  # no task is to blame for it
            forking.send(child.pid, signal.SIGKILL)

    def _end_all(self) -> None:
        """Workers first; then the maintenance process, once it has buried them."""
        self._started = False  # nothing is replaced any more
        self._kill_workers("is left over")
        ends = clock.monotonic() + 2 * LAST_RITES
        while self._children and clock.monotonic() < ends:
            self._look_at_children()
            unburied = any(slot.state == ENDED for slot in self._board.slots)
            if not self._workers() and (not unburied or clock.monotonic() > ends - LAST_RITES):
                for child in self._children.values():
                    forking.send(child.pid, forking.END)
            select.select([], [], [], 0.05)
        for child in list(self._children.values()):
            forking.send(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)

    def _say(self, text: str) -> None:
        """To the operator. Standard output may be a pipe whose reader has gone: no reason to stop."""
        with contextlib.suppress(OSError, ValueError):
            self._tell(text)


def _log_problem(problem: str) -> None:
    if problem:
        logger.error("%s", problem)
