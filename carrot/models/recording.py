"""Writing many outcomes in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

if TYPE_CHECKING:
    from carrot.models.claim import Outcome

#: The columns an outcome sets, with PostgreSQL's type for each.
COLUMNS = {
    "status": "varchar",
    "start_time": "timestamptz",
    "completion_time": "timestamptz",
    "failure_time": "timestamptz",
    "state_at": "timestamptz",
    "output": "text",
    "log": "text",
    "exception": "text",
    "traceback": "text",
}


def write_outcomes(alias: str, model: Any, outcomes: Sequence[Outcome], *, first_try: bool = False) -> set[int]:
    """Compare-and-set of each outcome on (id, fence, IN_PROGRESS) in one transaction; returns the ids written.

    One that stands there already counts as written: by an earlier try, whose answer was lost. ``first_try``: there was
    none.
    """
    if not outcomes:
        return set()
    connection = connections[alias]
    table = connection.ops.quote_name(model._meta.db_table)
    # No savepoint within the transaction of an atomic task: it fails as a whole anyway.
    with transaction.atomic(using=alias, savepoint=not first_try), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            written = _write_joined(cursor, table, outcomes, _time_type(connection))
        else:
            written = _write_each(cursor, table, outcomes, connection)
        if len(written) < len(outcomes) and not first_try:
            written |= _standing(cursor, table, [o for o in outcomes if o.claim.id not in written])
        return written


def _values(outcome: Outcome) -> tuple[Any, ...]:
    completed = outcome.status == "COMPLETED"
    end = outcome.end_time
    return (
        outcome.status,
        outcome.start_time,
        end if completed else None,
        None if completed else end,
        end,
        outcome.output,
        outcome.log,
        outcome.exception,
        outcome.traceback,
    )


def _time_type(connection: BaseDatabaseWrapper) -> str:
    return str(connection.data_types["DateTimeField"])


def _write_joined(cursor: Any, table: str, outcomes: Sequence[Outcome], time_type: str) -> set[int]:
    """One statement for all of them: the outcomes come as arrays, a column each, and are joined to the table.

    Sorted by id, so that two recorders that meet (never on the same claim) lock in the same order.
    """
    ordered = sorted(outcomes, key=lambda outcome: outcome.claim.id)
    arrays: list[list[Any]] = [[o.claim.id for o in ordered], [o.claim.fence for o in ordered]]
    arrays += [list(column) for column in zip(*map(_values, ordered), strict=True)]
    types = ["bigint", "integer", *(time_type if kind == "timestamptz" else kind for kind in COLUMNS.values())]
    unnest = ", ".join(f"%s::{kind}[]" for kind in types)
    assign = ", ".join(f"{name} = v.{name}" for name in COLUMNS)
    cursor.execute(
        f"UPDATE {table} AS t SET {assign} FROM unnest({unnest}) AS v (id, fence, {', '.join(COLUMNS)}) "  # noqa: S608
        "WHERE t.id = v.id AND t.fence = v.fence AND t.status = 'IN_PROGRESS' RETURNING t.id",
        arrays,
    )
    return {row[0] for row in cursor.fetchall()}


def _write_each(cursor: Any, table: str, outcomes: Sequence[Outcome], connection: BaseDatabaseWrapper) -> set[int]:
    """A statement an outcome, prepared once; where the count falls short, the caller asks which were late."""
    adapt = connection.ops.adapt_datetimefield_value
    where = "WHERE id = %s AND fence = %s AND status = 'IN_PROGRESS'"
    assign = ", ".join(f"{name} = %s" for name in COLUMNS)
    rows = []
    for outcome in sorted(outcomes, key=lambda outcome: outcome.claim.id):
        values = [
            adapt(value) if kind == "timestamptz" else value
            for value, kind in zip(_values(outcome), COLUMNS.values(), strict=True)
        ]
        rows.append((*values, outcome.claim.id, outcome.claim.fence))
    cursor.executemany(f"UPDATE {table} SET {assign} {where}", rows)  # noqa: S608
    return {outcome.claim.id for outcome in outcomes} if cursor.rowcount == len(rows) else set()


def _standing(cursor: Any, table: str, outcomes: Sequence[Outcome]) -> set[int]:
    """The ids of rows that have the end of this very claim."""
    found = set()
    for outcome in outcomes:
        cursor.execute(
            f"SELECT 1 FROM {table} WHERE id = %s AND fence = %s AND status = %s",  # noqa: S608
            (outcome.claim.id, outcome.claim.fence, outcome.status),
        )
        if cursor.fetchone():
            found.add(outcome.claim.id)
    return found
