"""What a stranger says in the name of a task, in a message or in an exception forges no line of a log."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika
import pytest

from carrot import clock, logs, worker
from carrot.admin import task_log
from carrot.brokers.amqp.intake import Delivery, Intake
from carrot.conf import get_queue
from carrot.context import TaskContext, TaskLog, TaskLogHandler, entered
from carrot.daemon_log import DaemonLog
from carrot.models.claim import Outcome
from tests.rows import unsaved_claim
from tests.security import hostile

TEXTS = [
    pytest.param(text, id=name) for name, text in zip((*hostile.NAMES, "nul"), hostile.texts(nul=True), strict=True)
]
#: A line of the service's log, and of a task's.
BEGINS = {
    "service": re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ [\w.]+: "),
    "task": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [A-Z]+ [\w.]+: "),
}
#: Where somebody who shows the text might see the end of a line.
BREAKS = re.compile("[\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029]")


@pytest.fixture
def lines(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """The file of a service that logs everything, in the foreground and as a daemon."""
    path = tmp_path / "carrot.log"
    handler = request.param(str(path))
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield path
    root.removeHandler(handler)
    root.setLevel(level)
    handler.close()


in_both_logs = pytest.mark.parametrize("lines", [logs.LogFile, DaemonLog], indirect=True)


def assert_honest(path: Path, count: int) -> None:
    """The file has so many records; all else is indented, and there is nothing that a terminal obeys."""
    text = path.read_bytes().decode()
    found = BREAKS.split(text.removesuffix("\n"))
    begun = [line for line in found if BEGINS["service"].match(line)]
    assert len(begun) == count, text
    assert all(line.startswith("    ") for line in found if line not in begun), text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text), text
    assert hostile.TOKEN in text


def outcome_of(text: str) -> Outcome:
    now = clock.now()
    return Outcome(unsaved_claim(text), "FAILED", now, now, None, "", f"ValueError: {text}", "")


@in_both_logs
@pytest.mark.parametrize("text", TEXTS)
def test_in_the_name_of_a_task_and_in_an_exception(lines: Path, text: str) -> None:
    worker._log_outcome(outcome_of(text))
    try:
        raise ValueError(text)
    except ValueError:
        logging.getLogger("carrot.tasks").exception("%s raised", text)
    assert_honest(lines, 2)


@in_both_logs
@pytest.mark.parametrize("text", TEXTS)
def test_in_a_message(lines: Path, text: str, db: None, settings: Any) -> None:
    """Properties, headers and body of a stranger's message."""
    adopt_fails = Intake(
        get_queue("default"), lambda properties, body: exec("raise ValueError(body)", {"body": body.decode()})
    )
    properties = pika.BasicProperties(
        message_id=text, type=text, headers={"type": text, text: text, "carrot": {"v": text}}, correlation_id=text
    )
    for each in (Intake(get_queue("default"), None), adopt_fails):
        each.take([Delivery(1, 1, properties, text.encode())], 1)
    assert_honest(lines, 3)


def test_lone_surrogates_are_written_and_lose_no_line(tmp_path: Path) -> None:
    log = logs.LogFile(str(tmp_path / "carrot.log"))
    log.handle(logging.makeLogRecord({"msg": "half of \udcf0 one", "name": "shop", "levelname": "INFO"}))
    log.close()
    assert "half of \\udcf0 one" in (tmp_path / "carrot.log").read_text()


def test_the_console_is_no_less_careful(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    before = root.level
    try:
        logs.configure(str(tmp_path / "carrot.log"), logging.DEBUG)
        worker._log_outcome(outcome_of(hostile.text("unseen")))
    finally:
        root.handlers[-1].close()
        root.setLevel(before)
    shown = capsys.readouterr().out
    assert "␛[2J" in shown
    assert "\x1b" not in shown


# -- the log of a task ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", TEXTS)
def test_in_the_log_of_a_task(text: str) -> None:
    context = TaskContext(unsaved_claim(), TaskLog(65_536))
    handler = TaskLogHandler()
    with entered(context):
        for name in ("shop", "carrot"):
            handler.handle(logging.LogRecord(name, logging.DEBUG, __file__, 1, text, None, None))
    stored = context.log.text()
    found = BREAKS.split(stored)
    begun = [line for line in found if BEGINS["task"].match(line)]
    assert len(begun) == 2, stored
    assert all(line.startswith("    ") for line in found if line not in begun), stored
    # and the page takes it apart as two records, none of which is more than the other
    shown = task_log.read(stored, "DEBUG")
    assert [entry.level for entry in shown.entries] == ["DEBUG", "DEBUG"]
    assert task_log.read(stored, "INFO").entries == ()
