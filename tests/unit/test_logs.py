"""Where the service's log lines go."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from carrot import logs
from carrot.exceptions import ServiceError


@pytest.fixture(autouse=True)
def root() -> Iterator[logging.Logger]:
    """The root logger without handlers, as in a project without LOGGING; put back afterwards."""
    logger = logging.getLogger()
    names = [*logs.QUIET, "carrot"]
    before = (logger.handlers[:], logger.level, {name: logging.getLogger(name).level for name in names})
    logger.handlers[:] = []
    yield logger
    for handler in logger.handlers:
        if handler not in before[0]:
            handler.close()
    logger.handlers[:] = before[0]
    logger.setLevel(before[1])
    for name, level in before[2].items():
        logging.getLogger(name).setLevel(level)


def test_lines_go_to_the_console_and_to_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(str(tmp_path / "carrot.log"), logging.INFO)
    logging.getLogger("shop").info("é is heard")
    logging.getLogger("shop").debug("is not")
    shown = capsys.readouterr().out
    assert "INFO shop: é is heard" in shown
    assert (tmp_path / "carrot.log").read_text(encoding="utf-8") == shown
    assert "is not" not in shown


def test_libraries_stay_at_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(str(tmp_path / "carrot.log"), logging.DEBUG)
    for name in ("pika.connection", "django.db.backends", "asyncio", "psycopg.pool"):
        logging.getLogger(name).info("%s speaks", name)
    logging.getLogger("django.request").warning("of note")
    logging.getLogger("carrot.claimer").debug("carrot speaks")
    shown = capsys.readouterr().out
    assert "pika.connection speaks" not in shown
    assert shown.count("speaks") == 1
    assert "of note" in shown


def test_a_default_file_that_cannot_be_written_costs_one_line_that_names_the_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], root: logging.Logger
) -> None:
    path = tmp_path / "missing" / "carrot.log"
    monkeypatch.setattr(logs, "DEFAULT_LOGFILE", str(path))
    logs.configure(None, logging.DEBUG)
    (line,) = capsys.readouterr().out.splitlines()
    assert str(path) in line
    assert "--logfile" in line
    logging.getLogger("shop").info("goes on")
    assert "goes on" in capsys.readouterr().out


def test_the_default_file_is_used_where_it_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "DEFAULT_LOGFILE", str(tmp_path / "carrot.log"))
    logs.configure(None, logging.DEBUG)
    logging.getLogger("shop").info("written")
    assert "written" in (tmp_path / "carrot.log").read_text()


@pytest.mark.parametrize("name", ["missing/carrot.log", "", "directory"])
def test_a_given_file_that_cannot_be_written_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "directory").mkdir()
    path = str(tmp_path / name)
    with pytest.raises(ServiceError, match="--logfile") as error:
        logs.configure(path, logging.DEBUG)
    assert path.rstrip("/") in str(error.value)


def test_a_console_that_the_project_has_set_up_is_not_doubled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], root: logging.Logger
) -> None:
    own = logging.StreamHandler(sys.stderr)
    own.setFormatter(logging.Formatter("own: %(message)s"))
    root.addHandler(own)
    logs.configure(str(tmp_path / "carrot.log"), logging.INFO)
    logging.getLogger("shop").info("once")
    found = capsys.readouterr()
    assert found.err == "own: once\n"
    assert found.out == ""
