"""Who claims what and when, and what goes back."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import OperationalError, connection

from carrot import claimer as module
from carrot.models import MessageLog, Status
from carrot.models.claim import Claim
from carrot.models.transitions import MessageLogQuerySet
from carrot.services import publish_message
from tests.marks import committing
from tests.rows import ADD, claim_of, in_seconds, new_row, status_of
from tests.servers.process import wait_until
from tests.unit.shop import Shop

pytestmark = committing
HERE = __name__
TIMEOUT = 10.0

gate = threading.Event()
together: list[int] = []
most: list[int] = []


def blocks(name: int = 0) -> None:
    gate.wait(TIMEOUT)


def counts() -> None:
    together.append(1)
    most.append(len(together))
    threading.Event().wait(0.02)
    together.pop()


@pytest.fixture
def shops() -> Iterator[Any]:
    gate.clear()
    together.clear()
    most.clear()
    made: list[Shop] = []

    def make(threads: int = 1, **options: Any) -> Shop:
        made.append(Shop(threads, **options))
        return made[-1]

    yield make
    gate.set()
    for shop in made:
        shop.end()


def statuses() -> list[str]:
    return list(MessageLog.objects.order_by("pk").values_list("status", flat=True))


def test_what_is_published_runs(shops: Any) -> None:
    shop = shops(2)
    shop.claimer.start()
    for number in range(20):
        publish_message(ADD, number, 0)
    ran = [shop.outcomes.get(timeout=TIMEOUT) for _ in range(20)]
    assert sorted(float(outcome.output or "nan") for outcome in ran) == list(range(20))


def test_behind_an_unknown_task_nothing_is_claimed(shops: Any) -> None:
    shop = shops()
    for number in range(3):
        publish_message(f"{HERE}.blocks", number)
    shop.claimer.start()
    assert wait_until(lambda: len(shop.held) == 1, TIMEOUT)
    before = shop.claimer.ticked_at
    assert wait_until(lambda: shop.claimer.ticked_at > before + 0.5, TIMEOUT)
    assert statuses() == [Status.IN_PROGRESS, Status.PUBLISHED, Status.PUBLISHED]
    assert not MessageLog.objects.exclude(hand_backs=0).exists()  # nor were they taken and given back


def test_a_task_that_does_not_fit_the_code_waits_a_little_for_a_worker_that_it_fits(
    shops: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shop = shops(patience=60.0)
    gone = new_row(task=f"{HERE}.gone", args=[])
    changed = new_row(task=f"{HERE}.counts", args=["an argument more"])
    publish_message(ADD, 1, 2)
    shop.claimer.start()
    assert shop.outcomes.get(timeout=TIMEOUT).output == "3"
    assert wait_until(lambda: MessageLog.objects.filter(hand_backs=1, status=Status.PUBLISHED).count() == 2, TIMEOUT)
    delays = set()
    for row, reason in ((gone, "Unknown task"), (changed, f"{HERE}.counts() does not take these arguments")):
        row.refresh_from_db()
        assert (row.tries, row.worker_id) == (0, None)
        assert row.note.startswith(reason)
        assert row.ring_at is not None
        delay = (row.ring_at - row.state_at).total_seconds()
        assert module.MISFIT_DELAY / 2 <= delay <= module.MISFIT_DELAY * 1.5
        delays.add(delay)
        assert f"Tasks wait for a worker that can start them: {reason}" in caplog.text
    assert shop.held == {}
    assert len(delays) == 2  # else both could go round in step, to the wrong workers each time
    monkeypatch.setattr(f"{HERE}.gone", counts, raising=False)  # as a worker with newer code has it
    MessageLog.objects.filter(pk=gone.pk).update(ring_at=in_seconds(-1))
    assert shop.outcomes.get(timeout=TIMEOUT).status == "COMPLETED"


def test_that_tasks_do_not_fit_is_said_once_a_minute(
    shops: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "MISFIT_DELAY", 0.01)
    row = new_row(task=f"{HERE}.gone", args=[])
    shops(patience=60.0).claimer.start()
    assert wait_until(lambda: MessageLog.objects.get(pk=row.pk).hand_backs >= 3, TIMEOUT)
    assert caplog.text.count("Tasks wait for a worker that can start them") == 1


def test_one_that_fits_nobody_is_failed_in_the_end(shops: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MISFIT_DELAY", 0.01)
    new_row(task=f"{HERE}.gone", args=[])
    shop = shops(patience=0.3)
    shop.claimer.start()
    outcome = shop.outcomes.get(timeout=TIMEOUT)
    assert outcome.status == "FAILED"
    assert outcome.exception.startswith("TaskAttributeError: Unknown task")
    assert outcome.claim.hand_backs >= 1


def test_behind_tiny_tasks_many_are_claimed_ahead(shops: Any) -> None:
    shop = shops(2)
    assert (shop.lane.ahead(), shop.lane.room()) == (0, 2)
    shop.executor.mean = 0.001
    assert (shop.lane.ahead(), shop.lane.room()) == (100, 102)
    shop.executor.mean = 0.0
    assert shop.lane.ahead() == module.MAX_AHEAD
    shop.executor.mean = 10.0
    assert shop.lane.ahead() == 0


def test_tasks_that_do_not_get_their_turn_go_back_for_others(shops: Any) -> None:
    shop = shops()
    shop.executor.mean = 0.001
    for number in range(6):
        publish_message(f"{HERE}.blocks", number)
    shop.claimer.start()
    assert wait_until(lambda: MessageLog.objects.filter(hand_backs=1).count() == 5, TIMEOUT)
    assert statuses() == [Status.IN_PROGRESS, *[Status.PUBLISHED] * 5]
    assert len(shop.held) == 1
    assert not MessageLog.objects.filter(status=Status.PUBLISHED).exclude(tries=0, worker=None).exists()
    other = shops()
    other.claimer.start()
    assert wait_until(lambda: len(other.held) == 1, TIMEOUT)
    before = shop.claimer.ticked_at
    assert wait_until(lambda: shop.claimer.ticked_at > before + 0.3, TIMEOUT)
    assert len(shop.held) == 1  # it takes nothing more as long as it is stuck
    gate.set()
    assert wait_until(lambda: shop.outcomes.qsize() + other.outcomes.qsize() == 6, TIMEOUT)


def test_a_suspect_runs_alone(shops: Any) -> None:
    shop = shops(4)
    for number in range(12):
        new_row(task=f"{HERE}.counts", args=[], crashes=int(number % 4 == 1))
    shop.claimer.start()
    crashes = {}
    for _ in range(12):
        outcome = shop.outcomes.get(timeout=TIMEOUT)
        crashes[outcome.claim.id] = outcome.claim.crashes
        assert outcome.status == "COMPLETED"
    assert sum(crashes.values()) == 3
    assert max(most) > 1


def test_no_neighbour_runs_beside_a_suspect(shops: Any) -> None:
    shop = shops(4)
    for _ in range(3):
        new_row(task=f"{HERE}.counts", args=[], crashes=1)
    shop.claimer.start()
    for _ in range(3):
        shop.outcomes.get(timeout=TIMEOUT)
    assert most == [1, 1, 1]


def test_a_suspect_that_has_waited_for_long_goes_back_to_be_run_elsewhere(
    shops: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    shop = shops(2)
    shop.claimer.start()
    publish_message(f"{HERE}.blocks")
    assert wait_until(lambda: shop.executor.load() == 1, TIMEOUT)
    suspect = new_row(crashes=1)
    assert wait_until(lambda: MessageLog.objects.filter(pk=suspect.pk, hand_backs=1).exists(), TIMEOUT)
    suspect.refresh_from_db()
    assert suspect.ring_at is not None
    assert [pk for pk, _fence in shop.held] != [suspect.pk]


def test_without_a_lease_nothing_is_claimed_or_kept(shops: Any) -> None:
    shop = shops()
    shop.executor.mean = 0.001
    for number in range(3):
        publish_message(f"{HERE}.blocks", number)
    shop.claimer.start()
    assert wait_until(lambda: shop.executor.running[0] is not None, TIMEOUT)
    shop.slot.prolong(0.0, 0.0)
    assert wait_until(lambda: len(shop.held) == 1, TIMEOUT)
    gate.set()
    shop.outcomes.get(timeout=TIMEOUT)
    before = shop.claimer.ticked_at
    assert wait_until(lambda: shop.claimer.ticked_at > before + 0.4, TIMEOUT)
    assert statuses()[1:] == [Status.PUBLISHED] * 2
    shop.slot.prolong(float("inf"), 30.0)
    for _ in range(2):
        shop.outcomes.get(timeout=TIMEOUT)


def test_while_outcomes_cannot_be_written_nothing_is_claimed(shops: Any) -> None:
    shop = shops()
    shop.full = True
    publish_message(ADD, 1, 0)
    shop.claimer.start()
    before = shop.claimer.ticked_at
    assert wait_until(lambda: shop.claimer.ticked_at > before + 0.3, TIMEOUT)
    assert statuses() == [Status.PUBLISHED]
    shop.full = False
    shop.outcomes.get(timeout=TIMEOUT)


def test_at_its_end_it_gives_back_what_was_not_begun(shops: Any) -> None:
    shop = shops()
    shop.executor.mean = 0.001
    for number in range(4):
        publish_message(f"{HERE}.blocks", number)
    shop.claimer.start()
    assert wait_until(lambda: shop.executor.running[0] is not None, TIMEOUT)
    shop.claimer.stop()
    shop.claimer.join(TIMEOUT)
    assert statuses() == [Status.IN_PROGRESS, *[Status.PUBLISHED] * 3]
    assert len(shop.held) == 1


def test_a_database_that_fails_ends_nothing(shops: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = {"left": 2}
    claim_next = MessageLogQuerySet.claim_next

    def fail(self: Any, *args: Any) -> list[Claim]:
        if failures["left"]:
            failures["left"] -= 1
            raise OperationalError("the database is away")
        return claim_next(self, *args)

    monkeypatch.setattr(module, "RETRY", 0.02)
    monkeypatch.setattr(MessageLogQuerySet, "claim_next", fail)
    shop = shops()
    publish_message(ADD, 1, 2)
    shop.claimer.start()
    assert shop.outcomes.get(timeout=TIMEOUT).output == "3"


@pytest.mark.parametrize("column", ["args", "kwargs"])
@pytest.mark.parametrize("text", ["no JSON", f"[{'9' * 5000}]"])
def test_a_row_that_is_no_json_is_failed_and_its_neighbours_run(shops: Any, column: str, text: str) -> None:
    bad, good = new_row(), new_row()
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE carrot_messagelog SET {column} = %s WHERE id = %s", [text, bad.pk])
    shop = shops(2, patience=60.0)
    shop.claimer.start()
    outcomes = {outcome.claim.id: outcome for outcome in (shop.outcomes.get(timeout=TIMEOUT) for _ in range(2))}
    assert outcomes[good.pk].output == "3"
    assert outcomes[bad.pk].status == "FAILED"
    assert outcomes[bad.pk].exception.startswith("ValueError: What is stored is no JSON that this process can read: ")


def test_a_row_that_is_no_json_and_was_not_begun_is_handed_back_with_the_others(
    shops: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rung: list[Any] = []
    monkeypatch.setattr("carrot.publisher.ring", rung.extend)
    shop = shops()
    monkeypatch.setattr(shop.lane.broker, "rows_are_messages", False)
    rows = [new_row(), new_row()]
    with connection.cursor() as cursor:
        cursor.execute("UPDATE carrot_messagelog SET args = 'no JSON' WHERE id = %s", [rows[0].pk])
    claims = [claim_of(row, shop.worker) for row in rows]
    shop.claimer._hand_back(claims, 0.0)
    assert [message.uuid for message in rung] == [rows[1].uuid]
    assert [status_of(row) for row in rows] == [Status.PUBLISHED, Status.PUBLISHED]
    assert "no JSON" in rows[0].note
    assert rows[0].ring_at is not None


def _fails_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    failures = {"left": 2}
    claim_next = MessageLogQuerySet.claim_next

    def fail(self: Any, *args: Any) -> list[Claim]:
        if failures["left"]:
            failures["left"] -= 1
            raise LookupError("a mistake of ours")
        return claim_next(self, *args)

    monkeypatch.setattr(module, "RETRY", 0.02)
    monkeypatch.setattr(MessageLogQuerySet, "claim_next", fail)


def test_while_the_database_is_away_it_is_tried_every_now_and_then(shops: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[float] = []

    def fail(*_: object) -> list[Claim]:
        tries.append(time.monotonic())
        raise OperationalError("away")

    monkeypatch.setattr(module, "RETRY", 0.05)
    monkeypatch.setattr(MessageLogQuerySet, "claim_next", fail)
    shops().claimer.start()
    assert wait_until(lambda: len(tries) >= 10, TIMEOUT)
    assert tries[9] - tries[0] >= 9 * 0.05


def test_a_mistake_of_ours_ends_nothing_and_is_told_once_a_minute(
    shops: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _fails_twice(monkeypatch)
    shop = shops()
    publish_message(ADD, 1, 2)
    shop.claimer.start()
    assert shop.outcomes.get(timeout=TIMEOUT).output == "3"
    (told,) = [record for record in caplog.records if "Claiming failed" in record.getMessage()]
    assert told.levelname == "ERROR"
    assert "LookupError: a mistake of ours" in caplog.text


# -- the audit --------------------------------------------------------------------------------------------------------


def test_the_second_look_releases_what_is_claimed_in_its_name_and_not_in_its_memory(shops: Any) -> None:
    shop = shops()
    stranger, held, theirs = new_row(), new_row(), new_row()
    claim_of(stranger, shop.worker)
    claim = claim_of(held, shop.worker)
    shop.held[claim.id, claim.fence] = claim
    claim_of(theirs)
    shop.claimer._audit()
    assert status_of(stranger) == Status.IN_PROGRESS
    shop.claimer._audit()
    assert status_of(stranger) == Status.PUBLISHED
    assert stranger.ring_at is not None
    assert stranger.ring_at <= in_seconds(0)
    assert status_of(held) == Status.IN_PROGRESS
    assert status_of(theirs) == Status.IN_PROGRESS


def test_a_row_that_was_a_stranger_under_another_fence_is_seen_anew(shops: Any) -> None:
    shop = shops()
    row = new_row()
    first = claim_of(row, shop.worker)
    shop.claimer._audit()
    MessageLog.objects.release([(row.pk, first.fence)])
    claim_of(row, shop.worker)
    shop.claimer._audit()
    assert status_of(row) == Status.IN_PROGRESS
    shop.claimer._audit()
    assert status_of(row) == Status.PUBLISHED


def test_a_hand_back_that_the_database_refuses_leaves_the_rows_to_the_audit(
    shops: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = shops()
    row = new_row()
    claim = claim_of(row, shop.worker)
    shop.held[claim.id, claim.fence] = claim
    with monkeypatch.context() as away:

        def fail(*_: Any, **__: Any) -> None:
            raise OperationalError("away")

        away.setattr(MessageLogQuerySet, "hand_back", fail)
        with pytest.raises(OperationalError):
            shop.claimer._hand_back([claim], 0.0)
    shop.claimer._audit()
    shop.claimer._audit()
    assert status_of(row) == Status.PUBLISHED
