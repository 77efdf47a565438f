"""The pid file: one process holds it, and nobody is taken for that process who is not."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from carrot import pidfile
from carrot.exceptions import ServiceError
from carrot.pidfile import PidFile, Process

HOLD = """
import sys
from carrot.pidfile import PidFile
with PidFile(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "carrot.pid"


@pytest.fixture
def held(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the file until its input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        yield child
        child.kill()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pidfile, "PATIENCE", 0.1)


def test_the_file_has_the_pid_while_it_is_held_and_is_gone_afterwards(path: Path) -> None:
    with PidFile(path) as file:
        assert path.read_text() == f"{os.getpid()}\n"
        assert file.is_held()
        assert file.holder() == Process.of(os.getpid())
    assert not path.exists()
    assert not file.exists()
    assert not file.is_held()
    assert file.holder() is None


def test_a_relative_path_is_that_of_the_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = PidFile("run.pid")
    monkeypatch.chdir("/")
    assert file.path == str(tmp_path / "run.pid")


def test_a_file_that_is_held_is_refused_with_the_pid_of_its_holder(path: Path, held: subprocess.Popen[str]) -> None:
    with pytest.raises(ServiceError, match=rf"already runs with the pid file {path} \(process {held.pid}\)"):
        PidFile(path).__enter__()
    assert path.read_text() == f"{held.pid}\n"
    holder = PidFile(path).holder()
    assert holder is not None
    assert holder.pid == held.pid
    assert not PidFile(path).clear()


def test_the_file_of_a_killed_process_is_taken_over(path: Path, held: subprocess.Popen[str]) -> None:
    held.kill()
    held.wait()
    file = PidFile(path)
    assert file.exists()
    assert not file.is_held()
    assert file.holder() is None
    assert file.pid_left() == held.pid
    with file:
        assert path.read_text() == f"{os.getpid()}\n"


def test_a_longer_pid_leaves_nothing_behind(path: Path) -> None:
    path.write_text("123456789012\nmore\n")
    with PidFile(path):
        assert path.read_text() == f"{os.getpid()}\n"


def test_the_pid_of_a_living_stranger_is_believed_neither_free_nor_locked(path: Path, impatient: None) -> None:
    path.write_text(f"{os.getppid()}\n")
    file = PidFile(path)
    assert file.holder() is None
    with open(path) as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert file.is_held()
        assert file.holder() is None
        with pytest.raises(ServiceError, match="not the one it names"):
            file.wait_for_holder()
        with pytest.raises(ServiceError, match="a process unknown"):
            file.__enter__()
    assert file.wait_for_holder() is None


@pytest.mark.parametrize("content", ["", "\n", "-1\n", "0\n", "one\n", "99999999999999999999\n", "\0\0\0"])
def test_nonsense_in_the_file_names_nobody(path: Path, content: str, impatient: None) -> None:
    path.write_text(content)
    with open(path) as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert PidFile(path).holder() is None


def test_a_short_look_of_somebody_else_does_not_keep_a_service_from_starting(path: Path) -> None:
    path.touch()
    other = os.open(path, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_SH)
    looks = threading.Timer(0.2, os.close, [other])
    looks.start()
    with PidFile(path):
        assert path.read_text() == f"{os.getpid()}\n"
    looks.join()


def test_children_do_not_hold_the_file(path: Path) -> None:
    """Workers outlive a killed master for some seconds; they must not keep the next one from starting."""
    ours, theirs = socket.socketpair()
    file = PidFile(path)
    file.__enter__()
    child = os.fork()
    if child == 0:
        ours.close()
        file.__exit__()  # nor does a child that ends remove it
        theirs.send(b"done")
        theirs.recv(1)  # until the other end is closed
        os._exit(0)
    theirs.close()
    try:
        assert ours.recv(4) == b"done"
        assert path.exists()
        assert file.is_held()
        file._let_go()  # as the kernel does for a killed process
        assert not file.is_held()
    finally:
        ours.close()
        os.waitpid(child, 0)


def test_a_file_that_was_replaced_meanwhile_is_not_removed(path: Path) -> None:
    with PidFile(path):
        path.unlink()
        path.write_text("of another\n")
    assert path.read_text() == "of another\n"


def test_a_lock_on_a_file_that_its_holder_removed_is_no_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between opening and locking the last holder may remove the file; the lock then is on a file nobody finds."""
    real = pidfile._try_lock

    def lock_of_a_removed_file(fd: int, kind: int) -> bool:
        monkeypatch.setattr(pidfile, "_try_lock", real)
        path.unlink()
        return real(fd, kind)

    monkeypatch.setattr(pidfile, "_try_lock", lock_of_a_removed_file)
    with PidFile(path):
        assert path.read_text() == f"{os.getpid()}\n"


def test_only_a_directory_in_which_others_cannot_exchange_the_file_is_good(tmp_path: Path) -> None:
    for mode, good in ((0o777, False), (0o1777, True), (0o775, True), (0o700, True)):
        tmp_path.chmod(mode)
        if good:
            with PidFile(tmp_path / "carrot.pid"):
                pass
        else:
            with pytest.raises(ServiceError, match=rf"chmod o-w {tmp_path}"):
                PidFile(tmp_path / "carrot.pid").__enter__()
    with pytest.raises(ServiceError, match=r"No such file.*make that directory, or give another --pidfile"):
        PidFile(tmp_path / "no" / "carrot.pid").__enter__()


def test_a_left_file_is_cleared(path: Path) -> None:
    path.write_text("1\n")
    assert PidFile(path).clear()
    assert not path.exists()
    assert PidFile(path).clear()


def test_a_process_is_its_pid_and_its_start(held: subprocess.Popen[str]) -> None:
    process = Process.of(held.pid)
    assert process is not None
    assert process.alive
    assert 0 <= process.age() < 60
    other = Process(pid=held.pid, started="at another time")
    assert not other.alive
    other.signal(signal.SIGKILL)
    assert held.poll() is None
    process.signal(signal.SIGKILL)
    held.wait()
    assert not process.alive
    assert process.age() == 0
    process.signal(signal.SIGKILL)  # of nobody: nothing happens


def test_a_zombie_is_no_process() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    try:
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        assert Process.of(child) is None
    finally:
        os.waitpid(child, 0)


@pytest.mark.parametrize("pid", [0, -1, 999999999])
def test_there_are_pids_of_nobody(pid: int) -> None:
    assert Process.of(pid) is None
