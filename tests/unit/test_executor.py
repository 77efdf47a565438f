"""Whatever a function does, it is an outcome, and the thread lives on."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import pytest
from django.db import connection, transaction

from carrot.board import Board, Slot
from carrot.context import capture_logging, current
from carrot.executor import MAX_EXCEPTION, Executor
from carrot.models.transitions import Claim, Outcome
from tests.app.models import Effect
from tests.rows import ADD, unsaved_claim
from tests.servers.process import wait_until

HERE = __name__
TIMEOUT = 10.0


class Bench:
    """An executor of two threads under a lease that holds, and the outcomes that came of it."""

    def __init__(self, threads: int = 2) -> None:
        self.slot: Slot = Board(1, 4).slots[0]
        self.slot.prolong(float("inf"))
        self.outcomes: SimpleQueue[tuple[Outcome, BaseException | None]] = SimpleQueue()
        self.ended = 0
        self.executor = Executor(
            "default", threads, self.slot, 1, self._finished, self._ended, log_limit=4096, output_limit=4096
        )

    def _finished(self, outcome: Outcome, error: BaseException | None) -> None:
        self.outcomes.put((outcome, error))

    def _ended(self) -> None:
        self.ended += 1

    def run(self, task: str, *args: Any, **changes: Any) -> Outcome:
        """Runs one task and returns what came of it."""
        self.executor.put(unsaved_claim(task if "." in task else f"{HERE}.{task}", *args, **changes))
        return self.outcomes.get(timeout=TIMEOUT)[0]

    def end(self) -> None:
        gate.set()
        self.executor.stop()
        for thread in self.executor._threads:
            thread.join(TIMEOUT)
        assert not any(thread.is_alive() for thread in self.executor._threads)


@pytest.fixture
def bench() -> Iterator[Bench]:
    gate.clear()
    bench = Bench()
    yield bench
    bench.end()


# -- tasks ------------------------------------------------------------------------------------------------------------

gate = threading.Event()


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


def blocks() -> None:
    gate.wait(TIMEOUT)


def leaves_a_transaction_open() -> None:
    atomic = transaction.atomic()
    atomic.__enter__()
    Effect.objects.create(message_id="unfinished", attempt=1, pid=1)


def turns_autocommit_off() -> None:
    transaction.set_autocommit(False)
    Effect.objects.create(message_id="unfinished", attempt=1, pid=1)


def closes_its_connection() -> None:
    connection.close()


def uses_the_database() -> int:
    return Effect.objects.count()


def knows_itself() -> str:
    context = current()
    return context.claim.task if context else "nothing"


# -- outcomes ---------------------------------------------------------------------------------------------------------


def test_a_result_is_json_and_the_times_are_those_of_the_run(bench: Bench) -> None:
    outcome = bench.run(ADD, 1, 2)
    assert (outcome.status, outcome.output, outcome.exception, outcome.traceback) == ("COMPLETED", "3", "", "")
    assert outcome.start_time <= outcome.end_time
    assert bench.run("returns_none").output is None
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
    outcome = bench.run("raises", name)
    assert (outcome.status, outcome.exception, outcome.output) == ("FAILED", text, None)
    assert outcome.traceback.startswith("Traceback")
    assert "in raises" in outcome.traceback
    assert "carrot/executor.py" not in outcome.traceback
    assert bench.executor.alive()
    assert bench.run(ADD, 1, 2).output == "3"


def test_an_exception_that_cannot_say_what_it_is_is_a_failure_too(bench: Bench) -> None:
    outcome = bench.run("raises", "Hostile")
    assert outcome.status == "FAILED"
    assert "Hostile" in outcome.exception
    assert bench.executor.alive()


def test_texts_are_storable_in_any_database(bench: Bench) -> None:
    outcome = bench.run("raises", "NUL")
    assert outcome.exception == "ValueError: a\\x00b \\udc80"
    assert "\0" not in outcome.traceback
    outcome.traceback.encode()
    huge = bench.run("raises", "huge")
    assert len(huge.exception) <= MAX_EXCEPTION


def test_endless_recursion_is_a_failure(bench: Bench) -> None:
    outcome = bench.run("recurses")
    assert outcome.exception.startswith("RecursionError")
    assert len(outcome.traceback) < 10_000
    assert bench.run(ADD, 1, 2).output == "3"


def test_coroutines_are_run_and_log_into_their_task(bench: Bench) -> None:
    handler = capture_logging()
    try:
        outcome = bench.run("waits", 1)
    finally:
        logging.getLogger().removeHandler(handler)
    assert outcome.output == "2"
    assert outcome.log.endswith(f"WARNING {HERE}: from a coroutine")
    assert bench.run("fails_waiting").exception == "LookupError: not there"


def test_a_result_that_is_no_json_is_kept_as_marked_text(bench: Bench) -> None:
    outcome = bench.run("returns_no_json")
    assert outcome.status == "COMPLETED"
    assert '"__carrot__": "repr"' in (outcome.output or "")


def test_a_task_that_is_gone_from_the_code_fails_with_the_cure(bench: Bench) -> None:
    outcome = bench.run("tests.app.tasks.gone")
    assert outcome.status == "FAILED"
    assert "tests.app.tasks.gone" in outcome.exception


@pytest.mark.parametrize("origin", ["admin", "message"])
def test_what_does_not_come_from_code_runs_registered_tasks_only(bench: Bench, origin: str) -> None:
    assert bench.run(ADD, 1, 2, origin=origin).output == "3"
    outcome = bench.run("returns_none", origin=origin)
    assert outcome.status == "FAILED"
    assert "not registered" in outcome.exception
    assert bench.run("returns_none", origin="schedule").status == "COMPLETED"


def test_a_task_knows_itself_and_nothing_is_left_of_it(bench: Bench) -> None:
    assert bench.run("knows_itself").output == f'"{HERE}.knows_itself"'
    assert bench.executor.running == [None, None]
    assert current() is None


# -- the database of a task -------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("task", ["leaves_a_transaction_open", "turns_autocommit_off"])
def test_a_transaction_left_open_is_rolled_back_and_the_next_task_finds_a_clean_connection(task: str) -> None:
    gate.clear()
    bench = Bench(threads=1)
    try:
        handler = capture_logging()
        try:
            outcome = bench.run(task)
        finally:
            logging.getLogger().removeHandler(handler)
        assert outcome.status == "COMPLETED"
        assert "left a transaction open" in outcome.log
        assert not Effect.objects.exists()
        assert bench.run("uses_the_database").output == "0"
        assert bench.run("tests.app.tasks.record_effect", "x").output == "1"
        assert Effect.objects.count() == 1
    finally:
        bench.end()


@pytest.mark.django_db(transaction=True)
def test_a_task_may_close_its_connection(bench: Bench) -> None:
    for _ in range(2):
        assert bench.run("uses_the_database").status == "COMPLETED"
        assert bench.run("closes_its_connection").status == "COMPLETED"
    assert bench.run("uses_the_database").output == "0"


# -- what the claimer sees --------------------------------------------------------------------------------------------


def claims(count: int) -> list[Claim]:
    return [unsaved_claim(f"{HERE}.blocks", id=number) for number in range(1, count + 1)]


def test_what_no_thread_has_begun_can_be_taken_back(bench: Bench) -> None:
    for claim in claims(5):
        bench.executor.put(claim)
    assert wait_until(lambda: all(bench.executor.running), TIMEOUT)
    assert bench.executor.load() == 5
    assert bench.executor.waiting()
    assert [claim.id for claim in bench.executor.take_back()] == [3, 4, 5]
    assert (bench.executor.load(), bench.executor.ended()) == (2, 0)
    assert not bench.executor.waiting()
    assert sorted(bench.slot.suspects()) == [1, 2]
    gate.set()
    assert wait_until(lambda: bench.executor.load() == 0, TIMEOUT)
    assert bench.executor.ended() == 2
    assert bench.slot.suspects() == []


def test_words_to_stop_survive_taking_back(bench: Bench) -> None:
    bench.executor.put(claims(1)[0])
    bench.executor.put(claims(1)[0])
    assert wait_until(lambda: all(bench.executor.running), TIMEOUT)
    bench.executor.put(claims(1)[0])
    bench.executor.stop()
    assert len(bench.executor.take_back()) == 1
    gate.set()
    assert wait_until(lambda: not bench.executor.alive(), TIMEOUT)


def test_nothing_is_started_once_the_lease_could_be_over(bench: Bench) -> None:
    bench.slot.prolong(0.0)
    bench.executor.put(unsaved_claim(ADD, 1, 2, id=7))
    assert wait_until(bench.executor.waiting, TIMEOUT)
    assert wait_until(lambda: bench.executor.load() == 0, TIMEOUT)
    assert [claim.id for claim in bench.executor.take_back()] == [7]
    assert bench.outcomes.empty()
    bench.slot.prolong(float("inf"))
    assert bench.run(ADD, 1, 2).output == "3"


def test_the_mean_run_time_is_unknown_first_and_follows_the_tasks(bench: Bench) -> None:
    assert bench.executor.mean < 0
    bench.run("returns_none")
    assert wait_until(lambda: bench.ended == 1, TIMEOUT)
    assert 0 <= bench.executor.mean < 0.1
