"""INSERT of tasks, as cheap as it can be made: this is what a web request waits for.

``Model.save()`` compiles the statement anew each time, which costs more than PostgreSQL needs to execute it. Here it is
compiled once a database, with the columns that are the same for every new task written into it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.db import connections, models, transaction

if TYPE_CHECKING:
    from carrot.models.message_log import MessageLog

#: The columns in which new tasks differ; all others have their default.
VARYING = (
    "uuid",
    "status",
    "origin",
    "task",
    "args",
    "kwargs",
    "broker",
    "queue",
    "exchange",
    "routing_key",
    "priority",
    "publish_time",
    "state_at",
    "ring_at",
)


#: Rows inserted with one statement.
BATCH = 500


def insert(rows: Sequence[MessageLog], alias: str) -> None:
    """Inserts ``rows``, made by ``MessageLog.from_message``, and gives them their primary keys, where the database
    tells.

    In the caller's transaction if there is one; an error marks that for rollback, as ``save()`` does. Several
    statements are all or none only inside ``atomic``. Sends no signals.
    """
    connection = connections[alias]
    for start in range(0, len(rows), _batch_size(alias)):
        some = rows[start : start + _batch_size(alias)]
        sql, values, arrays, tail, fields = _statement(type(some[0]), alias)
        columns = [
            [field.get_db_prep_save(getattr(row, field.attname), connection) for row in some] for field in fields
        ]
        with transaction.mark_for_rollback_on_error(using=alias), connection.cursor() as cursor:
            if arrays and len(some) > 1:  # a parameter a column, not one a value: thousands take the driver long
                cursor.execute(f"{sql} {arrays}{tail}", columns)
            else:
                params = [value for row in zip(*columns, strict=True) for value in row]
                cursor.execute(f"{sql} VALUES {', '.join([values] * len(some))}{tail}", params)
            if tail:
                keys = [key for (key,) in cursor.fetchall()]
            else:  # MySQL tells only the key of a single row
                keys = [connection.ops.last_insert_id(cursor, some[0]._meta.db_table, "id")] if len(some) == 1 else []
        for row in some:
            row._state.adding, row._state.db = False, alias
        for row, key in zip(some, keys, strict=False):
            row.pk = key


def _batch_size(alias: str) -> int:
    limit = connections[alias].features.max_query_params
    return min(BATCH, limit // len(VARYING)) if limit else BATCH


@lru_cache(maxsize=16)
def _statement(model: type[models.Model], alias: str) -> tuple[str, str, str, str, list[Any]]:
    """The statement up to its rows, the values of one row, PostgreSQL's rows from arrays, what follows the rows, and
    the fields that vary."""
    connection = connections[alias]
    quote = connection.ops.quote_name
    fields: list[Any] = [model._meta.get_field(name) for name in VARYING]
    fixed = [field for field in model._meta.concrete_fields if not field.primary_key and field.name not in VARYING]
    columns = ", ".join(quote(str(field.column)) for field in [*fields, *fixed])
    literals = [_literal(field) for field in fixed]
    values = ", ".join(["%s"] * len(fields) + literals)
    arrays = ""
    if connection.vendor == "postgresql":
        unnest = ", ".join(f"%s::{field.db_type(connection)}[]" for field in fields)
        arrays = f"SELECT u.*, {', '.join(literals)} FROM unnest({unnest}) AS u"  # noqa: S608
    tail = f" RETURNING {quote('id')}" if connection.features.can_return_columns_from_insert else ""
    sql = f"INSERT INTO {quote(model._meta.db_table)} ({columns})"
    return sql, f"({values})", arrays, tail, fields


def _literal(field: Any) -> str:
    """The default of a column that every new task shares, as SQL."""
    default = field.get_default()
    if field.null and default in (None, ""):
        return "NULL"
    if default == "":
        return "''"
    if isinstance(default, int):
        return str(int(default))
    raise TypeError(f"{field}: a default that is neither NULL, empty text nor a number belongs into VARYING")
