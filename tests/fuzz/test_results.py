"""Results, exceptions and logs: whatever a task does, its row says COMPLETED or FAILED, in text that can be stored."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from carrot.arguments import clean_text
from carrot.board import Board
from carrot.context import TaskLog, capture_logging
from carrot.executor import MAX_EXCEPTION, MAX_TRACEBACK, Executor
from carrot.models import MessageLog, Status
from carrot.models.claim import Held, Outcome
from carrot.not_json import MAX_DEPTH, depth
from carrot.recorder import Recorder
from tests.fuzz.strategies import Wrapped, examples, json_values, texts, values
from tests.marks import committing
from tests.rows import ADD, new_row, new_worker
from tests.servers.process import wait_until

HERE = __name__
LIMIT = 4096
TIMEOUT = 60.0
MEGABYTES = 50 * 1024 * 1024

#: Of its own, as pytest takes a line that cannot be formatted for a failure.
logger = logging.getLogger("tests.fuzz.results")
logger.propagate = False

#: What the tasks do, by the number that is their argument.
acts: list[Callable[[], Any]] = []


def act(number: int) -> Any:
    """The task."""
    return acts[number]()


class Line:
    """The executor of a worker and its recorder, with real rows."""

    def __init__(self) -> None:
        slot = Board(1, 4).slots[0]
        slot.prolong(float("inf"), 30.0)
        self.held: Held = {}
        self.done: list[Outcome] = []
        self.recorder = Recorder(self.held, list, self.done.append)
        self.executor = Executor(
            "default",
            1,
            slot,
            1,
            lambda ended: self.recorder.put(ended.outcome),
            lambda: None,
            log_limit=LIMIT,
            output_limit=LIMIT,
            patience=0.0,
        )
        self.worker = new_worker()
        self.recorder.start()

    def run(self, *what: Callable[[], Any]) -> list[MessageLog]:
        """A task for each, and one more that adds; their rows afterwards, in this order."""
        acts[:] = what
        rows = [new_row(task=f"{HERE}.act", args=[number]) for number in range(len(what))]
        rows.append(new_row(task=ADD, args=[1, 2]))
        claims = MessageLog.objects.claim([row.uuid for row in rows], self.worker.pk)
        for row in rows:
            claim = claims[row.uuid]
            self.held[claim.id, claim.fence] = claim
            self.executor.put(claim)
        wait_until(lambda: len(self.done) == len(rows) or not self.executor.alive(), TIMEOUT)
        assert self.executor.alive(), "a task ended its thread"
        assert len(self.done) == len(rows), "an outcome is lost"
        self.done.clear()
        assert not self.held
        for row in rows:
            row.refresh_from_db()
            assert_whole(row)
        assert (rows[-1].status, rows[-1].output) == (Status.COMPLETED, 3)
        return rows[:-1]

    def end(self) -> None:
        self.executor.stop()
        self.recorder.finish()
        self.recorder.join(TIMEOUT)


def assert_whole(row: MessageLog) -> None:
    assert row.status in (Status.COMPLETED, Status.FAILED)
    assert bool(row.exception) == bool(row.traceback) == (row.status == Status.FAILED)
    for text, limit in ((row.exception, MAX_EXCEPTION), (row.traceback, MAX_TRACEBACK), (row.log, LIMIT + 2048)):
        assert "\0" not in text
        assert len(text.encode()) <= limit
    assert len(json.dumps(row.output, ensure_ascii=False).encode()) <= LIMIT


@pytest.fixture
def line(transactional_db: None) -> Iterator[Line]:
    handler = capture_logging()
    logger.addHandler(handler)
    line = Line()
    yield line
    line.end()
    logger.removeHandler(handler)
    logging.getLogger().removeHandler(handler)


# -- results ----------------------------------------------------------------------------------------------------------


def returns(value: Any) -> Callable[[], Any]:
    return lambda: value


@committing
@examples(30)
@given(st.lists(values.map(Wrapped), max_size=8))
def test_any_result_is_stored_or_a_text_in_its_place(line: Line, results: list[Wrapped]) -> None:
    for row in line.run(*(returns(result.value) for result in results)):
        assert row.status == Status.COMPLETED, row.exception


@committing
@examples(20)
@given(st.lists(json_values, max_size=8))
def test_a_json_result_that_can_be_stored_is_stored_as_it_is(line: Line, results: list[Any]) -> None:
    for row, result in zip(line.run(*map(returns, results)), results, strict=True):
        text = json.dumps(result, ensure_ascii=False)
        if "\\u0000" in text or text.encode(errors="ignore").decode() != text or depth(result) > MAX_DEPTH:
            assert row.output["__carrot__"] == "repr"
        else:
            assert row.output == result


# -- exceptions -------------------------------------------------------------------------------------------------------


class TextThatRaises(Exception):
    """Its text is a text whose every use raises."""

    class Text(str):
        __slots__ = ()

        def __bool__(self) -> bool:
            raise RuntimeError

        __len__ = __format__ = __str__ = __bool__  # type: ignore[assignment]

    def __str__(self) -> str:
        return self.Text("text")


class Silent(BaseException):
    """No ``Exception``, without a text."""

    def __str__(self) -> str:
        raise SystemExit


def circle() -> Exception:
    """Two exceptions, each the cause of the other."""
    one, other = ValueError("one"), KeyError("other")
    one.__cause__, other.__cause__ = other, one
    return one


def chain(length: int) -> Exception:
    error = ValueError("first")
    for number in range(length):
        following = ValueError(number)
        following.__context__ = error
        error = following
    return error


def group(levels: int) -> Exception:
    """Groups in each other, where Python has them."""
    error: Exception = ValueError("\udc80\0")
    for number in range(levels if sys.version_info >= (3, 11) else 0):
        error = ExceptionGroup(f"group {number}", [error, TextThatRaises()])  # noqa: F821
    return error


def noted(*notes: object) -> Exception:
    error = ValueError("noted")
    error.__notes__ = notes  # type: ignore[attr-defined]
    return error


kinds = st.sampled_from(
    [Exception, ValueError, KeyError, OSError, SystemExit, KeyboardInterrupt, GeneratorExit, Silent]
)
errors = st.one_of(
    st.builds(lambda kind, args: kind(*args), kinds, st.lists(values, max_size=3)),
    st.builds(lambda *args: SyntaxError("text", args), texts, values, values, values),
    st.builds(noted, values, texts),
    st.builds(TextThatRaises),
    st.builds(circle),
)


def raises(error: BaseException) -> Callable[[], Any]:
    def raise_it() -> None:
        raise error

    return raise_it


@committing
@examples(30)
@given(st.lists(errors.map(Wrapped), max_size=8))
@example([Wrapped(TextThatRaises()), Wrapped(Silent()), Wrapped(circle())])
@example([Wrapped(group(3)), Wrapped(group(3000)), Wrapped(chain(3000)), Wrapped(noted(None, 5, "\0"))])
def test_any_exception_is_a_failure_that_can_be_stored(line: Line, errors: list[Wrapped]) -> None:
    for row in line.run(*(raises(error.value) for error in errors)):
        assert row.status == Status.FAILED


# -- logs -------------------------------------------------------------------------------------------------------------


def logs(lines: Sequence[tuple[Any, Any]]) -> Callable[[], Any]:
    def log_them() -> str:
        for text, argument in lines:
            logger.warning(text, *([] if argument is None else [argument]))
        return "done"

    return log_them


@committing
@examples(20)
@given(st.lists(st.lists(st.tuples(texts | values, st.none() | values), max_size=4).map(Wrapped), max_size=5))
@example([Wrapped([("%s", "\0"), ("\udc80", None), ("a\nb\r\n", None), ("%d", "no number")])])
def test_any_log_line_is_kept_or_left_out(line: Line, tasks: list[Wrapped]) -> None:
    line.run(*(logs(task.value) for task in tasks))


@given(st.lists(texts | st.integers(0, 5000).map(lambda size: "é" * size)), st.integers(1024, 8192))
@example(["é" * 900] * 20, 4096)
def test_a_log_keeps_its_first_and_its_last_line_within_its_size(lines: list[str], limit: int) -> None:
    log = TaskLog(limit)
    for text in lines:
        log.add(text)
    kept = log.text()
    assert len(kept.encode()) <= limit + 2048
    assert "\0" not in kept
    if all(clean_text(text, len(text) * 10) == text for text in lines):
        assert "bytes cut" not in kept, "so much was kept in memory"
    if len("\n".join(lines).encode("utf-8", "surrogatepass")) < limit // 2:
        assert len(kept.split("\n")) == len("\n".join(lines).split("\n"))


@committing
@pytest.mark.parametrize("act", ["result", "exception", "log"])
def test_fifty_megabytes_are_cut(line: Line, act: str) -> None:
    text = "é\0x\udc80" * (MEGABYTES // 4)
    acts = {"result": returns([text]), "exception": raises(ValueError(text)), "log": logs([(text, None)])}
    [row] = line.run(acts[act])
    assert row.status == (Status.FAILED if act == "exception" else Status.COMPLETED)
