"""Processes of the project that publish the tasks of the workload, and a ledger of what they know to be committed.

The ledger is outside the database and fsynced: the truth that rows and traces are compared with. Its lines:

    committed NAME AT SECONDS .    the publication returned, at AT (time.monotonic), its COMMIT included after SECONDS
    unknown NAME AT SECONDS .      the database failed meanwhile: it may be committed or not
    never NAME .                   written before it is published in a transaction that is rolled back

A name ends with its kind: ``p0-17-atomic``, ``p1-4-plain``, ``p1-9-never``. Run by ``Producer`` as ``python -m
tests.faults.producers``.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from tests.project import Project

#: The kinds of twenty publications in a row: half of the tasks are atomic, every tenth transaction is rolled back.
KINDS = (*("plain", "atomic") * 4, "plain", "never", *("atomic", "plain") * 4, "atomic", "never")
#: Lines that share an fsync, and seconds after which one is due in any case. A line counts from the fsync on.
GROUP, FLUSH = 20, 0.1
#: Seconds between two tries while the database is away.
RETRY = 0.1


class Call(NamedTuple):
    """A publication that was not rolled back on purpose. Times in seconds, the end on ``time.monotonic``."""

    name: str
    committed: bool
    ended: float
    took: float


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a producer is to do. Paths are in the project's directory."""

    prefix: str
    journal: str
    ledger: str
    #: Files: until the first exists the tasks of the warm-up run; the second starts the producer, the third ends it.
    warm: str
    go: str
    end: str
    seed: int
    #: Publications a second; 0: as many as there can be.
    rate: float
    #: Tasks to publish at once, before the start.
    warm_up: int
    #: Plain and atomic tasks take up to so many seconds.
    longest: float
    longest_atomic: float


class Ledger:
    """What one producer wrote."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch()

    def calls(self) -> list[Call]:
        return [
            Call(words[1], words[0] == "committed", float(words[2]), float(words[3]))
            for words in self._lines()
            if words[0] != "never"
        ]

    def never(self) -> list[str]:
        """Names whose transactions were rolled back."""
        return [words[1] for words in self._lines() if words[0] == "never"]

    def _lines(self) -> list[list[str]]:
        lines = self._path.read_text().splitlines()
        return [words for line in lines if (words := line.split())[-1:] == ["."]]  # a line half written does not count


class Producer:
    """A process that publishes; ``env`` is added to its environment. Ended with ``kill``, if not by the plan."""

    def __init__(self, site: Project, plan: Plan, env: Mapping[str, str]) -> None:
        self.ledger = Ledger(Path(plan.ledger))
        self._output = Path(plan.ledger).with_suffix(".out")
        #: What it has committed last may be missing in its ledger.
        self.killed = False
        with open(self._output, "wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.producers", json.dumps(asdict(plan))],
                env=site.env | dict(env),
                cwd=site.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def check_alive(self) -> None:
        """Fail the test if it ended too early, and not by ``kill``."""
        assert self.killed or self._process.poll() is None, self._output.read_text()

    def wait(self) -> None:
        """Wait until it ended as planned, if it was not killed; fail the test if it did not."""
        if self.killed:
            return
        try:
            code = self._process.wait(60.0)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"A producer does not end:\n{self._output.read_text()}") from None
        assert code == 0, self._output.read_text()

    def kill(self) -> None:
        """End it the hard way, if it still runs."""
        if self._process.poll() is None:
            self.killed = True
            self._process.kill()
        self._process.wait(10.0)


class Book:
    """The producer's side of the ledger."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 (for the life of the process)
        self._lines: list[str] = []
        self._flushed_at = time.monotonic()

    def write(self, *words: object, now: bool = False) -> None:
        self._lines.append(" ".join(map(str, [*words, ".\n"])))
        if now or len(self._lines) >= GROUP:
            self.flush()

    def flush(self, after: float = 0.0) -> None:
        """Write and fsync what there is, if the last time was ``after`` seconds ago or more."""
        if self._lines and time.monotonic() >= self._flushed_at + after:
            os.write(self._file.fileno(), "".join(self._lines).encode())
            os.fsync(self._file.fileno())
            self._lines, self._flushed_at = [], time.monotonic()


class RollBack(Exception):
    """The caller's own error."""


def main(plan: Plan) -> None:
    """Publish the warm-up, wait for the start, publish until the end."""
    import django

    django.setup()
    from tests.faults.fault_tasks import effect, nap, warm_up

    chance, book = random.Random(plan.seed), Book(plan.ledger)
    for n in range(plan.warm_up):
        publish(plan, book, warm_up, f"{plan.prefix}-w{n}-plain", plan.warm)
    book.flush()
    while not (Path(plan.go).exists() or Path(plan.end).exists()):
        time.sleep(0.01)
    next_at, n = time.monotonic(), 0
    while not Path(plan.end).exists():
        kind = KINDS[n % len(KINDS)]
        task, longest = (effect, plan.longest_atomic) if kind == "atomic" else (nap, plan.longest)
        name, seconds = f"{plan.prefix}-{n}-{kind}", chance.random() * longest
        publish(plan, book, task, name, seconds, in_transaction=n % 3 == 0)
        n += 1
        next_at = max(next_at + (1.0 / plan.rate if plan.rate else 0.0), time.monotonic() - 1.0)
        book.flush(after=FLUSH)
        time.sleep(max(0.0, next_at - time.monotonic()))
    book.flush()


def publish(
    plan: Plan,
    book: Book,
    task: Callable[..., None],
    name: str,
    *args: float | str,
    in_transaction: bool = False,
) -> None:
    """One publication, by itself or within a transaction, and its line in the ledger."""
    from django.db import Error, connection, transaction

    from carrot.utilities import publish_message

    never = name.endswith("never")
    if never:
        book.write("never", name, now=True)
    begun, word = time.monotonic(), "committed"
    try:
        if not in_transaction and not never:
            publish_message(task, plan.journal, name, *args)
        else:
            with transaction.atomic():
                publish_message(task, plan.journal, name, *args)
                if never:
                    raise RollBack
    except RollBack:
        return
    except Error as error:
        print(f"{name}: {error}", flush=True)
        word = "unknown"
        connection.close()  # as at the end of a web request
    ended = time.monotonic()
    if not never:
        book.write(word, name, f"{ended:.6f}", f"{ended - begun:.6f}")
    if word == "unknown":
        time.sleep(RETRY)


if __name__ == "__main__":
    main(Plan(**json.loads(sys.argv[1])))
