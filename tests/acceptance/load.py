"""A process of the project that publishes all the time, and tells how long each call took.

Run by ``Load`` as ``python -m tests.acceptance.load``. What is committed goes into a ledger outside the database: the
truth that rows and runs are compared with.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.project import Project

#: Seconds between two calls.
PAUSE = 0.004


class Journal:
    """What the tasks of ``tests.acceptance.fault_tasks`` wrote."""

    def __init__(self, site: Project, name: str = "journal") -> None:
        self.path = site.directory / name
        self.path.touch()

    def lines(self, what: str, name: str = "") -> list[tuple[str, int]]:
        """The (name, pid) of the lines ``begin`` or ``end``, of one name or of all."""
        split = [line.split() for line in self.path.read_text().splitlines()]
        return [(words[1], int(words[2])) for words in split if words[0] == what and name in ("", words[1])]

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
    """Publishes ``note(journal, NAME)`` again and again until ``finish``."""

    def __init__(self, site: Project, journal: Journal) -> None:
        self._site = site
        self._ledger = site.directory / "ledger"
        self._end = site.directory / "load.end"
        self._output = site.directory / "load.out"
        self._ledger.touch()
        with open(self._output, "wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.acceptance.load", journal.path, self._ledger, self._end],
                env=site.env,
                cwd=site.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def committed(self) -> list[str]:
        """The names of the tasks whose publication returned."""
        return self._names("committed")

    def unknown(self) -> list[str]:
        """The names of the tasks whose publication raised a database error: they may or may not be committed."""
        return self._names("unknown")

    def go_on(self, count: int, timeout: float = 40.0) -> None:
        """Wait until ``count`` more tasks are published."""
        before = len(self.committed())
        self._site.wait_until(
            lambda: self._process.poll() is not None or len(self.committed()) >= before + count,
            timeout,
            f"{count} more tasks published\n{self._output.read_text()}",
        )
        assert self._process.poll() is None, self._output.read_text()

    def finish(self) -> Latencies:
        """End the process; fail if publishing failed in it."""
        self._end.touch()
        assert self._process.wait(30.0) == 0, self._output.read_text()
        words = self._output.read_text().splitlines()[-1]
        return Latencies(**json.loads(words))

    def _names(self, what: str) -> list[str]:
        split = [line.split() for line in self._ledger.read_text().splitlines() if line.endswith(".")]
        return [name for kind, name, _dot in split if kind == what]


def completed(site: Project) -> int:
    """How many tasks are COMPLETED."""
    return int(site.sql("SELECT count(*) AS n FROM carrot_messagelog WHERE status = 'COMPLETED'")[0]["n"])


def work_goes_on(site: Project, count: int, timeout: float = 40.0) -> None:
    """Wait until ``count`` more tasks are COMPLETED."""
    goal = completed(site) + count
    site.wait_until(lambda: completed(site) >= goal, timeout, f"{count} more tasks completed")


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


def main(journal: str, ledger: str, end: str) -> None:
    """Publish until the file ``end`` exists; print the latencies."""
    import django

    django.setup()
    from django.db import Error, connection

    from carrot.utilities import publish_message
    from tests.acceptance.fault_tasks import note

    took: list[float] = []
    with open(ledger, "a", buffering=1) as book:
        while not Path(end).exists():
            name = f"n{len(took)}"
            begun = time.perf_counter()
            try:
                publish_message(note, journal, name)
                kind = "committed"
            except Error:
                # The fate of the commit is not known. As at the end of a web request, the connection is thrown away.
                kind = "unknown"
                connection.close()
            took.append(time.perf_counter() - begun)
            book.write(f"{kind} {name} .\n")
            time.sleep(PAUSE if kind == "committed" else 0.1)
    took.sort()
    print(json.dumps({"calls": len(took), "p99": took[int(len(took) * 0.99)], "longest": took[-1]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
