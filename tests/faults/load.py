"""A process of the project that publishes all the time, and tells how long each call took.

Run by ``Load`` as ``python -m tests.faults.load``. What is committed goes into a ledger outside the database: the
truth that rows and runs are compared with.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.project import Project

#: Seconds between two calls.
PAUSE = 0.004


class Mark(NamedTuple):
    """A line of the journal: what a process did with a task when, on ``time.monotonic``."""

    what: str
    name: str
    pid: int
    at: float


class Journal:
    """What the tasks of ``tests.faults.fault_tasks`` wrote."""

    def __init__(self, site: Project, name: str = "journal") -> None:
        self.path = site.directory / name
        self.path.touch()
        self._site = site

    def lines(self, what: str, name: str = "") -> list[tuple[str, int]]:
        """The (name, pid) of the lines ``begin`` or ``end``, of one name or of all."""
        split = [line.split() for line in self.path.read_text().splitlines()]
        return [(words[1], int(words[2])) for words in split if words[0] == what and name in ("", words[1])]

    def marks(self) -> list[Mark]:
        """All lines, in the order in which they were written."""
        split = [line.split() for line in self.path.read_text().splitlines()]
        return [Mark(words[0], words[1], int(words[2]), float(words[3])) for words in split]

    def wait_begun(self, name: str, times: int = 1) -> int:
        """Wait until a task has begun so many times; return the pid of its latest process."""
        self._site.wait_until(lambda: len(self.lines("begin", name)) >= times, 40.0, f"{name} begun {times} time(s)")
        return self.lines("begin", name)[-1][1]

    def runs(self) -> Counter[str]:
        """How often each task came to its end."""
        return Counter(name for name, _pid in self.lines("end"))


@dataclass(frozen=True, kw_only=True)
class Latencies:
    """Seconds that calls of ``publish_message`` took."""

    calls: int
    p99: float
    longest: float


class Load:
    """Publishes ``note(journal, NAME)`` again and again until ``finish``; ended with the block whatever happens."""

    def __init__(self, site: Project, journal: Journal) -> None:
        self._site = site
        self._ledger = site.directory / "ledger"
        self._end = site.directory / "load.end"
        self._output = site.directory / "load.out"
        self._result = site.directory / "load.json"
        self._ledger.touch()
        with open(self._output, "wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.load", journal.path, self._ledger, self._end, self._result],
                env=site.env,
                cwd=site.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(10.0)

    def committed(self) -> list[str]:
        """The names of the tasks whose publication returned."""
        return self._names("committed")

    def unknown(self) -> list[str]:
        """The names of the tasks whose publication raised a database error: they may or may not be committed."""
        return self._names("unknown")

    def go_on(self, count: int, timeout: float = 40.0) -> None:
        """Wait until ``count`` more tasks are published."""
        self._wait_for(lambda: len(self.committed()), count, timeout, "published")

    def work_goes_on(self, count: int, timeout: float = 40.0) -> None:
        """Wait until ``count`` more tasks are COMPLETED."""
        self._wait_for(lambda: completed(self._site), count, timeout, "completed")

    def _wait_for(self, counted: Callable[[], int], count: int, timeout: float, what: str) -> None:
        goal = counted() + count
        self._site.wait_until(
            lambda: self._process.poll() is not None or counted() >= goal,
            timeout,
            f"{count} more tasks {what} ({counted()} of {goal}, {len(self.committed())} published)",
        )
        assert self._process.poll() is None, self._output.read_text()

    def finish(self) -> Latencies:
        """End the process; fail if publishing failed in it."""
        self._end.touch()
        assert self._process.wait(30.0) == 0, self._output.read_text()
        return Latencies(**json.loads(self._result.read_text()))

    def _names(self, what: str) -> list[str]:
        split = [line.split() for line in self._ledger.read_text().splitlines() if line.endswith(".")]
        return [name for kind, name, _dot in split if kind == what]


def completed(site: Project) -> int:
    """How many tasks are COMPLETED."""
    return int(site.sql("SELECT count(*) AS n FROM carrot_messagelog WHERE status = 'COMPLETED'")[0]["n"])


def publish_all(site: Project, calls: Sequence[tuple[object, ...]], confirmed: bool = False) -> None:
    """Publish tasks, each given as (task, *args), in a fresh process.

    ``confirmed``: wait until the rows know that the broker has their messages (amqp).
    """
    code = f"from carrot.utilities import publish_message\nfor call in {list(calls)!r}: publish_message(*call)\n"
    if confirmed:
        code += (
            "import time; from carrot.models import MessageLog\n"
            "waiting = MessageLog.objects.filter(status='PUBLISHED', ring_at__isnull=False)\n"
            "deadline = time.monotonic() + 20\n"
            "while waiting.exists():\n"
            "    assert time.monotonic() < deadline, 'not confirmed'\n"
            "    time.sleep(0.05)\n"
        )
    site.python(code)


def main(journal: str, ledger: str, end: str, result: str) -> None:
    """Publish until the file ``end`` exists; write the latencies into the file ``result``."""
    import django

    django.setup()
    from django.db import Error, connection

    from carrot.utilities import publish_message
    from tests.faults.fault_tasks import note

    took: list[float] = []
    with open(ledger, "a", buffering=1) as book:
        while not Path(end).exists():
            name = f"n{len(took)}"
            begun = time.perf_counter()
            try:
                publish_message(note, journal, name)
                kind = "committed"
            except Error as error:
                print(f"{name}: {error}")
                # The fate of the commit is not known. As at the end of a web request, the connection is thrown away.
                kind = "unknown"
                connection.close()
            took.append(time.perf_counter() - begun)
            book.write(f"{kind} {name} .\n")
            time.sleep(PAUSE if kind == "committed" else 0.1)
    took.sort()
    Path(result).write_text(json.dumps({"calls": len(took), "p99": took[int(len(took) * 0.99)], "longest": took[-1]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
