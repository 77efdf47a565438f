"""INSERT of one task, against what ``Model.save()`` would have written."""

from __future__ import annotations

from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.transaction import TransactionManagementError

from carrot import clock
from carrot.message import Message, uuid7
from carrot.models import MessageLog, Status, insertion
from carrot.models.insertion import insert
from tests.rows import ADD, in_seconds

pytestmark = pytest.mark.django_db

ORDINARY: dict[str, Any] = {}
RICH: dict[str, Any] = {
    "args": ("Café 🥕", None, [1, 2.5, {"a": [True]}]),
    "kwargs": {"quote": 'it\'s "100 %" %s {}', "empty": ""},
    "priority": 9,
    "exchange": "shop",
    "routing_key": "é",
    "origin": "admin",
}
LATER: dict[str, Any] = {"run_after": datetime(2999, 1, 1, tzinfo=timezone.utc)}
EARLIER: dict[str, Any] = {"run_after": datetime(2001, 1, 1, tzinfo=timezone.utc)}


def row_of(row_is_message: bool = False, **changes: Any) -> MessageLog:
    message = Message(**{"task": ADD, "queue": "default", "routing_key": "default", **changes})
    return MessageLog.from_message(message, broker="amqp://host/%2f", row_is_message=row_is_message, ring_in=5.0)


def stored(pk: int) -> dict[str, Any]:
    return MessageLog.objects.values().get(pk=pk)


@pytest.mark.parametrize("row_is_message", [True, False])
@pytest.mark.parametrize("changes", [ORDINARY, RICH, LATER, EARLIER])
def test_the_row_is_the_one_that_save_would_have_written(changes: dict[str, Any], row_is_message: bool) -> None:
    row = row_of(row_is_message, **changes)
    insert([row], "default")
    found = stored(row.pk)
    row.uuid, inserted = uuid7(), row.pk
    row.pk = None
    row.save(force_insert=True)
    other = stored(row.pk)
    assert row.pk != inserted
    for values in (found, other):
        del values["id"], values["uuid"]
    assert found == other


@pytest.mark.parametrize("changes", [ORDINARY, RICH])
def test_the_object_in_hand_is_the_row_that_is_stored(changes: dict[str, Any]) -> None:
    row = row_of(**changes)
    insert([row], "default")
    assert not row._state.adding
    assert row._state.db == "default"
    assert stored(row.pk) == {field.attname: getattr(row, field.attname) for field in row._meta.concrete_fields}
    row.note = "changed"
    row.save()  # an UPDATE
    assert MessageLog.objects.get().note == "changed"


def test_a_row_for_a_broker_is_rung_after_a_grace_and_a_row_that_is_its_message_is_not() -> None:
    before = clock.now()
    rung, own, later = row_of(), row_of(row_is_message=True), row_of(row_is_message=True, **LATER)
    assert (rung.status, own.status, later.status) == (Status.PUBLISHED, Status.PUBLISHED, Status.WAITING)
    assert rung.ring_at is not None
    assert before < rung.ring_at <= in_seconds(5.0)
    assert own.ring_at is None
    assert later.ring_at == LATER["run_after"]


def test_an_error_inside_a_transaction_marks_it_for_rollback_as_save_does() -> None:
    first, second = row_of(), row_of()
    second.uuid = first.uuid
    insert([first], "default")

    def insert_twice() -> None:
        with transaction.atomic():
            with pytest.raises(IntegrityError):
                insert([second], "default")
            with pytest.raises(TransactionManagementError):
                MessageLog.objects.count()

    insert_twice()
    assert not connection.needs_rollback
    assert MessageLog.objects.count() == 1


def test_it_is_one_statement(django_assert_num_queries: Any) -> None:
    row = row_of()
    insert([row_of()], "default")
    with django_assert_num_queries(1):
        insert([row], "default")


def test_arguments_that_are_no_json_never_reach_the_table() -> None:
    row = row_of()
    row.args = [Decimal(1)]
    with pytest.raises(TypeError):
        insert([row], "default")
    assert not MessageLog.objects.exists()


def test_a_row_makes_the_message_it_was_made_from() -> None:
    message = Message(task=ADD, queue="default", **{key: RICH[key] for key in RICH if key != "run_after"})
    row = MessageLog.from_message(message, broker="x", row_is_message=False, ring_in=5.0)
    insert([row], "default")
    assert MessageLog.objects.get().to_message() == message
    assert row.positionals == message.args
    assert row.keywords == message.kwargs
    assert row.virtual_host == "x"
    assert str(row) == f"{ADD} {row.uuid}"


def test_many_rows_are_inserted_in_order_and_know_their_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(insertion, "BATCH", 3)
    rows = [row_of() for _ in range(8)]
    insert(rows, "default")
    stored = MessageLog.objects.in_bulk([row.pk for row in rows])
    assert [stored[row.pk].uuid for row in rows] == [row.uuid for row in rows]
    assert sorted(stored) == [row.pk for row in rows]
