"""Rows of every model of carrot with hostile text in every column that takes text, found by looking at the models."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from string import ascii_lowercase
from typing import Any

from django.apps import apps
from django.db import IntegrityError, connection, models, transaction

from carrot import clock
from carrot.models.columns import JSONTextField
from tests.security import hostile


def all_models() -> list[Any]:
    """The models with tables of their own, those that others refer to first."""
    found: list[Any] = []
    left = [model for model in apps.get_app_config("carrot").get_models() if not model._meta.proxy]
    while left:
        model = next(one for one in left if not set(_targets(one)) & set(left) - {one})
        left.remove(model)
        found.append(model)
    return found


def text_fields(model: Any) -> list[Any]:
    """The columns that take text."""
    return [field for field in model._meta.concrete_fields if isinstance(field, models.CharField | models.TextField)]


def marks() -> dict[str, str]:
    """The mark of each column: ``{"xq7aa": "attempt.worker", …}``."""
    return {
        f"{hostile.TOKEN}{ascii_lowercase[first]}{ascii_lowercase[second]}": f"{model._meta.model_name}.{field.name}"
        for first, model in enumerate(all_models())
        for second, field in enumerate(text_fields(model))
    }


def populate() -> set[str]:
    """Makes the rows: of each model each hostile text in each column, in each of the model's states.

    And each in the columns that have choices; returns those of them where the database refuses it.
    """
    by_column = {column: mark for mark, column in marks().items()}
    made: dict[Any, list[Any]] = {}
    for model in all_models():
        made[model] = list(model.objects.bulk_create(model(**values) for values in _rows(model, by_column, made)))
    return {name for model in all_models() for name in _unknown_choices(model, by_column, made)}


def _unknown_choices(model: Any, by_column: dict[str, str], made: dict[Any, list[Any]]) -> Iterator[str]:
    """What a later version or a hand may have left in a column that has choices; yields those that refuse it."""
    for field in [field for field in text_fields(model) if field.choices]:
        column = f"{model._meta.model_name}.{field.name}"
        rows = list(_rows(model, by_column, made, offset=1000))[: len(hostile.NAMES)]
        for row, text in zip(rows, hostile.texts(by_column[column]), strict=True):
            row[field.name] = text[: field.max_length]
        try:
            with transaction.atomic():
                model.objects.bulk_create(model(**values) for values in rows)
        except IntegrityError:
            yield column


def _targets(model: Any) -> Iterator[Any]:
    return (field.related_model for field in model._meta.concrete_fields if field.is_relation)


def _rows(
    model: Any, by_column: dict[str, str], made: dict[Any, list[Any]], offset: int = 0
) -> Iterator[dict[str, Any]]:
    fields = text_fields(model)
    states = max([len(field.choices) for field in fields if field.choices], default=1)
    nul = connection.vendor == "sqlite"
    texts = {field: hostile.texts(by_column[f"{model._meta.model_name}.{field.name}"], nul=nul) for field in fields}
    for which in range(max(map(len, texts.values()), default=1)):
        for state in range(states):
            number = offset + which * states + state
            values = {field.name: _value(field, number, made) for field in model._meta.concrete_fields}
            for field in fields:
                if field.choices:
                    values[field.name] = field.choices[state % len(field.choices)][0]
                else:
                    values[field.name] = _text(field, texts[field][which], number)
            yield {name: value for name, value in values.items() if value is not None}


def _text(field: Any, text: str, number: int) -> Any:
    if isinstance(field, JSONTextField):
        return {text: [text, {text: text}]} if field.get_default() == {} else [text, {text: text}]
    end = str(number) if field.unique else ""
    return text[: field.max_length - len(end) if field.max_length else None] + end


def _value(field: Any, number: int, made: dict[Any, list[Any]]) -> Any:
    """Any value of a column that takes no text."""
    if field.primary_key:
        return None
    if field.is_relation:
        rows = made[field.related_model]
        return rows[number % len(rows)]
    if isinstance(field, models.UUIDField):
        return uuid.uuid4()
    if isinstance(field, models.DateTimeField):
        return clock.now()
    return field.get_default() or 1
