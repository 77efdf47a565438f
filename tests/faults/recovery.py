"""Deaths of worker processes, and how long it took until their tasks began again."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Collection
from dataclasses import dataclass

from tests.faults import invariants
from tests.faults.load import Journal, Mark
from tests.project import Project
from tests.servers.process import Process
from tests.service import Service


@dataclass(frozen=True, kw_only=True)
class Death:
    """A worker process that was killed, when (``time.monotonic``), and the tasks that ran in it."""

    pid: int
    at: float
    names: tuple[str, ...]


class Deaths:
    """Kills worker processes and keeps account of it."""

    def __init__(self, site: Project, journal: Journal) -> None:
        self._site = site
        self._journal = journal
        self._deaths: list[Death] = []

    @property
    def workers(self) -> int:
        """How many worker processes were killed."""
        return len(self._deaths)

    def kill_one(self, chance: random.Random, among: Collection[int] | None = None) -> int:
        """SIGKILL one of the worker processes in which a task runs, of those ``among`` if given; return its pid."""
        killed: list[int] = []

        def kill() -> bool:
            busy = {pid for pid, names in running(self._journal.marks()).items() if names}
            busy -= {death.pid for death in self._deaths}  # whose tasks seem to run for ever
            living = invariants.living_workers(self._site)
            found = sorted(busy.intersection(living, self._site.processes() if among is None else among))
            if found and self._killed_at_work(chance.choice(found)):
                killed.append(self._deaths[-1].pid)
            return bool(killed)

        self._site.wait_until(kill, 60.0, "a worker was killed while a task ran in it")
        return killed[0]

    def _killed_at_work(self, pid: int) -> bool:
        """Kill it if a task still runs in it: stopped for a moment, it cannot end one between the look and the kill."""
        worker = Process.of(pid)
        if worker is None:
            return False
        worker.signal(signal.SIGSTOP)
        if not running(self._journal.marks()).get(pid):
            worker.signal(signal.SIGCONT)
            return False
        at = time.monotonic()
        worker.kill()
        self._note(pid, at)
        return True

    def expect(self, service: Service) -> None:
        """Note that all worker processes of a service are about to be killed."""
        at, children = time.monotonic(), set(service.children())
        for pid in invariants.living_workers(self._site):
            if pid in children:
                self._note(pid, at)

    def recoveries(self) -> list[float]:
        """Seconds from each death until each of its tasks began again, of those that did."""
        marks = self._journal.marks()
        seconds = []
        for death in self._deaths:
            for name in death.names:
                again = (mark.at for mark in marks if (mark.what, mark.name) == ("begin", name) and mark.at > death.at)
                first = next(again, None)  # None: its end was written though no "end" was, or it is lost
                if first is not None:
                    seconds.append(first - death.at)
        return seconds

    def _note(self, pid: int, at: float) -> None:
        before = [mark for mark in self._journal.marks() if mark.at <= at]
        self._deaths.append(Death(pid=pid, at=at, names=tuple(running(before).get(pid, ()))))


def running(marks: list[Mark]) -> dict[int, list[str]]:
    """The tasks whose bodies run, or ran when it ended, in each process that the journal knows."""
    found: dict[int, list[str]] = {}
    for mark in marks:
        names = found.setdefault(mark.pid, [])
        if mark.what == "begin":
            names.append(mark.name)
        elif mark.name in names:
            names.remove(mark.name)
    return found
