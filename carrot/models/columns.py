"""Column and index types of carrot's tables."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models.sql.query import Query
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    _TextField = models.TextField[Any, Any]
else:  # at run time Django's fields take no parameters
    _TextField = models.TextField


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """Stands for a value whose text is no JSON, as only a hand writes it, or none that this process can decode.

    So one such row does not stand in the way of the others that are read with it. Written back, it is the same text.
    Whoever takes it for arguments gets the ``ValueError`` of its reading, as late as that.
    """

    text: str = field(repr=False)  # may hold secrets
    reason: str

    def __iter__(self) -> NoReturn:
        raise ValueError(
            f"What is stored is no JSON that this process can read: {self.reason}. "
            "Correct the row, or publish the task again with other arguments."
        )

    keys = __iter__


class JSONTextField(_TextField):
    """A JSON value kept as readable text.

    Django's own ``JSONField`` escapes non-ASCII text on SQLite and needs a cast on PostgreSQL, so that
    ``kwargs__icontains="Café"`` finds nothing or cannot use the column. Here the column *is* the text
    (``ensure_ascii=False``): every text lookup works alike on every database, on the value as it is read.
    NULL stands for no value; a JSON ``null`` is the text ``null``. A text that is no JSON is read as
    :class:`Unreadable`.
    """

    description = _("JSON as text")

    if TYPE_CHECKING:  # what mypy's plugin for Django takes for the type of the attribute
        _pyi_private_set_type: Any
        _pyi_private_get_type: Any

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> Any:
        if value is None:
            return None
        try:
            return json.loads(value)
        except (ValueError, RecursionError) as error:
            return Unreadable(text=value, reason=str(error))

    def to_python(self, value: Any) -> Any:
        return value

    def get_prep_value(self, value: Any) -> str | None:
        """The JSON text of ``value``. Text lookups (``contains``, ``regex``…) do not pass here: they compare as
        typed."""
        if value is None or hasattr(value, "resolve_expression"):
            return value  # type: ignore[no-any-return]
        if isinstance(value, Unreadable):
            return value.text
        return json.dumps(value, ensure_ascii=False, allow_nan=False)

    def value_to_string(self, obj: models.Model) -> Any:
        """The value itself, as Django's own JSONField: a fixture holds JSON, not a text of it."""
        return self.value_from_object(obj)

    def validate(self, value: Any, model_instance: models.Model | None) -> None:
        super().validate(value, model_instance)
        try:
            self.get_prep_value(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValidationError(_("This is not JSON: %(error)s"), params={"error": error}) from error


class PartialIndex(models.Index):
    """An index over the rows that match ``where``; the whole table where the database has no partial indexes.

    Each index costs every task three writes (insert, claim, outcome). A partial one costs only the transitions into
    its condition. Django's own ``condition`` makes every MySQL user see warning ``models.W037``; this does the same
    without it: the condition is dropped there and the index stays correct.
    """

    def __init__(self, *fields: str, where: models.Q, name: str) -> None:
        self.where = where
        super().__init__(fields=fields, name=name)

    def _get_condition_sql(self, model: type[models.Model], schema_editor: Any) -> str | None:
        if not schema_editor.connection.features.supports_partial_indexes:
            return None
        query = Query(model=model, alias_cols=False)
        compiler = query.get_compiler(connection=schema_editor.connection)
        sql, params = query.build_where(self.where).as_sql(compiler, schema_editor.connection)
        return str(sql % tuple(schema_editor.quote_value(param) for param in params))

    def deconstruct(self) -> Any:
        _path, _args, kwargs = super().deconstruct()
        fields = kwargs.pop("fields")
        return "carrot.models.columns.PartialIndex", fields, {**kwargs, "where": self.where}
