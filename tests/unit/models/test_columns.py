"""JSON as searchable text, and indexes over some rows only."""

from __future__ import annotations

from typing import Any

import pytest
from django.core import serializers
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import connection, models
from django.db.models import Q
from django.test.utils import CaptureQueriesContext

from carrot import clock
from carrot.models import MessageLog
from carrot.models.columns import JSONTextField, PartialIndex, Unreadable
from tests.marks import committing
from tests.rows import claim_of, new_row, new_worker, outcome_of

pytestmark = pytest.mark.django_db

VALUES = [[], {}, ["Café 🥕"], {"a": {"b": [1, 2.5, None, True]}}, "text", 0, ['back\\slash "quoted" it\'s %s']]


@pytest.mark.parametrize("text", ["no JSON", "", "[1", f"[{'9' * 5000}]", "[" * 100_000])
def test_what_is_no_json_does_not_keep_the_row_from_being_read_and_stays_as_it_is(text: str) -> None:
    row = new_row()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE carrot_messagelog SET args = %s", [text])
    row.refresh_from_db()
    assert isinstance(row.args, Unreadable)
    assert row.args.reason
    assert text[:7] not in repr(row.args) or not text  # it may hold secrets
    row.save()
    with connection.cursor() as cursor:
        cursor.execute("SELECT args FROM carrot_messagelog")
        assert cursor.fetchone() == (text,)
    with pytest.raises(ValueError, match="no JSON that this process can read"):
        print(*row.args)
    with pytest.raises(ValueError, match="no JSON that this process can read"):
        dict(**row.args)
    with pytest.raises(ValueError, match="no JSON that this process can read"):
        row.to_message()


@pytest.mark.parametrize("value", VALUES)
def test_a_value_comes_back_as_it_was_given(value: Any) -> None:
    row = new_row(args=value, output=value)
    row.refresh_from_db()
    assert (row.args, row.output) == (value, value)
    assert MessageLog.objects.values_list("output", flat=True).get() == value
    assert MessageLog.objects.filter(args=value).count() == 1


@pytest.mark.parametrize("text", ["Café", "café", "日本", "🥕", 'a "quoted', "100 %"])
def test_text_in_any_script_is_found_as_it_is_read(text: str) -> None:
    found = new_row(kwargs={"where": ["im Café, 日本 🥕 café", "100 %"], 'a "quoted': 1})
    new_row(kwargs={"where": "elsewhere"})
    needle = text.replace('"', '\\"')
    assert MessageLog.objects.filter(kwargs__icontains=needle).get() == found
    assert MessageLog.objects.filter(kwargs__contains=needle).get() == found


def test_ascii_is_found_whatever_its_case() -> None:
    row = new_row(args=["Invoice 42"])
    assert MessageLog.objects.filter(args__icontains="INVOICE 4").get() == row


def test_no_value_is_null() -> None:
    new_row(output=None)
    assert MessageLog.objects.filter(output__isnull=True, output=None).count() == 1


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), object()])
def test_what_is_no_json_is_refused(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        new_row(args=value)
    with pytest.raises(ValidationError, match="not JSON"):
        JSONTextField().clean(value, None)
    assert JSONTextField().clean([1], None) == [1]


def test_rows_can_be_dumped_and_loaded() -> None:
    row = new_row(args=["Café"], kwargs={"a": [1]}, output={"x": None})
    text = serializers.serialize("json", [row])
    row.delete()
    for found in serializers.deserialize("json", text):
        found.save()
    loaded = MessageLog.objects.get()
    assert (loaded.args, loaded.kwargs) == (["Café"], {"a": [1]})


# -- indexes ----------------------------------------------------------------------------------------------------------


def definition(index: str) -> str:
    query = {
        "sqlite": "SELECT sql FROM sqlite_master WHERE name = %s",
        "postgresql": "SELECT indexdef FROM pg_indexes WHERE indexname = %s",
    }[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(query, [index])
        return str(cursor.fetchone()[0])


def test_the_partial_indexes_cover_waiting_rows_only() -> None:
    assert "ring_at" in (ring := definition("carrot_ring"))
    assert ring.rpartition("WHERE")[2].strip('( )"') in ("ring_at IS NOT NULL", 'ring_at" IS NOT NULL')
    assert "PUBLISHED" in definition("carrot_claim").rpartition("WHERE")[2]


@committing  # SQLite's schema editor insists
def test_a_database_without_partial_indexes_gets_a_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    index = PartialIndex("queue", where=Q(status="PUBLISHED"), name="an_index")
    with connection.schema_editor(collect_sql=True) as editor:
        assert "WHERE" in str(index.create_sql(MessageLog, editor))
        monkeypatch.setattr(type(connection.features), "supports_partial_indexes", False)
        assert "WHERE" not in str(index.create_sql(MessageLog, editor))


def test_a_partial_index_survives_a_migration_file() -> None:
    index = PartialIndex("queue", "-id", where=Q(status="PUBLISHED"), name="an_index")
    path, args, kwargs = index.deconstruct()
    assert path == "carrot.models.columns.PartialIndex"
    assert PartialIndex(*args, **kwargs) == index
    assert PartialIndex(*args, **{**kwargs, "where": Q(status="FAILED")}) != index
    assert isinstance(index, models.Index)


def test_no_migration_is_missing() -> None:
    call_command("makemigrations", "carrot", check=True, dry_run=True, verbosity=0)


def plan(statements: CaptureQueriesContext) -> str:
    """How the database would find the rows of the one statement that reads or changes tasks."""
    (sql,) = [query["sql"] for query in statements.captured_queries if "carrot_messagelog" in query["sql"]]
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL enable_seqscan = off")  # the tables of tests are too small to need an index
            cursor.execute(f"EXPLAIN {sql}")
        else:
            cursor.execute(f"EXPLAIN QUERY PLAN {sql}")
        return "\n".join(str(row[-1]) for row in cursor.fetchall())


def test_the_hot_statements_use_their_indexes() -> None:
    worker = new_worker()
    new_row()
    with CaptureQueriesContext(connection) as claim_next:
        MessageLog.objects.claim_next("default", 10, worker.pk)
    with CaptureQueriesContext(connection) as due:
        MessageLog.objects.due(clock.now()).exists()
    with CaptureQueriesContext(connection) as orphans:
        MessageLog.objects.orphans()
    with CaptureQueriesContext(connection) as waiting:
        rows = MessageLog.objects.filter(queue="default", status="PUBLISHED", ring_at__isnull=True)
        rows.order_by("-priority", "pk").values("pk")[:9].count()
    assert "carrot_claim" in plan(claim_next)
    assert "carrot_ring" in plan(due)
    assert "carrot_status_list" in plan(orphans)
    assert "carrot_claim" in plan(waiting)
    MessageLog.objects.record([outcome_of(claim_of(new_row()))])
