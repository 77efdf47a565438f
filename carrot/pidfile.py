"""The pid file of a daemon: a lock that one process holds for its whole life, with its pid in it for people to read.

The lock is what counts. The kernel takes it from a process at its end, however that comes, so that a file whose lock is
free belongs to nobody, whoever may have got its pid by now; and the pid of a held one is believed only where that
process really has the file open. So a number in a file never makes anybody signal a stranger.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from carrot import clock
from carrot.exceptions import ServiceError
from carrot.trusted_file import open_trusted

#: Seconds to wait for a lock whose holder is not known: another command looks at the file, or a daemon is just born.
PATIENCE = 2.0
PAUSE = 0.02


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process for certain: its pid, and when it started (a text good for comparing only)."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The living process with this pid; None for a zombie, which does nothing any more."""
        started = _started(pid)
        return None if started is None else cls(pid=pid, started=started)

    @property
    def alive(self) -> bool:
        return _started(self.pid) == self.started

    def age(self) -> float:
        """Seconds since its start; 0 if it has ended. No matter of the wall clock."""
        if Path("/proc/self/stat").exists():
            since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
            return max(0.0, since_boot - int(self.started) / os.sysconf("SC_CLK_TCK")) if self.alive else 0.0
        parts = [int(part) for part in re.findall(r"\d+", _ps(self.pid, "etime"))]  # [[days-]hours:]minutes:seconds
        return float(sum(part * unit for part, unit in zip(reversed(parts), (1, 60, 3600, 86400), strict=False)))

    def signal(self, number: int) -> None:
        """Sends a signal; nothing if the process has ended, even if another has its pid. Raises ``ServiceError``."""
        if not self.alive:
            return
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return  # it ended between the look and the signal
        except PermissionError as error:
            raise ServiceError(
                f"Process {self.pid} belongs to another user: run this command as that user, or as root."
            ) from error


