"""The processes that the demo starts: each in a group of its own, of which nothing is left at the end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

#: Seconds between two looks at something that is waited for.
LOOK = 0.05
#: Seconds that what is left of a group gets after its leader has ended.
AFTER = 3.0


def catch_signals() -> None:
    """SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt, so that whatever stops the demo lets it clean up.

    Also where a shell started it in the background, which makes Python ignore SIGINT. ``nohup`` is respected.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, interrupt)


class Child:
    """A process in its own session: Ctrl+C in the terminal reaches the demo alone, which ends its children in order."""

    def __init__(
        self, name: str, command: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path | None = None
    ) -> None:
        self.name = name
        self._log = log
        with contextlib.ExitStack() as files:
            output = files.enter_context(open(log, "wb")) if log is not None else None
            self._process = subprocess.Popen(
                command,
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def status(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.poll()

    def output(self) -> str:
        """What it has printed so far, if that goes to a log."""
        return self._log.read_text("utf-8", "replace") if self._log is not None else ""

    def tail(self, lines: int = 15) -> str:
        """The end of what it has printed, indented, for an error message."""
        return "\n".join(f"    {line}" for line in self.output().splitlines()[-lines:])

    def end(self, grace: float) -> bool:
        """End it and everything it started; whether it ended by itself within ``grace`` seconds of being asked to.

        A second Ctrl+C meanwhile shortens the grace to nothing. Idempotent.
        """
        if self.status is None:
            self._process.terminate()
        try:
            self._process.wait(grace)
            ends = time.monotonic() + AFTER
            while self._group() and time.monotonic() < ends:
                time.sleep(LOOK)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            pass  # what is left is killed, and that is the answer
        tidy = self.status is not None and not self._group()
        while self._group():
            with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for zombies
                os.killpg(self.pid, signal.SIGKILL)
            self._process.poll()
            time.sleep(LOOK)
        self._process.wait()
        return tidy

    def _group(self) -> bool:
        """Whether any process of the group lives. Zombies do not: in a container nobody may collect them."""
        self._process.poll()
        if not Path("/proc/self/stat").exists():
            try:
                os.killpg(self.pid, 0)
            except (ProcessLookupError, PermissionError):
                return False
            return True
        for entry in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, _parent, group = entry.read_text("utf-8", "replace").rpartition(")")[2].split()[:3]
            except (OSError, ValueError):
                continue  # ended while we were looking
            if int(group) == self.pid and state not in "ZX":
                return True
        return False


def run(command: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path | None = None) -> int:
    """Run a command to its end and return its exit code; interrupted, it ends with everything it started."""
    sys.stdout.flush()
    child = Child(command[0], command, env=env, cwd=cwd, log=log)
    try:
        while (status := child.status) is None:
            time.sleep(LOOK)
        return status
    finally:
        child.end(AFTER)
