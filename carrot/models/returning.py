"""UPDATE … RETURNING through the ORM: change rows and read them in one round trip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from django.db import connections, models, router, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import F
from django.db.models.lookups import In
from django.db.models.sql import UpdateQuery


def update_returning(
    rows: models.QuerySet[Any],
    values: Mapping[str, Any],
    names: Sequence[str],
    *,
    only_if: models.Exists | None = None,
    skip_locked: bool = False,
) -> list[tuple[Any, ...]]:
    """Locks ``rows`` in their order, sets ``values`` and returns the columns ``names`` of the rows that changed.

    ``only_if`` is a condition outside the locked rows; ``skip_locked`` passes over rows another transaction holds, on
    databases that can. Commits, unless called inside ``atomic``. On a database with row locks it runs in an explicit
    transaction: a client killed while its statement waits for a lock never reaches COMMIT, so nothing is changed in its
    name. SQLite needs one only where it takes several statements; a single writing one takes the database's one write
    lock at its start.
    """
    model = rows.model
    alias = rows._db or router.db_for_write(model)  # type: ignore[attr-defined]  # what using() chose
    connection = connections[alias]
    rows = rows.using(alias)
    row_locks, at_once = connection.features.has_select_for_update, _has_returning(connection)
    if row_locks:
        rows = rows.select_for_update(skip_locked=skip_locked and connection.features.has_select_for_update_skip_locked)
    with transaction.atomic(using=alias) if row_locks or not at_once else nullcontext():
        if not at_once:
            if not row_locks:
                # SQLite gives its lock to the first statement that writes: before the look, or what is seen may change.
                model._base_manager.using(alias).filter(pk=-1).update(**values)
            keys = list(rows.values_list("pk", flat=True))
            changed = model._base_manager.using(alias).filter(pk__in=keys)
            if not keys or not (changed.filter(only_if) if only_if is not None else changed).update(**values):
                return []
            return list(model._base_manager.using(alias).filter(pk__in=keys).values_list(*names))
        targets = model._base_manager.using(alias).filter(_ReadOnce(F("pk"), rows.values("pk")))
        if only_if is not None:
            targets = targets.filter(only_if)
        return _update(connection, targets, values, names)


class _ReadOnce(In):
    """``pk IN (subquery)``, and surely the same rows however often PostgreSQL looks.

    Its planner may run the subquery of an IN once for each row of the table: after the first row changed, a slice then
    yields the next ones, until all are changed. An array is made once.
    """

    def as_postgresql(self, compiler: Any, connection: BaseDatabaseWrapper) -> tuple[str, list[Any]]:
        left, left_params = self.process_lhs(compiler, connection)
        right, right_params = self.process_rhs(compiler, connection)
        return f"{left} = ANY(ARRAY{right})", [*left_params, *right_params]


def _has_returning(connection: BaseDatabaseWrapper) -> bool:
    """UPDATE … RETURNING: PostgreSQL always, SQLite from 3.35 on; Django's flag speaks of INSERT, which came together
    with it there and did not on MariaDB."""
    return connection.vendor in ("postgresql", "sqlite") and connection.features.can_return_columns_from_insert


def _update(
    connection: BaseDatabaseWrapper, targets: models.QuerySet[Any], values: Mapping[str, Any], names: Sequence[str]
) -> list[tuple[Any, ...]]:
    query: Any = targets.query.chain(UpdateQuery)
    query.add_update_values(dict(values))
    sql, params = query.get_compiler(connection=connection).as_sql()
    meta = targets.model._meta
    columns = [meta.get_field(name) for name in names]
    listed = ", ".join(connection.ops.quote_name(column.column) for column in columns)
    with connection.cursor() as cursor:
        cursor.execute(f"{sql} RETURNING {listed}", params)
        found = cursor.fetchall()
    converters = []
    for index, column in enumerate(columns):
        expression = column.get_col(meta.db_table)
        found_here = connection.ops.get_db_converters(expression) + expression.get_db_converters(connection)
        if found_here:
            converters.append((index, expression, found_here))
    if not converters:
        return list(found)
    rows = [list(row) for row in found]
    for index, expression, chain in converters:
        for row in rows:
            for convert in chain:
                row[index] = convert(row[index], expression, connection)
    return [tuple(row) for row in rows]
