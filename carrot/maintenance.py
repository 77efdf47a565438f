"""The maintenance process of a service: leases, relay, reconciler, reaper, retention.

One thread each, with a database connection of its own; a thread that dies or stalls takes the process with it, and the
master starts it anew.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Sequence

from django.db import DatabaseError, connections
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Max, Q
from django.db.utils import Error as DatabaseFailure

from carrot import clock, database, forking, publisher
from carrot.arguments import clean_text
from carrot.board import MAINTENANCE_READY, TEST_DONE, Board
from carrot.conf import CarrotSettings, QueueSettings
from carrot.exceptions import ServiceError
from carrot.leases import Leases, Reaper, Undertaker
from carrot.loops import Loop
from carrot.models import MessageLog, WorkerProcess
from carrot.reconciler import Reconciler
from carrot.relay import Relay
from carrot.retention import Janitor
from carrot.scheduler import Scheduler
from carrot.worker import EXIT_BROKEN, EXIT_DONE, MAX_NOTICE

logger = logging.getLogger(__name__)

#: Seconds between two looks of the main thread.
LOOK = 0.25
#: Seconds a service in test mode takes at most.
TEST_LIMIT = 60.0

#: What the test mode found.
TEST_CLEAR, TEST_REST = 1, 2


class Maintenance:
    """Runs in a process of its own, forked by the master."""

    def __init__(
        self,
        settings: CarrotSettings,
        queues: Sequence[QueueSettings],
        board: Board,
        parent: int,
        *,
        testmode: bool,
        scheduler: bool = True,
    ) -> None:
        self._settings = settings
        self._queues = queues
        self._board = board
        self._parent = parent
        self._testmode = testmode
        self._scheduler = scheduler
        self._stopping = False
        self._woken = forking.WakeUp()

    def run(self, report: Callable[[str], None]) -> int:
        """The process's life. ``report`` is told once: "" when all is well, else why the service cannot start."""
        forking.handle({forking.END: self._on_end})
        database.harden("maintenance")
        try:
            check_tables()
        except ServiceError as error:
            report(str(error))
            return EXIT_BROKEN
        self._tell_of_others()
        database.close()  # of the main thread, which needs it no more
        leases = Leases(self._board, self._settings)
        loops: list[Loop] = [
            leases,
            Undertaker(self._board),
            Reaper(self._settings, leases),
            Relay(self._settings, self._tell_unsent),
            Reconciler(self._queues, self._settings),
            Janitor(self._settings.retention),
        ]
        if self._scheduler:
            loops.append(Scheduler())
        if self._testmode:
            loops.append(TestMode(self._board, [queue.name for queue in self._queues]))
        for loop in loops:
            loop.start()
        report("")
        self._board.integers[MAINTENANCE_READY] = 1
        try:
            return self._watch(loops)
        finally:
            publisher.close(2.0)

    def _tell_unsent(self, why: str) -> None:
        """For the monitor: in the rows of this service's workers."""
        workers = WorkerProcess.objects.alive().filter(host=socket.gethostname(), service_pid=self._parent)
        workers.tell_unsent(clean_text(why, MAX_NOTICE))

    def _on_end(self, _number: int, _frame: object) -> None:
        self._stopping = True
        self._woken.ring()

    def _tell_of_others(self) -> None:
        """Several services share the work well; one that nobody remembers is worth a word."""
        others = WorkerProcess.objects.alive().exclude(host=socket.gethostname(), service_pid=self._parent)
        if names := ", ".join(map(str, others.order_by("-pk")[:5])):
            logger.warning(
                "Another carrot service runs on this database, or did a moment ago (workers %s). They share the work.",
                names,
            )

    def _watch(self, loops: Sequence[Loop]) -> int:
        awake = clock.Awake()
        while not self._stopping:
            self._board.tick()
            awake_since = awake.look()
            if os.getppid() != self._parent:
                return EXIT_DONE
            for loop in loops:
                silent = clock.monotonic() - max(loop.ticked_at, awake_since)
                if not loop.is_alive() or silent > database.PATIENCE:
                    logger.critical("Thread %s has died or does not move; the process is replaced.", loop.name)
                    os._exit(EXIT_BROKEN)
            self._woken.wait(LOOK)
        for loop in loops:
            loop.stop()
        for loop in loops:
            loop.join(2.0)
        return EXIT_DONE


class TestMode(Loop):
    """Looks whether everything that was due at the start has been handled."""

    __test__ = False  # no test class, whatever its name says to pytest

    def __init__(self, board: Board, queues: Sequence[str]) -> None:
        super().__init__("testmode")
        self._board = board
        self._started_at = clock.now()
        self._ends = clock.monotonic() + TEST_LIMIT
        self._queues = list(queues)
        self._last: int | None = None

    def step(self) -> float:
        if self._last is None:
            self._last = MessageLog.objects.aggregate(last=Max("pk"))["last"] or 0
        due = Q(status__in=("PUBLISHED", "IN_PROGRESS")) | Q(status="WAITING", ring_at__lte=self._started_at)
        rest = MessageLog.objects.filter(due, pk__lte=self._last, queue__in=self._queues)
        if not rest.exists():
            self._board.integers[TEST_DONE] = TEST_CLEAR
        elif clock.monotonic() > self._ends:
            for row in rest.order_by("pk")[:20]:
                logger.error(
                    "Not handled within %g s: %s %s (%s)", TEST_LIMIT, row.task, row.uuid, row.get_status_display()
                )
            logger.error("%d task(s) were not handled within %g s.", rest.count(), TEST_LIMIT)
            self._board.integers[TEST_DONE] = TEST_REST
        return 0.1


def check_tables() -> None:
    """Raises :class:`ServiceError` where the database is away, or its tables are not this version's."""
    connection = connections[database.alias()]
    try:
        executor = MigrationExecutor(connection)
        targets = [node for node in executor.loader.graph.leaf_nodes() if node[0] == "carrot"]
        behind = executor.migration_plan(targets)
    except (DatabaseFailure, DatabaseError) as error:
        raise ServiceError(
            f"The database “{connection.alias}” does not answer: {str(error).strip()} "
            "Start it, or correct DATABASES in the settings."
        ) from error
    if behind:
        raise ServiceError(
            f"The database “{connection.alias}” lacks {len(behind)} migration(s) of carrot: run manage.py migrate."
        )
