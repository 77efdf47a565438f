"""A real ``manage.py carrot`` process, as tests see it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from tests.servers.process import POLL, Process, session_members, wait_until

READY = re.compile(r"\bready\b", re.IGNORECASE)


class Service:
    """A service in its own session. ``kill`` ends all its processes at once, ``stop`` asks the master to end."""

    def __init__(self, command: list[str], env: Mapping[str, str], marker: str, directory: Path, output: Path) -> None:
        self._output = output
        self._marker = marker
        with open(output, "wb") as file:
            self._process = subprocess.Popen(
                command,
                env=dict(env),
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The pid of the master."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The master's exit code, negative for the signal that ended it; None while it runs."""
        return self._process.poll()

    def output(self) -> str:
        """Return what the service has printed so far, on both streams."""
        return self._output.read_text(encoding="utf-8", errors="replace")

    def wait_ready(self, timeout: float = 30.0) -> None:
        """Wait for a line with the word "ready"; ``timeout`` in seconds. Fails the test if it does not come."""
        if not wait_until(lambda: self.returncode is not None or bool(READY.search(self.output())), timeout):
            raise AssertionError(f"The service is not ready after {timeout:g} s:\n{self.output()}")
        if not READY.search(self.output()):
            raise AssertionError(f"The service ended with exit code {self.returncode}:\n{self.output()}")

    def wait(self, timeout: float) -> int:
        """Wait for the master's end and return its exit code. Fails the test if it takes longer."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"The service runs after {timeout:g} s:\n{self.output()}") from None

    def send(self, number: int) -> None:
        """Send a signal to the master, and to it alone."""
        self._process.send_signal(number)

    def stop(self, timeout: float = 40.0) -> int:
        """Send SIGTERM, wait, and return the exit code."""
        self.send(signal.SIGTERM)
        return self.wait(timeout)

    def kill(self) -> None:
        """SIGKILL the master and everything it started, as a power loss would; returns when all are gone."""
        deadline = time.monotonic() + 10.0
        while members := self._members():  # looked up again: a process may have forked at that moment
            for member in members:
                member.kill()
            if time.monotonic() > deadline:
                raise AssertionError(f"Processes survive SIGKILL: {[member.pid for member in members]}")
            time.sleep(POLL)
        self._process.wait(10.0)

    def _members(self) -> list[Process]:
        """Return the living processes of the session, known as ours by their marker (pids are used again)."""
        ours = {process.pid for process in marked_processes(self._marker)}
        return [member for member in session_members(self.pid) if member.pid in ours]

    def end(self) -> None:
        """End whatever still runs: SIGTERM, five seconds, SIGKILL."""
        if self.returncode is None:
            self.send(signal.SIGTERM)
            wait_until(lambda: self.returncode is not None, 5.0)
        self.kill()

    def children(self) -> list[int]:
        """Return the pids of the master's own children: worker and maintenance processes (Linux)."""
        return [process.pid for process in _children(self.pid)]


def _children(parent: int) -> list[Process]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # ended while we were reading
        if int(fields[1]) == parent and (process := Process.of(int(entry.parent.name))):
            found.append(process)
    return found


def marked_processes(marker: str) -> list[Process]:
    """Return the living processes with ``marker`` (``NAME=value``) in the environment they were started with."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            variables = entry.read_bytes().split(b"\0")
        except OSError:
            continue  # ended while we were reading, or not ours
        pid = int(entry.parent.name)
        if marker.encode() in variables and pid != os.getpid() and (process := Process.of(pid)):
            found.append(process)
    return found
