"""The work of an atomic task and its end are committed together or not at all, whatever breaks in between."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import IntegrityError, OperationalError, connection, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from carrot import task
from carrot.atomic import FIRST_DELAY, JITTER, MAX_BROKEN
from carrot.context import capture_logging
from carrot.executor import Ended
from carrot.models import MessageLog, Status
from carrot.models.claim import Claim
from carrot.models.recording import write_outcomes
from carrot.utilities import publish_message
from tests.app.models import Effect
from tests.marks import committing
from tests.rows import ADD, claim_of, in_seconds, new_row, outcome_of, status_of
from tests.unit.bench import TIMEOUT, Bench

pytestmark = committing
HERE = __name__


# -- tasks ------------------------------------------------------------------------------------------------------------


def _leave(name: str) -> None:
    Effect.objects.create(message_id=name, attempt=1, pid=1)


@task(atomic=True)
def works(name: str) -> str:
    _leave(name)
    logging.getLogger(__name__).warning("at work")
    return name.upper()


@task(atomic=True)
async def works_in_a_coroutine(name: str) -> None:
    await Effect.objects.acreate(message_id=name, attempt=1, pid=1)


@task(atomic=True)
def publishes_and_fails(name: str) -> None:
    _leave(name)
    publish_message(ADD, 1, 2)
    raise LookupError("on purpose")


@task(atomic=True)
def publishes(name: str) -> None:
    _leave(name)
    publish_message(ADD, 1, 2)


@task(atomic=True)
def exits(name: str) -> None:
    _leave(name)
    raise SystemExit(1)


@task(atomic=True)
def swallows_an_error(name: str) -> None:
    _leave(name)
    try:
        Effect.objects.create(message_id=name, attempt=None, pid=1)
    except IntegrityError:
        logging.getLogger(__name__).warning("as if nothing had happened")


@task(atomic=True)
def raises_after_its_commit(name: str) -> None:
    _leave(name)

    def hook() -> None:
        raise LookupError("in a hook")

    transaction.on_commit(hook)


@task(atomic=True)
def loses_its_connection(name: str) -> None:
    _leave(name)
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    raise OperationalError("database is locked")  # what SQLite says


@task(atomic=True)
def loses_its_connection_and_says_so(name: str) -> None:
    _leave(name)
    connection.connection.close()
    raise LookupError("the storage does not answer")


@task(atomic=True)
def is_refused(name: str, state: str) -> None:
    _leave(name)
    with connection.cursor() as cursor:
        cursor.execute(f"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{state}'; END $$")


# -- the bench --------------------------------------------------------------------------------------------------------


class AtomicBench(Bench):
    """An executor that runs claims of real rows."""

    def run_claim(self, claim: Claim) -> Ended:
        self.executor.put(claim)
        return self.outcomes.get(timeout=TIMEOUT)

    def run_row(self, name: str, *args: Any, **changes: Any) -> tuple[MessageLog, Ended]:
        """Runs the task of this module called ``name``; returns its row as it is afterwards, and what came of it."""
        row = new_row(task=f"{HERE}.{name}", args=list(args), **changes)
        ended = self.run_claim(claim_of(row))
        row.refresh_from_db()
        return row, ended


@pytest.fixture
def bench() -> Iterator[AtomicBench]:
    bench = AtomicBench(threads=1)
    yield bench
    bench.end()


def effects() -> list[str]:
    return list(Effect.objects.order_by("pk").values_list("message_id", flat=True))


@pytest.fixture
def at_commit(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Callable[[], None]], None]], None]:
    """Has a function commit in place of the connection, once: it is given the true commit."""

    def install(commit: Callable[[Callable[[], None]], None]) -> None:
        true_commit = BaseDatabaseWrapper._commit

        def broken(self: BaseDatabaseWrapper) -> None:
            monkeypatch.setattr(BaseDatabaseWrapper, "_commit", true_commit)
            commit(lambda: true_commit(self))
            self.connection.close()
            raise OperationalError("server closed the connection unexpectedly")

        monkeypatch.setattr(BaseDatabaseWrapper, "_commit", broken)

    return install


# -- what is committed ------------------------------------------------------------------------------------------------


def test_the_work_and_the_end_are_written_when_the_executor_hands_the_outcome_on(bench: AtomicBench) -> None:
    handler = capture_logging()
    try:
        row, ended = bench.run_row("works", "one")
    finally:
        logging.getLogger().removeHandler(handler)
    assert (ended.outcome.status, ended.written, ended.error) == ("COMPLETED", True, None)
    assert (row.status, row.output, row.tries, row.fence) == (Status.COMPLETED, "ONE", 1, 1)
    assert row.start_time is not None
    assert row.completion_time is not None
    assert "at work" in row.log
    assert effects() == ["one"]


def test_the_work_of_a_coroutine_is_part_of_the_transaction(
    bench: AtomicBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, _ended = bench.run_row("works_in_a_coroutine", "one")
    assert (row.status, effects()) == (Status.COMPLETED, ["one"])
    monkeypatch.setattr("carrot.models.recording.write_outcomes", lambda *_args, **_options: set())
    bench.run_row("works_in_a_coroutine", "two")
    assert effects() == ["one"]


def test_what_it_publishes_is_published_with_its_commit(bench: AtomicBench) -> None:
    bench.run_row("publishes", "one")
    assert MessageLog.objects.filter(task=ADD, status=Status.PUBLISHED).count() == 1


@pytest.mark.parametrize("name", ["publishes_and_fails", "exits", "swallows_an_error"])
def test_of_a_task_that_fails_nothing_is_committed(bench: AtomicBench, name: str) -> None:
    row, ended = bench.run_row(name, "one")
    assert (ended.outcome.status, ended.written) == ("FAILED", False)  # the recorder's to write
    assert ended.error is not None
    assert row.status == Status.IN_PROGRESS
    assert effects() == []
    assert not MessageLog.objects.filter(task=ADD).exists()


def test_its_traceback_begins_with_the_task(bench: AtomicBench) -> None:
    _row, ended = bench.run_row("publishes_and_fails", "one")
    frames = [line for line in ended.outcome.traceback.splitlines() if line.startswith("  File")]
    assert len(frames) == 1
    assert frames[0].endswith("in publishes_and_fails")


def test_a_hook_that_raises_after_the_commit_leaves_the_task_completed(
    bench: AtomicBench, caplog: pytest.LogCaptureFixture
) -> None:
    row, ended = bench.run_row("raises_after_its_commit", "one")
    assert (ended.outcome.status, ended.written, row.status) == ("COMPLETED", True, Status.COMPLETED)
    assert effects() == ["one"]
    assert "what it gave to on_commit() raised" in caplog.text


def test_of_two_that_run_the_same_task_one_is_committed(bench: AtomicBench) -> None:
    row = new_row(task=f"{HERE}.works", args=["one"])
    zombie = claim_of(row)
    MessageLog.objects.release([(zombie.id, zombie.fence)])
    heir = claim_of(row)
    late = bench.run_claim(zombie)
    assert (late.outcome.status, late.written) == ("FAILED", False)  # which the recorder will find too late
    assert late.outcome.exception.startswith("Superseded")
    assert effects() == []
    assert bench.run_claim(heir).outcome.status == "COMPLETED"
    assert bench.run_claim(heir).outcome.status == "FAILED"
    assert effects() == ["one"]


# -- what the database broke off --------------------------------------------------------------------------------------


def test_a_task_whose_connection_is_lost_runs_again_a_little_later(bench: AtomicBench) -> None:
    row, ended = bench.run_row("loses_its_connection", "one")
    assert (ended.outcome.status, ended.written) == ("PUBLISHED", True)
    assert (row.status, row.worker_id, row.tries) == (Status.PUBLISHED, None, 1)
    assert row.ring_at is not None
    assert in_seconds(-5) < row.ring_at <= in_seconds(FIRST_DELAY * (1 + JITTER))
    assert row.note.startswith("the database broke off its transaction: ")
    assert effects() == []
    row.task = f"{HERE}.works"
    row.save()
    assert bench.run_claim(claim_of(row)).outcome.status == "COMPLETED"
    row.refresh_from_db()
    assert (row.note, effects()) == ("", ["one"])


def test_so_does_one_that_raises_an_error_of_its_own_over_that(bench: AtomicBench) -> None:
    row, ended = bench.run_row("loses_its_connection_and_says_so", "one")
    assert (ended.outcome.status, row.status, effects()) == ("PUBLISHED", Status.PUBLISHED, [])


def test_tasks_that_were_broken_off_together_do_not_come_back_together(bench: AtomicBench) -> None:
    rows = [new_row(task=f"{HERE}.loses_its_connection", args=["one"], tries=5) for _ in range(3)]
    for row in rows:
        bench.run_claim(claim_of(row))
        row.refresh_from_db()
    sixth = FIRST_DELAY * 2**5
    delays = sorted((row.ring_at - row.state_at).total_seconds() for row in rows)
    assert sixth * (1 - JITTER) < delays[0] < delays[1] < delays[2] < sixth * (1 + JITTER)


def test_after_eight_attempts_that_were_broken_off_it_is_failed(bench: AtomicBench) -> None:
    row = new_row(task=f"{HERE}.loses_its_connection", args=["one"])
    statuses = [bench.run_claim(claim_of(row)).outcome.status for _ in range(MAX_BROKEN)]
    assert statuses == ["PUBLISHED"] * (MAX_BROKEN - 1) + ["FAILED"]


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite has no codes of errors")
@pytest.mark.parametrize(
    ("state", "status"), [("40P01", "PUBLISHED"), ("40001", "PUBLISHED"), ("53100", "PUBLISHED"), ("57014", "FAILED")]
)
def test_a_deadlock_or_a_full_disk_is_no_fault_of_the_code_and_a_statement_that_took_too_long_is(
    bench: AtomicBench, state: str, status: str
) -> None:
    _row, ended = bench.run_row("is_refused", "one", state)
    assert ended.outcome.status == status
    assert effects() == []


def test_a_commit_whose_answer_was_lost_counts(bench: AtomicBench, at_commit: Any) -> None:
    row = new_row(task=f"{HERE}.works", args=["one"])
    claim = claim_of(row)
    at_commit(lambda commit: commit())
    ended = bench.run_claim(claim)
    assert (ended.outcome.status, ended.written) == ("COMPLETED", True)
    assert (status_of(row), effects()) == (Status.COMPLETED, ["one"])


def test_a_commit_that_never_arrived_is_done_again(bench: AtomicBench, at_commit: Any) -> None:
    row = new_row(task=f"{HERE}.works", args=["one"])
    claim = claim_of(row)
    at_commit(lambda _commit: None)
    assert bench.run_claim(claim).outcome.status == "PUBLISHED"
    assert (status_of(row), effects()) == (Status.PUBLISHED, [])


def test_it_waits_for_a_database_that_is_away_to_learn_what_became_of_its_transaction(
    bench: AtomicBench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("carrot.atomic.RETRY", 0.01)
    release, refused = type(MessageLog.objects).release, []

    def away(self: Any, *args: Any, **kwargs: Any) -> int:
        if len(refused) < 3:
            refused.append(1)
            raise OperationalError("no connection")
        return release(self, *args, **kwargs)

    monkeypatch.setattr(type(MessageLog.objects), "release", away)
    row, ended = bench.run_row("loses_its_connection", "one")
    assert (ended.outcome.status, row.status, len(refused)) == ("PUBLISHED", Status.PUBLISHED, 3)
    assert caplog.text.count("An atomic task waits for the database") == 1


def test_outcomes_within_a_transaction_need_no_savepoint(django_assert_num_queries: Any) -> None:
    claim = claim_of(new_row())
    with transaction.atomic(), django_assert_num_queries(1):
        write_outcomes("default", MessageLog, [outcome_of(claim)], first_try=True)
