"""The log of a task: what is kept, in which form, and whose it is."""

from __future__ import annotations

import contextvars
import logging
import re
import threading
from collections.abc import Iterator

import pytest

from carrot.context import TaskContext, TaskLog, capture_logging, current, entered
from tests.rows import unsaved_claim


@pytest.fixture
def task() -> TaskContext:
    return TaskContext(unsaved_claim(), TaskLog(65_536))


@pytest.fixture
def captured() -> Iterator[None]:
    """This process's loggers feed task logs, at every level, as in a worker process."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.DEBUG)
    handler = capture_logging()
    yield
    root.setLevel(level)
    for logger in [root, *logging.Logger.manager.loggerDict.values()]:
        if isinstance(logger, logging.Logger):
            logger.removeHandler(handler)


# -- form -------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("captured")
def test_a_line_has_its_time_level_and_logger(task: TaskContext) -> None:
    with entered(task):
        logging.getLogger("shop.tasks").info("paid %s", "42 €")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO shop\.tasks: paid 42 €", task.log.text())


@pytest.mark.usefixtures("captured")
def test_a_message_cannot_forge_a_line(task: TaskContext) -> None:
    hostile = "x\n2026-01-01T00:00:00.000Z ERROR bank: forged\r\nmore\rcarriage"
    with entered(task):
        logging.getLogger("shop").info(hostile)
        logging.getLogger("shop").info("next")
    lines = task.log.text().split("\n")
    assert len([line for line in lines if re.match(r"\d{4}-", line)]) == 2
    assert lines[1] == "    2026-01-01T00:00:00.000Z ERROR bank: forged␍"
    assert "\r" not in task.log.text()


@pytest.mark.usefixtures("captured")
def test_a_traceback_belongs_to_its_line(task: TaskContext) -> None:
    def fail() -> None:
        raise ValueError("why")

    with entered(task):
        try:
            fail()
        except ValueError:
            logging.getLogger("shop").exception("it failed")
    first, *rest = task.log.text().splitlines()
    assert first.endswith("ERROR shop: it failed")
    assert rest[-1] == "    ValueError: why"
    assert all(line.startswith("    ") for line in rest)


# -- size -------------------------------------------------------------------------------------------------------------


def test_of_too_many_lines_the_first_and_the_last_are_kept() -> None:
    log = TaskLog(4096)
    for number in range(1000):
        log.add(f"line {number}")
    lines = log.text().splitlines()
    assert lines[:3] == ["line 0", "line 1", "line 2"]
    assert lines[-2:] == ["line 998", "line 999"]
    (gap,) = [line for line in lines if "left out" in line]
    assert str(1000 - (len(lines) - 1)) in gap
    assert 3500 < len(log.text().encode()) < 4096 + 100


def test_sizes_are_bytes_not_characters() -> None:
    log = TaskLog(4096)
    for _ in range(1000):
        log.add("🥕" * 20)
    assert len(log.text().encode()) < 4096 + 100


@pytest.mark.parametrize("limit", [1024, 4096, 65_536])
def test_a_line_larger_than_everything_is_cut_and_still_there(limit: int) -> None:
    log = TaskLog(limit)
    log.add("first")
    log.add("huge " + "x" * 1_000_000 + " end of huge")
    log.add("last")
    text = log.text()
    assert text.startswith("first")
    assert "huge" in text
    assert text.endswith("last")
    assert len(text.encode()) <= limit + 1024


def test_the_version_tells_whether_there_is_anything_new() -> None:
    log = TaskLog(1024)
    assert (log.version, log.text()) == (0, "")
    log.add("x")
    log.add("x")
    assert log.version == 2


def test_the_text_is_storable_in_any_database() -> None:
    log = TaskLog(4096)
    log.add("a\0b \udc80")
    assert log.text() == "a\\x00b \\udc80"


# -- whose it is ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("captured")
@pytest.mark.parametrize("name", ["carrot", __name__, "shop.deep.module"])
@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO, logging.CRITICAL])
def test_every_logger_at_every_level_is_heard_without_any_setting(task: TaskContext, name: str, level: int) -> None:
    with entered(task):
        logging.getLogger(name).log(level, "heard")
    logging.getLogger(name).log(level, "after the task")
    assert task.log.text().count("heard") == 1
    assert "after" not in task.log.text()


def test_a_logger_that_does_not_propagate_is_heard_too(task: TaskContext, request: pytest.FixtureRequest) -> None:
    logger = logging.getLogger("test_context.proud")
    logger.propagate = False
    request.getfixturevalue("captured")
    with entered(task):
        logger.info("heard")
        logging.getLogger("test_context.proud.child").info("child")
    assert [line.rpartition(" ")[2] for line in task.log.text().splitlines()] == ["heard", "child"]
    logger.propagate = True


@pytest.mark.usefixtures("captured")
def test_two_tasks_at_once_have_a_log_each(task: TaskContext) -> None:
    other = TaskContext(unsaved_claim(), TaskLog(1024))
    together = threading.Barrier(2)

    def run() -> None:
        with entered(other):
            together.wait(5.0)
            logging.getLogger("shop").info("other")

    thread = threading.Thread(target=run)
    with entered(task):
        thread.start()
        together.wait(5.0)
        logging.getLogger("shop").info("mine")
    thread.join()
    assert task.log.text().endswith("mine")
    assert other.log.text().endswith("other")
    assert task.log.version == other.log.version == 1


@pytest.mark.usefixtures("captured")
def test_a_thread_started_in_the_context_of_a_task_logs_into_it(task: TaskContext) -> None:
    with entered(task):
        inside = contextvars.copy_context()
    assert current() is None
    thread = threading.Thread(target=lambda: inside.run(logging.getLogger("shop").info, "from its thread"))
    thread.start()
    thread.join()
    assert task.log.text().endswith("from its thread")


@pytest.mark.usefixtures("captured")
def test_a_record_that_cannot_be_formatted_harms_neither_the_task_nor_its_log(
    task: TaskContext, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    with entered(task):
        logging.getLogger("shop").info("two %s %s", "one")
        logging.getLogger("shop").info("fine")
    assert task.log.text().endswith("fine")