class PidFile:
    """The pid file at ``path``, which is made absolute at once.

    As a context manager it is held: by this process alone, not by the processes it forks.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = os.path.abspath(path)
        self._fd: int | None = None

    # -- held by this process -------------------------------------------------------------------------------------

    def __enter__(self) -> PidFile:
        """Takes the lock and writes the pid; a file left by a dead process is taken over.

        Raises ``ServiceError`` where another process holds it, or the path is none to be trusted.
        """
        ends = clock.monotonic() + PATIENCE
        while (fd := self._lock()) is None:
            holder = self.holder()
            if holder is not None or clock.monotonic() > ends:
                who = f"process {holder.pid}" if holder else "a process unknown"
                raise ServiceError(
                    f"A service already runs with the pid file {self.path} ({who}): stop it first, or give another "
                    "--pidfile."
                )
            time.sleep(PAUSE)
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        self._fd = fd
        os.register_at_fork(after_in_child=self._let_go)
        return self

    def __exit__(self, *_: object) -> None:
        """Removes the file, then gives up the lock: in this order, so that whoever gets it sees that it is gone."""
        if self._fd is None:
            return  # a forked child does not hold it
        if self._is_at_path(self._fd):
            with contextlib.suppress(OSError):  # its directory may be gone, or ours no longer
                os.unlink(self.path)
        self._let_go()

    def _let_go(self) -> None:
        # In a forked child this closes its copy only; the lock stays with the parent.
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _lock(self) -> int | None:
        """The open file, locked; None if somebody else has the lock."""
        _check_directory(self.path)
        while True:
            fd = self._open(os.O_RDWR | os.O_CREAT)
            if fd is None:
                continue  # the last holder removed it at that moment
            if not _try_lock(fd, fcntl.LOCK_EX):
                os.close(fd)
                return None
            if self._is_at_path(fd):
                return fd
            os.close(fd)  # the last holder removed it between our opening and locking

    # -- held by another ------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        """Whether there is a file, held or left behind. Raises ``ServiceError`` for one not to be trusted."""
        fd = self._open(os.O_RDONLY)
        if fd is not None:
            os.close(fd)
        return fd is not None

    def is_held(self) -> bool:
        """Whether a living process holds the file."""
        fd = self._open(os.O_RDONLY)
        if fd is None:
            return False
        try:
            return not _try_lock(fd, fcntl.LOCK_SH)
        finally:
            os.close(fd)

    def holder(self) -> Process | None:
        """The process that holds the file; None if nobody does, or if who it is cannot be told.

        Raises ``ServiceError`` for a file not to be trusted.
        """
        fd = self._open(os.O_RDONLY)
        if fd is None:
            return None
        try:
            if _try_lock(fd, fcntl.LOCK_SH):
                return None
            process = Process.of(_pid(os.pread(fd, 64, 0)))
            return process if process is not None and _has_open(process.pid, os.fstat(fd)) else None
        finally:
            os.close(fd)

    def wait_for_holder(self) -> Process | None:
        """As ``holder``, but blocks for up to ``PATIENCE`` seconds while the file is held by nobody knows whom.

        Raises ``ServiceError`` if it stays so.
        """
        ends = clock.monotonic() + PATIENCE
        while (process := self.holder()) is None and self.is_held():
            if clock.monotonic() > ends:
                raise ServiceError(
                    f"The pid file {self.path} is locked by a process that is not the one it names: give the right "
                    "--pidfile."
                )
            time.sleep(PAUSE)
        return process

    def pid_left(self) -> int:
        """The pid in the file, whoever has it now; 0 if there is none."""
        fd = self._open(os.O_RDONLY)
        if fd is None:
            return 0
        try:
            return _pid(os.pread(fd, 64, 0))
        finally:
            os.close(fd)

    def clear(self) -> bool:
        """Removes a file that nobody holds; whether it is gone now."""
        fd = self._open(os.O_RDONLY)
        if fd is None:
            return True
        try:
            if not _try_lock(fd, fcntl.LOCK_EX):
                return False
            if self._is_at_path(fd):
                os.unlink(self.path)
            return True
        except OSError as error:
            raise ServiceError(f"The pid file {self.path} cannot be removed ({error.strerror}).") from error
        finally:
            os.close(fd)

    # -- the file -------------------------------------------------------------------------------------------------

    def _open(self, flags: int) -> int | None:
        """The file, once it is seen to be one that only its user writes. None: there is none."""
        return open_trusted(self.path, flags, option="--pidfile", what="pid file")

    def _is_at_path(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), os.lstat(self.path))
        except OSError:
            return False


def _check_directory(path: str) -> None:
    directory = os.path.dirname(path)
    try:
        mode = os.stat(directory).st_mode
    except OSError as error:
        raise ServiceError(
            f"The pid file {path} cannot be written ({error.strerror}: {directory}): make that directory, or give "
            "another --pidfile."
        ) from error
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise ServiceError(
            f"The pid file {path} would be in a directory where everybody may exchange it: take the right to "
            f"write from others (chmod o-w {directory}), or give another --pidfile."
        )


def _try_lock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _pid(content: bytes) -> int:
    word = content.split()[0] if content.split() else b""
    return int(word) if word.isdigit() and len(word) <= 10 else 0


def _started(pid: int) -> str | None:
    if pid < 1:
        return None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    else:
        return None if fields[0] in "ZX" else fields[19]
    return _ps(pid, "lstart") or None


def _ps(pid: int, column: str) -> str:
    """For systems without /proc."""
    listed = subprocess.run(["ps", "-o", f"{column}=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return listed.stdout.strip()


def _has_open(pid: int, wanted: os.stat_result) -> bool:
    """Whether a process has this file open. True where that cannot be seen (no /proc, or a process of another user)."""
    try:
        links = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return True
    for link in links:
        with contextlib.suppress(OSError):  # closed meanwhile
            if os.path.samestat(os.stat(f"/proc/{pid}/fd/{link}"), wanted):
                return True
    return False
