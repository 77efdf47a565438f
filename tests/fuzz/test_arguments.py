"""Arguments: any object is published as its JSON, or refused by a `PublishError` with nothing written."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import CharField
from hypothesis import example, given
from hypothesis import strategies as st

from carrot.exceptions import InvalidTask, PublishError
from carrot.message import Message
from carrot.models import MessageLog
from carrot.registry import resolve, validate_task
from carrot.services import create_message, publish_many, publish_message
from tests.fuzz.strategies import (
    HUGE,
    Mischief,
    Wrapped,
    examples,
    generator,
    hostile,
    json_values,
    mutated,
    texts,
    undone,
    values,
)
from tests.rows import ADD, claim_of

pytestmark = pytest.mark.django_db

HERE = __name__
CHAR_FIELDS = [field for field in MessageLog._meta.get_fields() if isinstance(field, CharField)]


def takes_anything(*args: Any, **kwargs: Any) -> None:
    """A task."""


def takes_three(a: Any, b: Any = 0, *, c: Any = None) -> None:
    """A task."""


class LiesAboutItsClass:
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise Mischief


anything = values.map(Wrapped)
plain = (json_values | st.binary() | st.decimals() | st.sampled_from([256, 2**70, True, 1.0])).map(Wrapped)
lists = st.lists(values, max_size=4).map(Wrapped)
keywords = st.dictionaries(texts, values, max_size=3).map(Wrapped)


def as_received(value: Any) -> Any:
    return json.loads(json.dumps(value, cls=DjangoJSONEncoder))


@examples(200)
@given(lists, keywords)
@example(Wrapped([hostile("__getattr__")]), Wrapped({}))
@example(Wrapped([[LiesAboutItsClass()]]), Wrapped({}))
@example(Wrapped([]), Wrapped({"a": HUGE}))
@example(Wrapped([{1: 2, "1": 3}]), Wrapped({"self": 1, "args": 2, "kwargs": 3, "function": 4, "path": 5}))
def test_what_is_published_is_what_is_received_or_nothing_is(args: Wrapped, kwargs: Wrapped) -> None:
    with undone():
        try:
            row = create_message(takes_anything, None, 0, args.value, task_kwargs=kwargs.value).publish()
        except PublishError as error:
            told = str(error)
            row = None
        if row is None:
            assert not MessageLog.objects.exists()
            assert told.encode(), "a terminal can show it"
            return
        claim = claim_of(MessageLog.objects.get())
        expected = as_received([args.value, kwargs.value])
        assert [claim.args, claim.kwargs] == [row.args, row.kwargs] == expected
        again = MessageLog.objects.get().to_message()
        assert [list(again.args), again.kwargs] == expected
        assert again.call_text()


@examples(200)
@given(lists, keywords)
def test_a_call_that_does_not_fit_is_told_by_a_publish_error(args: Wrapped, kwargs: Wrapped) -> None:
    with undone():
        try:
            row = create_message(takes_three, None, 0, args.value, task_kwargs=kwargs.value).publish()
        except PublishError:
            assert not MessageLog.objects.exists()
        else:
            takes_three(*row.args, **row.kwargs)


@examples(200)
@given(anything, anything)
@example(Wrapped({"a": 1}), Wrapped([1]))
@example(Wrapped([1]), Wrapped({1: 2}))
@example(Wrapped([1]), Wrapped([1]))
@example(Wrapped(generator()), Wrapped({}))
@example(Wrapped(5), Wrapped(5))
def test_whatever_stands_for_the_arguments_is_read_once_or_refused(args: Wrapped, kwargs: Wrapped) -> None:
    for task in (takes_anything, takes_three):
        try:
            message = create_message(task, None, task_args=args.value, task_kwargs=kwargs.value)
        except PublishError:
            continue
        json.dumps([message.args, message.kwargs])


def test_an_iterator_gives_its_arguments_once() -> None:
    message = create_message(takes_three, None, task_args=(number for number in (1, 2)), task_kwargs={})
    assert message.args == (1, 2)


@examples(200)
@given(mutated(list(ADD), texts).map("".join) | texts)
@example("a." + "b" * 300)
@example("tests.app.tasks.\udc80")
@example(".tests")
def test_any_path_is_a_task_or_none(path: str) -> None:
    for find in (
        lambda: validate_task(path),
        lambda: create_message(path, None, task_args=[1, 2]).task,
        lambda: path if resolve(path, registered_only=True) else None,
        lambda: path if resolve(path, registered_only=False) else None,
    ):
        with suppress(InvalidTask):
            assert find() == path


@examples(200)
@given(plain, anything, anything, anything)
@example(Wrapped(256), Wrapped(["default"]), Wrapped("a\0b"), Wrapped("é" * 200))
def test_whatever_stands_for_the_options_is_used_or_refused(
    priority: Wrapped, queue: Wrapped, exchange: Wrapped, routing_key: Wrapped
) -> None:
    for options in (
        {"priority": priority.value},
        {"exchange": exchange.value},
        {"routing_key": routing_key.value},
        {"queue": queue.value},
    ):
        with undone():
            try:
                row = publish_message(takes_anything, **options)
            except PublishError:
                assert not MessageLog.objects.exists()
            else:
                row.refresh_from_db()
                assert row.to_message().priority == row.priority


@given(anything)
@example(Wrapped("a." + "b" * 300))
@example(Wrapped(datetime(2030, 1, 1)))  # noqa: DTZ001  # naive
@example(Wrapped(datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))))
def test_a_message_made_by_hand_is_published_or_refused(value: Wrapped) -> None:
    good = {"task": f"{HERE}.takes_anything", "queue": "default", "routing_key": "default"}
    for name in ("task", "queue", "routing_key", "exchange", "priority", "uuid", "run_after"):
        with undone():
            try:
                publish_many([Message(**good), Message(**{**good, name: value.value})])
            except PublishError:
                assert not MessageLog.objects.exists()
            else:
                assert MessageLog.objects.count() == 2
                for row in MessageLog.objects.all():
                    assert all(len(getattr(row, field.name)) <= field.max_length for field in CHAR_FIELDS), "PostgreSQL"
