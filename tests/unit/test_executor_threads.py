"""What the threads of an executor share with the claimer, and with the database."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest
from django.db import connection, transaction

from carrot.context import capture_logging
from carrot.models.claim import Claim
from tests.app.models import Effect
from tests.marks import committing
from tests.rows import ADD, unsaved_claim
from tests.servers.process import wait_until
from tests.unit.bench import TIMEOUT, Bench

HERE = __name__
NOOP = "tests.app.tasks.noop"
gate = threading.Event()


@pytest.fixture
def bench() -> Iterator[Bench]:
    gate.clear()
    bench = Bench()
    yield bench
    gate.set()
    bench.end()


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
    bench.slot.prolong(0.0, 0.0)
    bench.executor.put(unsaved_claim(ADD, 1, 2, id=7))
    assert wait_until(bench.executor.waiting, TIMEOUT)
    assert wait_until(lambda: bench.executor.load() == 0, TIMEOUT)
    assert [claim.id for claim in bench.executor.take_back()] == [7]
    assert bench.outcomes.empty()
    bench.slot.prolong(float("inf"), 30.0)
    assert bench.run(ADD, 1, 2).output == "3"


def test_the_mean_run_time_is_unknown_first_and_follows_the_tasks(bench: Bench) -> None:
    assert bench.executor.mean < 0
    bench.run(NOOP)
    assert wait_until(lambda: bench.ended == 1, TIMEOUT)
    assert 0 <= bench.executor.mean < 0.1


# -- the database of a task -------------------------------------------------------------------------------------------


@committing
@pytest.mark.parametrize("task", ["leaves_a_transaction_open", "turns_autocommit_off"])
def test_a_transaction_left_open_is_rolled_back_and_the_next_task_finds_a_clean_connection(task: str) -> None:
    bench = Bench(threads=1)
    try:
        handler = capture_logging()
        try:
            outcome = bench.run(f"{HERE}.{task}")
        finally:
            logging.getLogger().removeHandler(handler)
        assert outcome.status == "COMPLETED"
        assert "left a transaction open" in outcome.log
        assert not Effect.objects.exists()
        assert bench.run(f"{HERE}.uses_the_database").output == "0"
        assert bench.run("tests.app.tasks.record_effect", "x").output == "1"
        assert Effect.objects.count() == 1
    finally:
        bench.end()


@committing
def test_a_task_may_close_its_connection(bench: Bench) -> None:
    for _ in range(2):
        assert bench.run(f"{HERE}.uses_the_database").status == "COMPLETED"
        assert bench.run(f"{HERE}.closes_its_connection").status == "COMPLETED"
    assert bench.run(f"{HERE}.uses_the_database").output == "0"
