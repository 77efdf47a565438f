"""Files that somebody else may have put there are not opened."""

from __future__ import annotations

import errno
import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from carrot.exceptions import ServiceError
from carrot.trusted_file import open_trusted

CREATE = os.O_RDWR | os.O_CREAT


def attempt(path: Path, flags: int = CREATE, what: str = "pid file") -> int | None:
    fd = open_trusted(str(path), flags, option="--pidfile", what=what)
    if fd is not None:
        os.close(fd)
    return fd


def give_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the file another user's: really where we may, else by being somebody else."""
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
    else:
        stranger = os.geteuid() + 1
        monkeypatch.setattr(os, "geteuid", lambda: stranger)


def test_a_file_is_made_for_its_user_alone_and_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert attempt(path) is not None
    assert path.stat().st_mode & 0o777 == 0o600
    assert attempt(path) is not None


def test_a_missing_file_is_none_where_none_is_to_be_made(tmp_path: Path) -> None:
    assert attempt(tmp_path / "file", os.O_RDONLY) is None


def test_what_programs_are_started_later_do_not_get_the_file(tmp_path: Path) -> None:
    fd = open_trusted(str(tmp_path / "file"), CREATE, option="--pidfile", what="pid file")
    assert fd is not None
    assert not os.get_inheritable(fd)
    os.close(fd)


def link(path: Path) -> None:
    path.symlink_to(path.with_name("target"))


def hard_link(path: Path) -> None:
    target = path.with_name("precious")
    target.touch()
    path.hardlink_to(target)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (link, "symbolic link"),
        (Path.mkdir, "Is a directory"),
        (os.mkfifo, "not a regular file"),
        (hard_link, "several names"),
    ],
)
def test_what_is_no_plain_file_is_refused(tmp_path: Path, make: Callable[[Path], None], why: str) -> None:
    make(tmp_path / "file")
    with pytest.raises(ServiceError, match=rf"^The pid file {tmp_path}/file .*{why}.* give another --pidfile\.$"):
        attempt(tmp_path / "file")
    assert not (tmp_path / "target").exists()


def test_a_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.touch()
    give_away(path, monkeypatch)
    with pytest.raises(ServiceError, match="belongs to the user"):
        attempt(path)


def test_where_permission_is_denied_the_user_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.touch()

    def denied(*args: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", denied)  # root is denied nothing
    user = pwd.getpwuid(os.geteuid()).pw_name
    with pytest.raises(ServiceError, match=rf"cannot be written \(Permission denied; it belongs to the user {user}\)"):
        attempt(path)


def test_devices_are_for_logs_only() -> None:
    assert attempt(Path("/dev/null"), os.O_WRONLY, what="log file") is not None
    with pytest.raises(ServiceError, match="not a regular file"):
        attempt(Path("/dev/null"), os.O_WRONLY)


def test_a_directory_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match=r"cannot be written \(No such file or directory\): give another --pidfile"):
        attempt(tmp_path / "no" / "file")
