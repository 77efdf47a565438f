"""INSERT of one task, as cheap as it can be made: this is what a web request waits for.

``Model.save()`` compiles the statement anew each time, which costs more than PostgreSQL needs to execute it. Here it is
compiled once a database, with the columns that are the same for every new task written into it.
"""

from __future__ import annotations

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


def insert(row: MessageLog, alias: str) -> None:
    """Inserts ``row``, made by ``MessageLog.from_message``, and gives it its primary key.

    In the caller's transaction if there is one; an error marks that for rollback, as ``save()`` does. Sends no signals.
    """
    connection = connections[alias]
    sql, fields, returning = _statement(type(row), alias)
    params = [field.get_db_prep_save(getattr(row, field.attname), connection) for field in fields]
    with transaction.mark_for_rollback_on_error(using=alias), connection.cursor() as cursor:
        cursor.execute(sql, params)
        row.pk = cursor.fetchone()[0] if returning else connection.ops.last_insert_id(cursor, row._meta.db_table, "id")
    row._state.adding, row._state.db = False, alias


@lru_cache(maxsize=16)
def _statement(model: type[models.Model], alias: str) -> tuple[str, list[Any], bool]:
    connection = connections[alias]
    quote = connection.ops.quote_name
    fields: list[Any] = [model._meta.get_field(name) for name in VARYING]
    fixed = [field for field in model._meta.concrete_fields if not field.primary_key and field.name not in VARYING]
    columns = ", ".join(quote(str(field.column)) for field in [*fields, *fixed])
    values = ", ".join(["%s"] * len(fields) + [_literal(field) for field in fixed])
    returning = bool(connection.features.can_return_columns_from_insert)
    tail = f" RETURNING {quote('id')}" if returning else ""
    return f"INSERT INTO {quote(model._meta.db_table)} ({columns}) VALUES ({values}){tail}", fields, returning  # noqa: S608


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
