"""The log file of a daemon: trusted, added to, made anew when it is moved away. Its take-over: acceptance tests."""

from __future__ import annotations

import logging
import os
import resource
from collections.abc import Iterator
from io import BufferedWriter, TextIOWrapper
from pathlib import Path

import pytest

from carrot.daemon_log import DaemonLog, Printed
from carrot.exceptions import ServiceError


@pytest.fixture
def log(tmp_path: Path) -> Iterator[DaemonLog]:
    log = DaemonLog(str(tmp_path / "carrot.log"))
    yield log
    log.close()


def say(log: DaemonLog, text: str) -> None:
    log.emit(logging.LogRecord("carrot", logging.INFO, __file__, 1, text, None, None))


def lines(path: Path) -> list[str]:
    return [line.rpartition(": ")[2] for line in path.read_text("utf-8").splitlines()]


def test_it_adds_to_what_is_there(tmp_path: Path, log: DaemonLog) -> None:
    path = tmp_path / "carrot.log"
    say(log, "one")
    other = DaemonLog(str(path))
    say(other, "two")
    other.close()
    say(log, "three ×")
    assert lines(path) == ["one", "two", "three ×"]


def test_a_file_that_was_moved_or_removed_is_made_anew(tmp_path: Path, log: DaemonLog) -> None:
    path = tmp_path / "carrot.log"
    say(log, "one")
    path.rename(tmp_path / "carrot.log.1")
    say(log, "two")
    assert lines(path) == ["two"]
    path.unlink()
    say(log, "three")
    assert lines(path) == ["three"]
    assert lines(tmp_path / "carrot.log.1") == ["one"]


def test_when_it_cannot_be_made_anew_logging_goes_on_in_the_old_one(tmp_path: Path, log: DaemonLog) -> None:
    path = tmp_path / "carrot.log"
    path.rename(tmp_path / "old")
    path.symlink_to(tmp_path / "planted")
    say(log, "one")
    assert lines(tmp_path / "old") == ["one"]
    assert not (tmp_path / "planted").exists()


@pytest.fixture
def full_disk() -> Iterator[int]:
    """Files of more than so many bytes cannot grow."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = 64 << 20
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_lines_that_a_full_disk_did_not_take_do_not_stop_it_from_going_on_elsewhere(
    tmp_path: Path, log: DaemonLog, full_disk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)  # as to where it says that a line is lost
    path = tmp_path / "carrot.log"
    os.truncate(path, full_disk)
    say(log, "one")
    assert path.stat().st_size == full_disk
    path.rename(tmp_path / "full")
    say(log, "two")
    assert lines(path) == ["two"]


def test_what_is_printed_while_the_disk_is_full_is_lost_and_nothing_else() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    with TextIOWrapper(BufferedWriter(Printed(fd, "w")), encoding="utf-8", line_buffering=True) as printed:
        assert print("one", "x" * 100_000, file=printed) is None
        with pytest.raises(OSError, match="No space left"):  # the fault is there
            os.write(fd, b"one")


def test_it_leaves_the_numbers_of_the_standard_streams_alone(tmp_path: Path) -> None:
    kept = {number: os.dup(number) for number in (0, 2)}
    for number in kept:
        os.close(number)
    try:
        log = DaemonLog(str(tmp_path / "carrot.log"))
        found = log.fileno()
        log.close()
    finally:
        for number, fd in kept.items():
            os.dup2(fd, number)
            os.close(fd)
    assert found > 2


def test_a_closed_log_has_no_number(log: DaemonLog) -> None:
    log.close()
    with pytest.raises(ValueError, match="closed"):
        log.fileno()


def test_a_path_that_cannot_be_written_is_named_with_its_option(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match=rf"^The log file {tmp_path} cannot be written .*give another --logfile"):
        DaemonLog(str(tmp_path))
