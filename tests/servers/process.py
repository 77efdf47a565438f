"""What both servers need from the operating system: ports, an unprivileged account, and processes known for certain.

A process is remembered by its pid *and* its start time: a pid read from a file may belong to somebody else by now, and
only processes started here are ever signalled.
"""

from __future__ import annotations

import os
import pwd
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POLL = 0.02  # seconds between two looks at something we wait for


class ServerError(Exception):
    """A server cannot be found, installed, started or stopped; the text says why and shows the end of its log."""


@dataclass(frozen=True, kw_only=True)
class Account:
    """The user a server runs as, when we are root and must give that up."""

    name: str
    uid: int
    gid: int


def unprivileged_account(*names: str) -> Account | None:
    """Return the first account of this machine among ``names``; None when we are not root and run it ourselves.

    Raises ServerError when we are root and none of them exists.
    """
    if os.geteuid() != 0:
        return None
    for name in names:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name=name, uid=entry.pw_uid, gid=entry.pw_gid)
    raise ServerError(f"Servers do not run as root, and none of the users {', '.join(names)} exists. Add one of them.")


def run_as(account: Account | None) -> dict[str, Any]:
    """Return the arguments of ``subprocess`` that run a program as ``account``."""
    return {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}


def make_directory(path: Path, account: Account | None, mode: int = 0o700) -> Path:
    """Make ``path`` (if need be) and give it to ``account``."""
    path.mkdir(mode=mode, parents=True, exist_ok=True)
    path.chmod(mode)
    if account is not None:
        os.chown(path, account.uid, account.gid)
    return path


def write_file(path: Path, text: str, account: Account | None, mode: int = 0o600) -> Path:
    """Write ``path`` and give it to ``account``; readable by others only if ``mode`` says so, from the first byte."""
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    path.chmod(mode)
    if account is not None:
        os.chown(path, account.uid, account.gid)
    return path


def call(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    account: Account | None,
    cwd: Path,
    timeout: float,
    stdin: str | None = None,
) -> str:
    """Run a program to its end and return what it printed.

    Raises ServerError with its output when it fails or takes longer than ``timeout`` seconds.
    """
    try:
        done: subprocess.CompletedProcess[str] = subprocess.run(
            [str(word) for word in command],
            env=dict(env),
            cwd=cwd,
            timeout=timeout,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            **run_as(account),
        )
    except subprocess.TimeoutExpired as error:
        raise ServerError(f"{Path(command[0]).name} did not end within {timeout:g} s: {error.stdout!r}") from error
    if done.returncode:
        words = " ".join(str(word) for word in command)
        raise ServerError(f"{words}: exit code {done.returncode}\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout


def is_free(port: int) -> bool:
    """Can a server listen on this loopback port now?"""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT is no obstacle
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """Return ``count`` loopback ports nobody listens on, below the range the kernel gives to clients.

    From that range a client that keeps knocking while the server is down would sooner or later be given the server's
    own port as its source, be connected to itself, and keep the server from coming back.
    """
    try:
        lowest_client_port = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        lowest_client_port = 49152  # RFC 6335, section 6
    low, high = (10240, lowest_client_port) if lowest_client_port > 12288 else (20000, 60000)
    ports: list[int] = []
    for port in random.sample(range(low, high), 1000):
        if is_free(port):
            ports.append(port)
            if len(ports) == count:
                return ports
    raise ServerError(f"Fewer than {count} free ports found on 127.0.0.1 between {low} and {high}.")


def started_at(pid: int) -> str | None:
    """Return when a process started, in a form good for comparing only; None if there is no such (living) process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    else:
        return None if fields[0] in "ZX" else fields[19]
    listed = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return listed.stdout.strip() or None


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process, for certain: its pid and the time it started."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """Return the living process with this pid, or None."""
        started = started_at(pid)
        return None if started is None else cls(pid=pid, started=started)

    @property
    def alive(self) -> bool:
        return started_at(self.pid) == self.started

    def signal(self, number: int) -> None:
        """Send a signal, if the process still lives."""
        if self.alive:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return  # it ended between the look and the signal

    def kill(self) -> None:
        self.signal(signal.SIGKILL)


_launched: list[subprocess.Popen[bytes]] = []  # children that may outlive us, kept to be waited for if they do not


def launch(
    command: Sequence[str | Path], *, env: Mapping[str, str], account: Account | None, cwd: Path, log: Path
) -> Process:
    """Start a server in its own session (Ctrl+C does not reach it), its output appended to ``log``.

    Raises ServerError when it cannot be started or ends at once.
    """
    with open(log, "ab") as output:
        try:
            child = subprocess.Popen(
                [str(word) for word in command],
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                **run_as(account),
            )
        except OSError as error:
            raise ServerError(f"{command[0]} cannot be started: {error}") from error
    _launched.append(child)
    server = Process.of(child.pid)
    if server is None:
        raise ServerError(f"{command[0]} ended at once.\n{excerpt(log)}")
    return server


def reap() -> None:
    """Wait for those launched servers that have ended, so that no zombie is left of them."""
    _launched[:] = [child for child in _launched if child.poll() is None]


def session_members(leader: int) -> list[Process]:
    """Return the living processes of the session ``leader`` opened (Linux; elsewhere only the leader itself)."""
    found = [Process.of(leader)]
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            session = int(entry.read_text().rpartition(")")[2].split()[3])
        except OSError:
            continue  # ended while we were reading
        if session == leader and int(entry.parent.name) != leader:
            found.append(Process.of(int(entry.parent.name)))
    return [process for process in found if process is not None]


def wait_until(condition: Callable[[], bool], timeout: float) -> bool:
    """Wait for ``condition``, at most ``timeout`` seconds; return whether it came true."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL)
    return True


def excerpt(path: Path, head: int = 0, tail: int = 30) -> str:
    """Return the first and last lines of a log, or a sentence that there is none."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return f"(no log at {path})"
    if len(lines) > head + tail:
        lines[head : len(lines) - tail] = ["..."]
    return "\n".join([f"--- {path}", *lines])
