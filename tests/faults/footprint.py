"""What the processes of services hold: threads, descriptors, database connections, memory (Linux)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.faults import invariants
from tests.project import Project
from tests.servers.process import session_members
from tests.service import Service

SESSIONS = (
    "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'carrot %'"
)
SHARE = 0.1


class Held(NamedTuple):
    """What one process holds."""

    threads: int
    descriptors: int


#: What a process opens at need and keeps: the publisher, which is a thread with a connection to RabbitMQ, when there is
#: something to ring again; in the maintenance process a further database connection, when a worker has died. The master
#: opens nothing at all.
AT_NEED = {"master": Held(0, 0), "maintenance": Held(1, 7), "worker": Held(1, 5)}


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Sums over all processes of some services. ``connections``: to PostgreSQL; on SQLite they are descriptors."""

    processes: int
    threads: int
    descriptors: int
    connections: int
    #: resident, in bytes
    memory: int
    #: Each process, by its role.
    held: Mapping[str, tuple[Held, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, site: Project, services: Iterable[Service]) -> Footprint:
        """As it is now. Needs the database."""
        workers = set(invariants.living_workers(site))
        held: dict[str, list[Held]] = {role: [] for role in AT_NEED}
        memory = 0
        for service in services:
            for pid in (member.pid for member in session_members(service.pid)):
                role = "master" if pid == service.pid else "worker" if pid in workers else "maintenance"
                held[role].append(Held(_entries(pid, "task"), _entries(pid, "fd")))
                memory += _resident(pid)
        every = [each for role in held.values() for each in role]
        return cls(
            processes=len(every),
            threads=sum(each.threads for each in every),
            descriptors=sum(each.descriptors for each in every),
            connections=site.sql(SESSIONS)[0]["n"] if site.database == "postgresql" else 0,
            memory=memory,
            held={role: tuple(found) for role, found in held.items()},
        )

    def excess(self, baseline: Footprint) -> list[str]:
        """What is not as it was: a process holds more than the like of it did, or has lost threads.

        A tenth more is allowed, and what is opened at need. Memory is not compared: within minutes a process that has
        begun to work grows by more than a tenth. ``scripts/soak`` does, over hours.
        """
        found = []
        for role, at_need in AT_NEED.items():
            was, now = baseline.held[role], self.held[role]
            if len(was) != len(now):
                found.append(f"{len(now)} {role} process(es), not {len(was)}")
                continue
            for name in Held._fields:
                numbers = [getattr(each, name) for each in now]
                least, most = (choose(getattr(each, name) for each in was) for choose in (min, max))
                if max(numbers) > most * (1 + SHARE) + getattr(at_need, name):
                    found.append(f"{max(numbers)} {name} of a {role} process, not {most}")
                if name == "threads" and min(numbers) < least - at_need.threads:
                    found.append(f"{min(numbers)} {name} of a {role} process, not {least}")
        allowed = baseline.connections * (1 + SHARE) + 2 * len(self.held["maintenance"])
        if self.connections > allowed:
            found.append(f"{self.connections} database connections, not {baseline.connections}")
        return found


def _entries(pid: int, what: str) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/{what}"))
    except FileNotFoundError:
        return 0  # ended while we were counting


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (FileNotFoundError, ProcessLookupError):
        return 0
