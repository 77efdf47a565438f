"""Processes that stand still while the world goes on, as on a host that is paused or that thrashes."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import time
from collections.abc import Sequence

from tests.faults import invariants
from tests.project import Project
from tests.servers.process import Process
from tests.service import Service

#: Sessions in whose open transactions rows of tasks are locked, and whose clients have been silent for a while.
SILENT_HOLDERS = (
    "SELECT a.pid FROM pg_stat_activity a JOIN pg_locks l USING (pid) WHERE a.datname = current_database()"
    " AND a.state = 'idle in transaction' AND a.state_change < clock_timestamp() - interval '0.3 s'"
    " AND l.relation = 'carrot_messagelog'::regclass AND l.mode = 'RowExclusiveLock'"
)
#: Seconds after which a holder of locks that does not move is known for one.
SILENCE = 0.5


def freeze(site: Project, processes: Sequence[Process], *, holding_locks: bool = False) -> None:
    """SIGSTOP all of them, at a moment when none of them keeps the others from the rows of the tasks.

    What they had locked would stay so: others would wait for them, and not do their work. ``holding_locks``: at a
    moment when one of them does.
    """
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline:
        for process in processes:
            process.signal(signal.SIGSTOP)
        time.sleep(SILENCE)
        if hold_locks(site) == holding_locks:
            return
        thaw(processes)
        time.sleep(0.05)
    raise AssertionError(f"The processes had {'no ' if holding_locks else ''}rows locked at every look.")


def thaw(processes: Sequence[Process]) -> None:
    """SIGCONT."""
    for process in processes:
        process.signal(signal.SIGCONT)


def worker_pids(site: Project, service: Service) -> set[int]:
    """The pids of the worker processes of a service that count as alive."""
    return {
        row["pid"]
        for row in site.sql(f"SELECT pid FROM carrot_workerprocess WHERE alive AND service_pid = {service.pid}")
    }


def maintenance_of(site: Project, service: Service) -> Process:
    """The maintenance process of a service whose worker processes are all there."""
    (pid,) = set(service.children()) - worker_pids(site, service)
    process = Process.of(pid)
    assert process is not None
    return process


def claims_of(site: Project, service: Service) -> set[str]:
    """The names of the tasks that are claimed in the name of the workers of a service."""
    rows = site.sql(
        "SELECT m.args FROM carrot_messagelog m JOIN carrot_workerprocess w ON m.worker_id = w.id"
        f" WHERE m.status = 'IN_PROGRESS' AND w.service_pid = {service.pid}"
    )
    return {invariants.name_of(row) for row in rows}


def hold_locks(site: Project) -> bool:
    """Whether somebody who does not move has rows of tasks locked."""
    if site.database == "postgresql":
        return bool(site.sql(SILENT_HOLDERS))
    with contextlib.closing(sqlite3.connect(site.database_name, timeout=SILENCE, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        connection.execute("ROLLBACK")
        return False
