"""``carrot_daemon``, with a pid file and a log file of its own: started, asked, restarted, stopped."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from pathlib import Path

from launcher import DemoError
from launcher.processes import AFTER, LOOK, Child
from library import tasks
from library.sources import modules

from carrot.utilities import publish_message
from inspection.steps import Steps, expect, wait_until

#: Seconds for one command: a start may take a minute, a stop the grace of running tasks.
PATIENCE = 90.0
#: Seconds for a task of a few milliseconds.
TASK_PATIENCE = 20.0
#: The exit codes of ``status``.
RUNNING, STOPPED = 0, 3


class Daemon:
    """The daemon of one site. Nothing else may consume its queues meanwhile."""

    def __init__(self, manage: Path, site: Path) -> None:
        self._manage = manage
        self._site = site
        self._pidfile = site / "daemon.pid"
        self.log = site / "daemon.log"

    def clear(self) -> None:
        """End a daemon that a run before left behind, or this one: at once, without waiting for its tasks."""
        if self._pidfile.exists():
            self._command("stop", "--hard")

    def work(self, steps: Steps) -> None:
        """Every step. Raises DemoError if a command does not end; whatever happens, no daemon is left."""
        self.log.unlink(missing_ok=True)
        try:
            self._walk(steps)
        finally:
            self.clear()

    def _walk(self, steps: Steps) -> None:
        with steps.step("the daemon does not run", "carrot_daemon status"):
            self._expect_status(STOPPED, "is not running")
        with steps.step("it starts", "carrot_daemon start"):
            first = self._started("start")
        with steps.step("it runs, and says what", "carrot_daemon status"):
            self._expect_status(RUNNING, f"process {first},")
        with steps.step("it runs a task", "publish_message"):
            _expect_task_done()
        with steps.step("it restarts, as another process", "carrot_daemon restart"):
            second = self._started("restart")
            expect(second != first, f"it is still process {first}")
            expect(not _lives(first), f"process {first} is still there")
        with steps.step("it runs a task again", "publish_message"):
            _expect_task_done()
        with steps.step("it stops, with its process and its pid file", "carrot_daemon stop"):
            code, said = self._command("stop")
            expect(code == 0 and "carrot has stopped" in said, f"exit code {code}: {said}")
            expect(not _lives(second), f"process {second} is still there")
            expect(not self._pidfile.exists(), f"{self._pidfile} is still there")
        with steps.step("it does not run any more", "carrot_daemon status"):
            self._expect_status(STOPPED, "is not running")

    def _started(self, mode: str) -> int:
        """Start or restart it; return its pid."""
        code, said = self._command(mode)
        found = re.search(r"carrot has started: process (\d+)", said)
        if code != 0 or found is None:
            raise DemoError(f"exit code {code}: {said}")
        expect(self._pidfile.read_text("ascii").split()[:1] == [found[1]], f"the pid file does not name {found[1]}")
        return int(found[1])

    def _expect_status(self, code: int, text: str) -> None:
        found, said = self._command("status")
        expect(found == code and text in said, f"exit code {found} instead of {code}: {said}")

    def _command(self, mode: str, *words: str) -> tuple[int, str]:
        """Give one command; return its exit code and what it said. Raises DemoError if it does not end."""
        command = [sys.executable, str(self._manage), "carrot_daemon", mode, "--pidfile", str(self._pidfile)]
        if mode in ("start", "restart"):
            words = (*words, "--logfile", str(self.log), "--loglevel", "INFO")
        log = self._site / "daemon-command.log"
        child = Child(f"carrot_daemon {mode}", [*command, *words], env=os.environ, cwd=self._manage.parent, log=log)
        try:
            _wait_for(child)
        except KeyboardInterrupt:
            # A start that is cut off may leave a daemon that has no pid file yet, so that nobody could stop it.
            with contextlib.suppress(KeyboardInterrupt, DemoError):
                _wait_for(child)
            raise
        finally:
            child.end(AFTER)
        return child.status or 0, " ".join(child.output().split())


def _wait_for(child: Child) -> None:
    ends = time.monotonic() + PATIENCE
    while child.status is None:
        expect(time.monotonic() < ends, f"{child.name} has not ended after {PATIENCE:g} s: {child.tail()}")
        time.sleep(LOOK)


def _expect_task_done() -> None:
    row = publish_message(tasks.count_words, modules()[0].name)

    def is_done() -> bool:
        row.refresh_from_db()
        return row.status == "COMPLETED"

    wait_until(is_done, TASK_PATIENCE, lambda: f"it is {row.status}: {row.exception or row.note}")


def _lives(pid: int) -> bool:
    """Whether there is such a process; one that waits to be collected by its parent is none."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        state = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return not Path("/proc/self/stat").exists()  # no /proc on this system, or it has just gone
    return state not in "ZX"
