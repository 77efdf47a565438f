"""Whatever a function does, it is an outcome, and the thread lives on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from carrot.context import capture_logging, current
from carrot.executor import MAX_EXCEPTION
from tests.rows import ADD
from tests.servers.process import wait_until
from tests.unit.bench import TIMEOUT, Bench

HERE = __name__


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.end()


# -- tasks ------------------------------------------------------------------------------------------------------------


def raises(name: str) -> None:
    class Hostile(Exception):
        def __str__(self) -> str:
            raise SystemExit("even this")

    errors: dict[str, BaseException] = {
        "ValueError": ValueError("a text\nof two lines"),
        "SystemExit": SystemExit(3),
        "KeyboardInterrupt": KeyboardInterrupt(),
        "GeneratorExit": GeneratorExit(),
        "Hostile": Hostile(),
        "NUL": ValueError("a\0b \udc80"),
        "huge": ValueError("x" * 100_000),
    }
    raise errors[name]


def recurses() -> None:
    recurses()


async def waits(value: int) -> int:
    await asyncio.sleep(0)
    logging.getLogger(__name__).warning("from a coroutine")
    return value + 1


async def fails_waiting() -> None:
    await asyncio.sleep(0)
    raise LookupError("not there")


def returns_no_json() -> object:
    return {1, 2}


def returns_none() -> None:
    """Nothing."""


def knows_itself() -> str:
    context = current()
    return context.claim.task if context else "nothing"


# -- outcomes ---------------------------------------------------------------------------------------------------------


def test_a_result_is_json_and_the_times_are_those_of_the_run(bench: Bench) -> None:
    outcome = bench.run(ADD, 1, 2)
    assert (outcome.status, outcome.output, outcome.exception, outcome.traceback) == ("COMPLETED", "3", "", "")
    assert outcome.start_time <= outcome.end_time
    assert bench.run(f"{HERE}.returns_none").output is None
    assert wait_until(lambda: bench.ended == 2, TIMEOUT)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ValueError", "ValueError: a text\nof two lines"),
        ("SystemExit", "SystemExit: 3"),
        ("KeyboardInterrupt", "KeyboardInterrupt"),
        ("GeneratorExit", "GeneratorExit"),
    ],
)
def test_any_exception_is_a_failure_and_the_thread_lives_on(bench: Bench, name: str, text: str) -> None:
    outcome = bench.run(f"{HERE}.raises", name)
    assert (outcome.status, outcome.exception, outcome.output) == ("FAILED", text, None)
    assert outcome.traceback.startswith("Traceback")
    assert "in raises" in outcome.traceback
    assert "carrot/executor.py" not in outcome.traceback
    assert bench.executor.alive()
    assert bench.run(ADD, 1, 2).output == "3"


def test_an_exception_that_cannot_say_what_it_is_is_a_failure_too(bench: Bench) -> None:
    outcome = bench.run(f"{HERE}.raises", "Hostile")
    assert outcome.status == "FAILED"
    assert "Hostile" in outcome.exception
    assert bench.executor.alive()


def test_texts_are_storable_in_any_database(bench: Bench) -> None:
    outcome = bench.run(f"{HERE}.raises", "NUL")
    assert outcome.exception == "ValueError: a\\x00b \\udc80"
    assert "\0" not in outcome.traceback
    outcome.traceback.encode()
    huge = bench.run(f"{HERE}.raises", "huge")
    assert len(huge.exception) <= MAX_EXCEPTION


def test_endless_recursion_is_a_failure(bench: Bench) -> None:
    outcome = bench.run(f"{HERE}.recurses")
    assert outcome.exception.startswith("RecursionError")
    assert len(outcome.traceback) < 10_000
    assert bench.run(ADD, 1, 2).output == "3"


def test_coroutines_are_run_and_log_into_their_task(bench: Bench) -> None:
    handler = capture_logging()
    try:
        outcome = bench.run(f"{HERE}.waits", 1)
    finally:
        logging.getLogger().removeHandler(handler)
    assert outcome.output == "2"
    assert outcome.log.endswith(f"WARNING {HERE}: from a coroutine")
    assert bench.run(f"{HERE}.fails_waiting").exception == "LookupError: not there"


def test_a_result_that_is_no_json_is_kept_as_marked_text(bench: Bench) -> None:
    outcome = bench.run(f"{HERE}.returns_no_json")
    assert outcome.status == "COMPLETED"
    assert '"__carrot__": "repr"' in (outcome.output or "")


def test_a_task_that_is_gone_from_the_code_fails_with_the_cure(bench: Bench) -> None:
    outcome = bench.run("tests.app.tasks.gone")
    assert outcome.status == "FAILED"
    assert "tests.app.tasks.gone" in outcome.exception


@pytest.mark.parametrize("origin", ["admin", "message"])
def test_what_does_not_come_from_code_runs_registered_tasks_only(bench: Bench, origin: str) -> None:
    assert bench.run(ADD, 1, 2, origin=origin).output == "3"
    outcome = bench.run(f"{HERE}.returns_none", origin=origin)
    assert outcome.status == "FAILED"
    assert "not registered" in outcome.exception
    assert bench.run(f"{HERE}.returns_none", origin="schedule").status == "COMPLETED"


def test_a_task_knows_itself_and_nothing_is_left_of_it(bench: Bench) -> None:
    assert bench.run(f"{HERE}.knows_itself").output == f'"{HERE}.knows_itself"'
    assert bench.executor.running == [None, None]
    assert current() is None
