"""A failure and what its callbacks write are one transaction: heard of once, whatever the database does meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError, connection

from carrot import consumer as module
from carrot.atomic import MAX_BROKEN
from carrot.conf import get_queue
from carrot.consumer import Consumer, make_consumer, record_failure
from carrot.models import MessageLog, Status
from carrot.models.claim import Outcome
from carrot.models.recording import write_outcomes
from tests.app.models import Effect
from tests.marks import committing
from tests.rows import claim_of, new_row, outcome_of, status_of

pytestmark = committing
ERROR = ValueError("the task failed")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY", 0.001)


@pytest.fixture
def outcome() -> Outcome:
    return outcome_of(claim_of(new_row()), "FAILED")


def hearing(callback: Callable[[int], None]) -> tuple[Consumer, list[int]]:
    """A consumer whose callback leaves an effect, then does what is asked of it with the number of the call."""
    calls: list[int] = []

    def hear(log: MessageLog, error: BaseException) -> None:
        assert (log.status, error) == (Status.FAILED, ERROR)
        calls.append(len(calls) + 1)
        Effect.objects.create(message_id="heard", attempt=calls[-1], pid=1)
        callback(calls[-1])

    consumer = make_consumer(get_queue("default"))
    consumer.add_failure_callback(hear)
    return consumer, calls


def effects() -> list[int]:
    return list(Effect.objects.values_list("attempt", flat=True))


def test_a_failure_is_heard_of_and_written_together(outcome: Outcome) -> None:
    consumer, calls = hearing(lambda _: None)
    assert record_failure(consumer, outcome, ERROR) is None
    assert (calls, effects()) == ([1], [1])
    assert status_of(MessageLog.objects.get()) == Status.FAILED


def test_after_a_deadlock_it_is_heard_of_again(outcome: Outcome, monkeypatch: pytest.MonkeyPatch) -> None:
    def callback(number: int) -> None:
        if number == 1:
            raise OperationalError("database is locked")

    monkeypatch.setattr(module.database, "broke_off", lambda error, *_: isinstance(error, OperationalError))
    consumer, calls = hearing(callback)
    assert record_failure(consumer, outcome, ERROR) is None
    assert (calls, effects()) == ([1, 2], [2])
    assert status_of(MessageLog.objects.get()) == Status.FAILED


def test_where_the_answer_to_the_commit_was_lost_it_is_not_heard_of_again(
    outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = connection._commit  # type: ignore[attr-defined]
    lost = [True]

    def commit_and_lose_the_answer() -> None:
        commit()
        if effects_stand() and lost.pop():
            connection.connection.close()
            raise OperationalError("server closed the connection unexpectedly")

    def effects_stand() -> bool:
        return bool(calls and lost)

    monkeypatch.setattr(connection, "_commit", commit_and_lose_the_answer)
    consumer, calls = hearing(lambda _: None)
    assert record_failure(consumer, outcome, ERROR) is None
    assert not lost
    assert (calls, effects()) == ([1], [1])
    assert status_of(MessageLog.objects.get()) == Status.FAILED


def test_a_callback_that_breaks_every_transaction_is_given_up(
    outcome: Outcome, caplog: pytest.LogCaptureFixture
) -> None:
    def callback(_: int) -> None:
        connection.connection.close()
        Effect.objects.count()

    consumer, calls = hearing(callback)
    with caplog.at_level(logging.ERROR):
        rest = record_failure(consumer, outcome, ERROR)
    assert len(calls) == MAX_BROKEN
    assert rest is not None
    assert "A failure callback raised" in rest.log
    assert "A failure callback of queue default raised" in caplog.text
    assert effects() == []


def test_of_a_claim_that_is_no_longer_ours_nobody_hears(outcome: Outcome) -> None:
    MessageLog.objects.release([(outcome.claim.id, outcome.claim.fence)])
    consumer, calls = hearing(lambda _: None)
    assert record_failure(consumer, outcome, ERROR) is None
    assert calls == []


def test_a_database_that_is_away_is_waited_for(outcome: Outcome, monkeypatch: pytest.MonkeyPatch) -> None:
    away = [OperationalError("away")] * (2 * MAX_BROKEN)

    def write(*args: Any, **kwargs: Any) -> set[int]:
        if away:
            connection.connection.close()
            raise away.pop()
        return write_outcomes(*args, **kwargs)

    monkeypatch.setattr("carrot.models.recording.write_outcomes", write)
    consumer, calls = hearing(lambda _: None)
    assert record_failure(consumer, outcome, ERROR) is None
    assert calls == [1]
    assert effects() == [1]
