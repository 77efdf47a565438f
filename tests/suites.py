"""The pytest runs of ``scripts/test``, two at a time: most of the tests with real processes wait for something."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

AT_ONCE = 2
NO_TESTS_COLLECTED = 5  # pytest's exit code

#: They stop and crash servers, so they have servers of their own, which their fixtures start.
FAULTS = "tests/faults"


@dataclass(kw_only=True)
class Suite:
    """One run of pytest."""

    name: str
    arguments: Sequence[str]
    database: str = "sqlite"
    python: str = sys.executable
    own_servers: bool = False
    #: Added to the environment.
    variables: Mapping[str, str] = field(default_factory=dict)
    #: A directory that several runs share; removed when all of them have ended.
    shared: Path | None = None
    #: Made by ``start``.
    directory: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="carrot-suite-")))

    def start(self, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Begin the run, its output into a file."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CARROT_", "DJANGO_"))}
        servers = {} if self.own_servers else dict(env)
        command = [self.python, "-m", "pytest", f"--junitxml={self.directory / 'report.xml'}", *self.arguments]
        headline(f"{self.name} begins: {shlex.join([Path(self.python).name, *command[1:]])}")
        with open(self.directory / "output", "wb") as output:
            variables = {**kept, **servers, "CARROT_TEST_DATABASE": self.database, **self.variables}
            return subprocess.Popen(command, env=variables, stdout=output, stderr=output)

    def report(self, code: int) -> dict[str, int]:
        """Print the output of the ended run; return its counts."""
        headline(self.name)
        print((self.directory / "output").read_text(errors="replace"), flush=True)
        counts = {"passed": 0, "failed": 0, "skipped": 0}
        report = self.directory / "report.xml"
        for suite in ElementTree.parse(report).iter("testsuite") if report.exists() else ():
            failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            skipped = int(suite.get("skipped", 0))
            counts["failed"] += failed
            counts["skipped"] += skipped
            counts["passed"] += int(suite.get("tests", 0)) - failed - skipped
        shutil.rmtree(self.directory)
        if code and not counts["failed"] and code != NO_TESTS_COLLECTED:
            counts["failed"] = 1  # pytest itself failed
        return counts


def suites(*, fast: bool, newest: str | None, arguments: list[str]) -> list[Suite]:
    """The runs to make, the longest first.

    ``fast``: no real processes, nothing slow, and on PostgreSQL only what depends on the database most: the models.
    ``arguments``: pytest's; then only what they choose is run, on both databases.
    """
    if arguments:
        return [
            Suite(name="tests on SQLite", arguments=arguments),
            Suite(name="tests on PostgreSQL", arguments=["-m", "not acceptance", *arguments], database="postgresql"),
        ]
    if fast:
        quick = ["-m", "not slow and not acceptance"]
        return [
            Suite(name="tests on SQLite", arguments=quick),
            Suite(name="models on PostgreSQL", arguments=[*quick, "tests/unit/models"], database="postgresql"),
        ]
    runs = [
        *fault_runs(),
        Suite(name="real processes", arguments=["-m", "acceptance", f"--ignore={FAULTS}"]),
        Suite(name="tests on SQLite", arguments=["-m", "not acceptance"]),
        Suite(name="tests on PostgreSQL", arguments=["-m", "not acceptance"], database="postgresql"),
    ]
    for name, database in [("SQLite", "sqlite"), ("PostgreSQL", "postgresql")] if newest else []:
        chosen = ["-m", "not slow and not acceptance", "tests/unit", "tests/admin"]
        runs.append(
            Suite(name=f"newest Django on {name}", arguments=chosen, database=database, python=newest or sys.executable)
        )
    return runs


def fault_runs(
    arguments: Sequence[str] = (), variables: Mapping[str, str] | None = None, at_once: int = AT_ONCE
) -> list[Suite]:
    """The fault suite, as runs that share its tests: each takes the next one when it is free."""
    shared = Path(tempfile.mkdtemp(prefix="carrot-suite-"))
    return [
        Suite(
            name=f"faults, run {number} of {at_once}",
            arguments=[FAULTS, *arguments],
            own_servers=True,
            variables={"CARROT_FAULTS_SHARED": str(shared), **(variables or {})},
            shared=shared,
        )
        for number in range(1, at_once + 1)
    ]


def run(waiting: list[Suite], env: Mapping[str, str], at_once: int = AT_ONCE) -> Iterator[tuple[str, dict[str, int]]]:
    """Run them all; yields the name and the counts of each as it ends."""
    shared = {suite.shared for suite in waiting if suite.shared}
    waiting = list(waiting)
    running: dict[subprocess.Popen[bytes], Suite] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                suite = waiting.pop(0)
                running[suite.start(env)] = suite
            for child in [child for child in running if child.poll() is not None]:
                suite = running.pop(child)
                yield suite.name, suite.report(child.returncode)
            time.sleep(0.2)
    finally:
        for child in running:
            child.send_signal(signal.SIGINT)  # pytest then ends what its tests have started
        for child in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(30.0)
            child.kill()
        for directory in shared:
            shutil.rmtree(directory)


def headline(text: str) -> None:
    print(f"\n── {text} ", flush=True)
