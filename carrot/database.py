"""Database connections of threads that live long.

Django looks after connections at the borders of requests; carrot's threads have none, so they do it here. Each thread
has its own connections (Django's rule).
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import Error as DatabaseFailure
from django.db import connections, router, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from carrot import clock
from carrot.conf import get_settings

logger = logging.getLogger(__name__)

#: Seconds a connection of an executor may have rested before it is tested ahead of a task.
REST = 1.0

#: Seconds a thread may wait for one statement before its process is taken for broken. A lock, a migration or a pooler
#: during a failover may take minutes, and the tasks that run do not mind.
PATIENCE = 1800.0

#: Seconds between two log lines about the same outage.
COMPLAIN = 60.0

#: libpq options for connections of the service, so that a database host that vanished is noticed within seconds instead
#: of TCP's quarter of an hour. What the project has set itself stays.
POSTGRESQL = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}

#: Seconds without a sign of a service after which PostgreSQL gives its sessions up, and their locks with them; no more
#: than this share of the lease. Left to itself it takes hours.
SILENCE, SHARE_OF_LEASE = 20.0, 2 / 3

#: Whether this thread runs tasks, which may rightly leave an answer of the database unread for long.
_thread = threading.local()


def alias() -> str:
    """The database that holds carrot's tables."""
    from carrot.models import MessageLog

    return router.db_for_write(MessageLog)


def harden(name: str) -> None:
    """Called once in each process of the service, before it connects."""
    wrapper = connections[alias()]
    settings: dict[str, Any] = wrapper.settings_dict
    if wrapper.vendor == "postgresql":
        options = settings.setdefault("OPTIONS", {})
        # The service's threads keep their connections: of a pool a few would have all, and the others wait for ever.
        options.pop("pool", None)
        if "service" not in options:
            for option, value in {**POSTGRESQL, "application_name": f"carrot {name}"}.items():
                options.setdefault(option, value)
        connection_created.connect(_notice_our_end, dispatch_uid="carrot.database")


def _notice_our_end(connection: BaseDatabaseWrapper, **_: object) -> None:
    """Tells PostgreSQL how soon to notice that this host has vanished: the rows that it has locked then are locked for
    every service.

    Leaves what the site has set for its user or its connections, and all sessions behind a pooler: they are others',
    too. (There the number of the process that answers is not the one that greeted us.)
    """
    if connection.alias != alias() or connection.vendor != "postgresql":
        return
    silence = min(SILENCE, SHARE_OF_LEASE * get_settings().lease)
    values = {
        "tcp_keepalives_idle": max(1, round(silence / 2)),
        "tcp_keepalives_interval": max(1, round(silence / 4)),
        "tcp_keepalives_count": 3,
    }
    if not getattr(_thread, "runs_tasks", False):
        # For what was sent and not acknowledged. Counts also while a client that lives reads nothing.
        values["tcp_user_timeout"] = round(1000 * silence)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT set_config(s.name, v.value, false) FROM unnest(%s::text[], %s::text[]) AS v (name, value)"
            " JOIN pg_settings s ON s.name = v.name WHERE s.source IN ('default', 'configuration file')"
            " AND pg_backend_pid() = %s",
            [list(values), [str(value) for value in values.values()], connection.connection.info.backend_pid],
        )


def drop_broken() -> None:
    """After an error: closes this thread's connections, so that the next use makes new ones.

    Even those that answer: behind the same name may be another server by now, and the old one may only be read. Also
    what the error itself still holds: a socket for each try to connect.
    """
    for connection in connections.all(initialized_only=True):
        close_one(connection)
    error = sys.exc_info()[1]
    while error is not None:
        # Its frames refer to it, and it to them: else this would wait for the collector of such circles.
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__


def close_all() -> None:
    """Before a fork: closes this thread's connections and the process's pools, whose threads do not survive it."""
    for connection in connections.all(initialized_only=True):
        connection.close()
        if hasattr(connection, "close_pool"):
            connection.close_pool()


