"""The stages of ``scripts/test``: all of them run, whatever fails; the last line counts.

A static check counts as one test.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from tests import suites
from tests.servers import PostgreSQL, RabbitMQ, ServerError, ensure_installed
from tests.servers.places import new_place, remove_place
from tests.suites import headline


@dataclass(kw_only=True)
class Tally:
    """What has been found so far."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    failures: list[str] = field(default_factory=list)

    def note(self, stage: str, *, passed: int = 0, failed: int = 0, skipped: int = 0) -> None:
        self.passed += passed
        self.failed += failed
        self.skipped += skipped
        if failed:
            self.failures.append(stage)


def main() -> int:
    """Run the stages; return the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/test", add_help=False)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--newest", help="the Python of an environment with the newest Django")
    options, pytest_arguments = parser.parse_known_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: it is ignored in what a script starts with "&"
        signal.signal(number, _interrupt)
    begun = time.monotonic()
    tally = Tally()
    try:
        run_static_checks(tally)
        with servers(fast=options.fast) as env:
            chosen = suites.suites(fast=options.fast, newest=options.newest, arguments=pytest_arguments)
            for name, counts in suites.run(chosen, env):
                tally.note(name, **counts)
    except ServerError as error:
        print(error, file=sys.stderr)
        tally.note("servers", failed=1)
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130
    headline(f"{time.monotonic() - begun:.0f} seconds in all")
    for stage in tally.failures:
        print(f"FAILED: {stage}")
    print(f"{tally.passed} passed, {tally.failed} failed" + (f", {tally.skipped} skipped" if tally.skipped else ""))
    return 1 if tally.failed else 0


def run_static_checks(tally: Tally) -> None:
    """Run what needs neither servers nor a database."""
    scripts = Path(sys.executable).parent
    python = sys.executable
    checks: dict[str, list[str | Path]] = {
        "ruff check": [python, "-m", "ruff", "check", "--quiet", "."],
        "ruff format": [python, "-m", "ruff", "format", "--check", "--quiet", "."],
        "mypy": [python, "-m", "mypy", "carrot"],
        "import-linter": [scripts / "lint-imports"],
        "missing migrations": [python, "-m", "django", "makemigrations", "--check", "--dry-run", "carrot", "app"],
    }
    with tempfile.TemporaryDirectory() as scratch:
        env = {"DJANGO_SETTINGS_MODULE": "tests.settings", "CARROT_TEST_DATABASE_NAME": f"{scratch}/db.sqlite3"}
        for stage, command in checks.items():
            done = run(stage, command, env)
            tally.note(stage, passed=int(done == 0), failed=int(done != 0))


@contextmanager
def servers(*, fast: bool) -> Iterator[dict[str, str]]:
    """Private servers for this run: yields the variables that name them; they are crashed and removed afterwards.

    Whatever is not on this machine is installed first; ``fast`` runs need no browser and no wrong clocks.
    """
    headline("servers")
    ensure_installed(browser=not fast, faketime=not fast)
    place = new_place()
    try:
        rabbitmq, postgresql = RabbitMQ(place), PostgreSQL(place)
        for server in (postgresql, rabbitmq):
            server.start()
            print(f"{type(server).__name__} runs on 127.0.0.1:{server.port}, data in {server.directory}", flush=True)
        yield {
            "CARROT_TEST_RABBITMQ": rabbitmq.url,
            "CARROT_TEST_POSTGRES": postgresql.url,
            "CARROT_TEST_SERVERS": str(place),
        }
    finally:
        remove_place(place)


def run(stage: str, command: list[str] | list[str | Path], env: Mapping[str, str]) -> int:
    """Run one stage, its output as it comes; return its exit code."""
    words = [str(word) for word in command]
    headline(f"{stage}: {shlex.join([Path(words[0]).name, *words[1:]])}")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CARROT_", "DJANGO_"))}
    with subprocess.Popen(words, env=kept | dict(env)) as child:
        try:
            return child.wait()
        except KeyboardInterrupt:
            child.send_signal(signal.SIGINT)  # pytest then ends what its tests have started
            try:
                child.wait(30.0)
            except subprocess.TimeoutExpired:
                child.kill()
            raise


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
