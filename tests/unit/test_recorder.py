"""Outcomes are written, all of them, whatever the database does meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from django.db import DataError, IntegrityError, OperationalError, connection

from carrot import recorder as module
from carrot.context import TaskContext, TaskLog
from carrot.models import MessageLog, Status
from carrot.models.claim import Claim, Held, Outcome
from carrot.models.transitions import MessageLogQuerySet
from carrot.recorder import Recorder
from tests.marks import committing
from tests.rows import claim_of, new_row, new_worker, outcome_of, status_of
from tests.servers.process import wait_until

pytestmark = committing
TIMEOUT = 10.0


class Desk:
    """A recorder, the claims it is to forget, and what it said is done."""

    def __init__(self) -> None:
        self.held: Held = {}
        self.running: list[TaskContext | None] = []
        self.done: list[Outcome] = []
        self.recorder = Recorder(self.held, lambda: self.running, self.done.append)

    def claim(self) -> Claim:
        claim = claim_of(new_row())
        self.held[claim.id, claim.fence] = claim
        return claim

    def finish(self) -> None:
        self.recorder.finish()
        self.recorder.join(TIMEOUT)
        assert not self.recorder.is_alive()


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    if desk.recorder.is_alive():
        desk.finish()


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Sequence[Outcome]], None]], list[int]]:
    """Has a function look at each batch before it is written, which may raise; returns the sizes of the batches."""

    def install(look: Callable[[Sequence[Outcome]], None]) -> list[int]:
        record, sizes = MessageLogQuerySet.record, []

        def watched(self: MessageLogQuerySet, outcomes: Sequence[Outcome]) -> set[int]:
            sizes.append(len(outcomes))
            look(outcomes)
            return record(self, outcomes)

        monkeypatch.setattr(MessageLogQuerySet, "record", watched)
        return sizes

    return install


def test_outcomes_that_came_together_are_written_together_and_forgotten(desk: Desk, database: Any) -> None:
    sizes = database(lambda _batch: None)
    claims = [desk.claim() for _ in range(3)]
    for claim in claims:
        desk.recorder.put(outcome_of(claim))
    desk.recorder.start()
    desk.finish()
    assert sizes == [3]
    assert desk.held == {}
    assert [outcome.claim.id for outcome in desk.done] == [claim.id for claim in claims]
    assert set(MessageLog.objects.values_list("status", flat=True)) == {Status.COMPLETED}


def test_a_late_outcome_is_dropped_logged_and_forgotten(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    claim = desk.claim()
    MessageLog.objects.release([(claim.id, claim.fence)])
    desk.recorder.put(outcome_of(claim))
    desk.recorder.start()
    desk.finish()
    assert desk.held == {}
    assert desk.done == []
    assert "came late" in caplog.text
    assert str(claim.uuid) in caplog.text
    assert status_of(MessageLog.objects.get()) == Status.PUBLISHED


@pytest.mark.parametrize("error", [DataError, IntegrityError, ValueError])
def test_an_outcome_that_the_database_refuses_is_found_and_replaced_and_its_neighbours_are_written(
    desk: Desk, database: Any, error: type[Exception]
) -> None:
    def refuse(batch: Sequence[Outcome]) -> None:
        if any(outcome.log == "refused" for outcome in batch):
            raise error("this text is refused")

    sizes = database(refuse)
    claims = [desk.claim() for _ in range(8)]
    for number, claim in enumerate(claims):
        desk.recorder.put(outcome_of(claim, log="refused" if number == 5 else "fine"))
    desk.recorder.start()
    desk.finish()
    assert sizes == [8, 4, 4, 2, 1, 1, 1, 2]
    assert desk.held == {}
    rows = [MessageLog.objects.get(pk=claim.id) for claim in claims]
    assert [row.log for row in rows] == ["fine"] * 5 + [""] + ["fine"] * 2
    assert rows[5].exception == f"The outcome could not be stored: {error.__name__}"
    assert {row.status for row in rows} == {Status.COMPLETED}


def test_an_outcome_that_is_refused_in_every_form_is_given_up_and_the_thread_lives_on(
    desk: Desk, database: Any, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = desk.claim(), desk.claim()

    def refuse(batch: Sequence[Outcome]) -> None:
        if any(outcome.claim.id == bad.id for outcome in batch):
            raise DataError("never")

    database(refuse)
    desk.recorder.start()
    desk.recorder.put(outcome_of(bad))
    desk.recorder.put(outcome_of(good))
    desk.finish()
    assert desk.held == {}  # the audit releases the row of the one that was given up
    assert status_of(MessageLog.objects.get(pk=good.id)) == Status.COMPLETED
    assert "refuses the outcome" in caplog.text


@pytest.mark.parametrize("text", ["a\0b", "\udc80", "x" * 3_000_000])
def test_a_text_that_slipped_through_harms_no_neighbour(desk: Desk, text: str) -> None:
    claims = [desk.claim(), desk.claim()]
    desk.recorder.put(outcome_of(claims[0], log=text))
    desk.recorder.put(outcome_of(claims[1], log="fine"))
    desk.recorder.start()
    desk.finish()
    rows = [MessageLog.objects.get(pk=claim.id) for claim in claims]
    assert [row.status for row in rows] == [Status.COMPLETED] * 2
    assert rows[0].log in (text, "")
    assert rows[1].log == "fine"
    assert desk.held == {}


def test_while_the_database_is_away_outcomes_wait_here_and_none_is_lost(
    desk: Desk, database: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    away = {"left": 3}

    def fail(_batch: Sequence[Outcome]) -> None:
        if away["left"]:
            away["left"] -= 1
            raise OperationalError("the database is away")

    monkeypatch.setattr(module, "RETRY", 0.02)
    sizes = database(fail)
    claim = desk.claim()
    desk.recorder.start()
    desk.recorder.put(outcome_of(claim))
    assert wait_until(lambda: len(sizes) == 4, TIMEOUT)
    desk.recorder.put(outcome_of(desk.claim()))
    desk.finish()
    assert caplog.text.count("wait for the database") == 1  # a long outage is no flood of lines
    assert set(MessageLog.objects.values_list("status", flat=True)) == {Status.COMPLETED}
    assert desk.held == {}
    assert len(desk.done) == 2


def test_it_is_full_when_thousands_wait(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FULL", 2)
    claim = desk.claim()
    for _ in range(2):
        desk.recorder.put(outcome_of(claim))
    assert not desk.recorder.full()
    desk.recorder.put(outcome_of(claim))
    assert desk.recorder.full()


def test_a_batch_is_no_larger_than_its_bound(desk: Desk, database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 2)
    sizes = database(lambda _batch: None)
    for _ in range(5):
        desk.recorder.put(outcome_of(desk.claim()))
    desk.recorder.start()
    desk.finish()
    assert sizes == [2, 2, 1]


# -- long tasks -------------------------------------------------------------------------------------------------------


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONG", 0.05)


def long_task(desk: Desk, ran: float = 60.0) -> TaskContext:
    claim = desk.claim()
    context = TaskContext(claim, TaskLog(4096))
    context.started_at -= ran
    desk.running = [None, context]
    return context


@pytest.mark.usefixtures("soon")
def test_the_log_of_a_long_task_is_shown_while_it_runs_with_the_time_it_began(desk: Desk) -> None:
    context = long_task(desk)
    context.log.add("first")
    desk.recorder.start()

    def shown(text: str) -> Callable[[], bool]:
        return lambda: MessageLog.objects.get().log == text

    assert wait_until(shown("first"), TIMEOUT)
    row = MessageLog.objects.get()
    assert row.start_time is not None
    assert 59 < (row.state_at - row.start_time).total_seconds() < 61
    context.log.add("second")
    assert wait_until(shown("first\nsecond"), TIMEOUT)


@pytest.mark.usefixtures("soon")
def test_a_log_that_has_not_changed_is_not_written_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(
        MessageLogQuerySet, "write_progress", lambda _self, _claim, _ran, log: bool(written.append(log) or True)
    )
    context = long_task(desk)
    desk.recorder.start()
    before = desk.recorder.ticked_at
    assert wait_until(lambda: desk.recorder.ticked_at > before + 0.2, TIMEOUT)
    context.log.add("x")
    assert wait_until(lambda: written[-1:] == ["x"], TIMEOUT)
    assert written in (["x"], ["", "x"])


@pytest.mark.usefixtures("soon")
def test_short_tasks_are_not_written_while_they_run(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONG", 0.1)
    context = long_task(desk, ran=-3600.0)
    context.log.add("x")
    desk.recorder.start()
    before = desk.recorder.ticked_at
    assert wait_until(lambda: desk.recorder.ticked_at > before + 0.3, TIMEOUT)
    assert MessageLog.objects.get().log == ""


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
def test_the_row_of_an_atomic_task_is_left_alone_where_its_transaction_could_not_change_it_any_more(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("only PostgreSQL has such levels")
    options = "-c default_transaction_isolation=" + level.replace(" ", r"\ ")
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "options", options)
    atomic, plain = long_task(desk), long_task(desk)
    atomic.atomic = True
    for context, text in ((atomic, "atomic"), (plain, "plain")):
        context.log.add(text)
    desk.running = [atomic, plain]
    desk.recorder.start()
    assert wait_until(lambda: MessageLog.objects.filter(log="plain").exists(), TIMEOUT)
    assert MessageLog.objects.filter(log="atomic").exists() == (level == "read committed")


@pytest.mark.usefixtures("soon")
def test_progress_that_cannot_be_written_stops_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> bool:
        raise OperationalError("away")

    monkeypatch.setattr(MessageLogQuerySet, "write_progress", fail)
    context = long_task(desk)
    context.log.add("x")
    desk.recorder.start()
    with caplog.at_level(logging.WARNING):
        assert wait_until(lambda: "waits for the database" in caplog.text, TIMEOUT)
    desk.recorder.put(outcome_of(context.claim))
    desk.finish()
    assert status_of(MessageLog.objects.get()) == Status.COMPLETED
    assert new_worker().alive
