"""UPDATE … RETURNING through the ORM, and the two statements in its place."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from django.db import connection, transaction
from django.db.models import Exists, F

from carrot.database import closing
from carrot.models import MessageLog, WorkerProcess, returning
from carrot.models.returning import update_returning
from tests.marks import committing
from tests.rows import claim_of, in_seconds, new_row, new_worker


@pytest.fixture(params=["RETURNING", "SELECT FOR UPDATE"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways, on whatever database: the second is that of MySQL."""
    if request.param != "RETURNING":
        monkeypatch.setattr(returning, "_has_returning", lambda _connection: False)
    return request.param


pytestmark = pytest.mark.django_db


def test_it_changes_the_rows_and_returns_their_columns_as_a_query_would(way: str) -> None:
    rows = [new_row(args=["é", {"a": 1}], priority=number) for number in range(3)]
    chosen = MessageLog.objects.filter(priority__gte=1).order_by("pk")
    found = update_returning(chosen, {"fence": F("fence") + 7, "note": "n"}, ("id", "uuid", "args", "fence", "note"))
    assert sorted(found) == [(row.pk, row.uuid, ["é", {"a": 1}], 7, "n") for row in rows[1:]]
    assert all(isinstance(values[1], UUID) for values in found)
    rows[0].refresh_from_db()
    assert (rows[0].fence, rows[0].note) == (0, "")


def test_a_slice_is_respected_in_the_order_of_the_query(way: str) -> None:
    for number in range(4):
        new_row(priority=number)
    found = update_returning(MessageLog.objects.order_by("-priority")[:2], {"note": "x"}, ("priority",))
    assert sorted(found) == [(2,), (3,)]
    assert MessageLog.objects.filter(note="x").count() == 2


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="the only one whose planner reads a subquery twice")
def test_a_slice_is_respected_whatever_plan_the_database_makes() -> None:
    for number in range(6):
        new_row(priority=number)
    with connection.cursor() as cursor:  # a nested loop that asks for the slice anew with each row
        for method in ("hashagg", "hashjoin", "mergejoin", "material", "memoize", "sort", "indexscan", "bitmapscan"):
            cursor.execute(f"SET LOCAL enable_{method} = off")
    found = update_returning(MessageLog.objects.filter(note="")[:2], {"note": "x"}, ("id",), skip_locked=True)
    assert len(found) == 2
    assert MessageLog.objects.filter(note="x").count() == 2


def test_nothing_changes_where_the_condition_outside_the_rows_does_not_hold(way: str) -> None:
    new_row()
    worker = new_worker(alive=False)
    alive = Exists(WorkerProcess.objects.filter(pk=worker.pk, alive=True))
    rows = MessageLog.objects.order_by("pk")
    assert update_returning(rows, {"note": "x"}, ("id",), only_if=alive) == []
    assert not MessageLog.objects.filter(note="x").exists()
    WorkerProcess.objects.update(alive=True)
    assert len(update_returning(rows, {"note": "x"}, ("id",), only_if=alive)) == 1


def test_no_rows_are_an_empty_list(way: str) -> None:
    assert update_returning(MessageLog.objects.order_by("pk"), {"note": "x"}, ("id",)) == []


def test_claims_are_the_same_on_both_ways(way: str) -> None:
    row = new_row(kwargs={"name": "Zoë"}, priority=3)
    claim = claim_of(row)
    assert (claim.kwargs, claim.fence, claim.tries, claim.priority) == ({"name": "Zoë"}, 1, 1, 3)
    (returned,) = MessageLog.objects.hand_back([claim])
    assert returned.fence == 1
    (again,) = MessageLog.objects.claim_next("default", 5, new_worker().pk)
    assert (again.id, again.fence, again.tries, again.hand_backs) == (row.pk, 2, 1, 1)


def test_a_row_that_was_handed_back_or_rung_is_as_a_query_reads_it(way: str) -> None:
    row = new_row(args=["é"], kwargs={"a": [1]}, output={"b": 2}, log="a log", completion_time=in_seconds(-5))
    (returned,) = MessageLog.objects.hand_back([claim_of(row)], note="why")
    assert vars(returned).keys() == vars(row).keys()
    assert MessageLog.objects.filter(pk=row.pk).values().get() == _columns(returned)
    (rung,) = MessageLog.objects.ring(["default"], again_in=10.0, broker="amqp://new/%2f", limit=10)
    assert MessageLog.objects.filter(pk=row.pk).values().get() == _columns(rung)


def _columns(row: MessageLog) -> dict[str, Any]:
    return {name: value for name, value in vars(row).items() if name != "_state"}


@committing
def test_what_takes_several_statements_is_one_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or two workers claim the same row, and a relay rings a row with the fence of a claim."""
    monkeypatch.setattr(returning, "_has_returning", lambda _connection: False)
    new_row()
    seen: list[tuple[str, bool]] = []

    def watch(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        seen.append((sql.partition(" ")[0], connection.in_atomic_block))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(watch):
        assert len(update_returning(MessageLog.objects.order_by("pk"), {"note": "x"}, ("id",))) == 1
    seen = [(verb, inside) for verb, inside in seen if verb != "BEGIN"]
    assert all(inside for _verb, inside in seen), seen
    assert connection.features.has_select_for_update or seen[0][0] == "UPDATE", "the one lock comes first"


@committing
@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite has one lock for all")
class TestLocks:
    """What another transaction holds."""

    @pytest.fixture
    def held(self) -> Iterator[MessageLog]:
        """A row that another transaction has locked until the test ends."""
        row = new_row(ring_at=in_seconds(-1))
        locked, ends = threading.Event(), threading.Event()

        def hold() -> None:
            with closing(), transaction.atomic():
                list(MessageLog.objects.select_for_update().filter(pk=row.pk))
                locked.set()
                ends.wait(10.0)

        thread = threading.Thread(target=hold)
        thread.start()
        assert locked.wait(5.0)
        yield row
        ends.set()
        thread.join()

    def test_a_claim_of_the_embedded_broker_passes_over_it(self, held: MessageLog) -> None:
        free = new_row()
        assert [claim.id for claim in MessageLog.objects.claim_next("default", 10, new_worker().pk)] == [free.pk]

    def test_two_relays_share_the_work(self, held: MessageLog) -> None:
        free = new_row(ring_at=in_seconds(-1))
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '2s'")
        rung = MessageLog.objects.ring(["default"], again_in=10.0, broker="x", limit=10)
        assert [row.pk for row in rung] == [free.pk]

    def test_a_claim_of_arrived_messages_waits_for_it(self, held: MessageLog) -> None:
        """Passing over it would acknowledge its message unclaimed."""
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '200ms'")
        with pytest.raises(Exception, match="lock timeout"):
            MessageLog.objects.claim([held.uuid], new_worker().pk)
        connection.close()


def test_a_claim_uses_no_more_statements_for_many_rows_than_for_one(django_assert_max_num_queries: Any) -> None:
    rows, worker = [new_row() for _ in range(50)], new_worker()
    with django_assert_max_num_queries(3):  # a savepoint around it where there are row locks
        assert len(MessageLog.objects.claim([row.uuid for row in rows], worker.pk)) == 50