def close() -> None:
    """Closes this thread's connections."""
    for connection in connections.all(initialized_only=True):
        close_one(connection)


def close_one(connection: BaseDatabaseWrapper) -> None:
    """Closes a connection whatever state a task left it in."""
    connection.in_atomic_block = False
    connection.atomic_blocks = []
    connection.savepoint_ids = []
    connection.needs_rollback = False
    connection.run_on_commit = []
    connection.closed_in_transaction = False
    connection.close()


def broke_off(error: BaseException, alias: str, session: object) -> bool:
    """Whether the database, and not the code, ended a transaction that raised ``error``, so that another try may well
    succeed.

    A lost connection; a deadlock or a serialization failure (SQL's class 40, MySQL's 1213 and 1205); no space or memory
    left (class 53, MySQL's 1114); SQLite's one lock, and its full disk. ``session`` is the driver's connection in which
    the transaction began; None: there was none to be had.
    """
    connection = connections[alias]
    if session is not None and connection.connection is not session:
        return True  # Django has connected again at the end of the transaction, whatever the code made of the error
    if not isinstance(error, DatabaseFailure):
        return False
    if session is None or not connection.is_usable():
        return True
    cause = error.__cause__
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    if state is not None:
        return str(state).startswith(("40", "53"))
    if connection.vendor == "mysql":
        return bool(error.args) and error.args[0] in (1114, 1205, 1213)
    return connection.vendor == "sqlite" and any(words in str(error) for words in ("is locked", "disk is full"))


def keeps_snapshots() -> bool:
    """Whether a transaction may not change a row that another has changed since it began: PostgreSQL's isolation levels
    REPEATABLE READ and SERIALIZABLE, whoever has set them."""
    connection = connections[alias()]
    if connection.vendor != "postgresql":
        return False
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        cursor.execute("SHOW transaction_isolation")
        return str(cursor.fetchone()[0]) in ("repeatable read", "serializable")


class TaskConnections:
    """The database connections of one executor thread, kept from task to task.

    A task gets connections that answer and are outside any transaction, as a request does. A connection that rested is
    tested first, since a database restarted meanwhile must not fail the next task.
    """

    def __init__(self) -> None:
        _thread.runs_tasks = True
        self._used_at = clock.monotonic()

    def before(self) -> None:
        initialized = connections.all(initialized_only=True)
        if not initialized:
            return
        rested = clock.monotonic() - self._used_at > REST
        for connection in initialized:
            if connection.connection is not None and (rested or connection.errors_occurred):
                if not connection.is_usable():
                    close_one(connection)
                connection.errors_occurred = False

    def after(self) -> None:
        """Ends what a task left open. An unfinished transaction is rolled back by closing its connection."""
        self._used_at = clock.monotonic()
        for connection in connections.all(initialized_only=True):
            if connection.connection is None:
                continue
            try:
                self._tidy(connection)
            except DatabaseFailure as error:
                logger.warning("Database %s was lost during the task: %s", connection.alias, str(error).strip())
                close_one(connection)

    @staticmethod
    def _tidy(connection: BaseDatabaseWrapper) -> None:
        if connection.in_atomic_block or not connection.get_autocommit():
            logger.warning("The task left a transaction open on database %s; it is rolled back.", connection.alias)
            close_one(connection)


class Complaint:
    """Logs that something waits for the database: at once, again when the cause is another, and once a minute."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._said_at = -COMPLAIN
        self._cause: object = None

    def __call__(self, text: str, *args: object) -> None:
        """The last of ``args`` is the cause."""
        if args[-1] != self._cause or clock.monotonic() - self._said_at >= COMPLAIN:
            self._cause, self._said_at = args[-1], clock.monotonic()
            self._log.warning(text, *args)

    def over(self) -> None:
        """The next complaint is a new one."""
        self._cause = None


@contextmanager
def closing() -> Iterator[None]:
    """For a thread's whole life: whatever happens, its connections are closed at the end."""
    try:
        yield
    finally:
        close()
