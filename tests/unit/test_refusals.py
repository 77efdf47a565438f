"""What cannot be published is refused where it is published, with the argument and the cure; nothing is written."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

from carrot.exceptions import (
    CarrotConfigException,
    InvalidArguments,
    PublishError,
    TaskAttributeError,
    TaskImportError,
    UnknownQueue,
)
from carrot.models import MessageLog
from carrot.services import create_message, publish_message
from carrot.utilities import get_host_from_name, validate_task
from tests.app.models import Effect
from tests.app.tasks import add, noop, sleep
from tests.rows import ADD

pytestmark = pytest.mark.django_db


class Shop:
    def pays(self) -> None:
        """A method."""


def nested() -> Callable[..., None]:
    def inner() -> None:
        """A nested function."""

    return inner


def from_a_shell() -> types.FunctionType:
    """A function as it is typed into ``manage.py shell``."""
    names: dict[str, Any] = {"__name__": "__console__"}
    exec(compile("def my_task(**kwargs):\n    return 'hello world'", "<console>", "exec"), names)
    function = names["my_task"]
    assert isinstance(function, types.FunctionType)
    return function


@pytest.mark.parametrize(
    ("task", "text"),
    [
        (lambda: None, r"lambda.*def"),
        (nested(), r"inside another function.*top level"),
        (Shop().pays, r"method.*pk"),
        (Shop.pays, r"method"),
        (functools.partial(add, 1), r"functools\.partial.*as arguments"),
        (Shop, r"class"),
        (len, r"built into Python"),
        (None, r"not a function"),
        (add(1, 2), r"not a function.*f and not f\(\)"),
        (from_a_shell(), r"my_task.*shell.*tasks\.py"),
        ("tests.app.tasks.ad", r"did you mean 'add'"),
        ("tests.app.tasks", r"tasks.*module"),
    ],
)
def test_what_no_worker_could_import_is_no_task(task: Any, text: str) -> None:
    with pytest.raises(TaskAttributeError, match=text) as found:
        publish_message(task)
    assert isinstance(found.value, AttributeError)
    with pytest.raises(AttributeError):
        create_message(task, "default")
    with pytest.raises(AttributeError):
        validate_task(task)
    assert not MessageLog.objects.exists()


@pytest.mark.parametrize("path", ["no.such.module.task", "tests.app.no_such.task", "add", "", "a b.c", "tests..add"])
def test_a_path_that_does_not_import_is_an_import_error(path: str) -> None:
    with pytest.raises(ImportError) as found:
        publish_message(path)
    assert isinstance(found.value, TaskImportError)
    assert isinstance(found.value, PublishError)


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ((1,), {}, r"missing.*'b'"),
        ((1, 2, 3), {}, r"too many positional"),
        ((1, 2), {"c": 3}, r"'c'"),
        ((1, 2), {"b": 3}, r"'b'"),
    ],
)
def test_a_call_that_does_not_fit_the_function_is_refused_with_its_signature(
    args: tuple[Any, ...], kwargs: dict[str, Any], text: str
) -> None:
    with pytest.raises(InvalidArguments, match=text) as found:
        publish_message(ADD, *args, **kwargs)
    assert isinstance(found.value, TypeError)
    assert "tests.app.tasks.add(a" in str(found.value)
    assert not MessageLog.objects.exists()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Effect(pk=3), r"model instance \(app\.Effect\).*pass its pk"),
        (Effect.objects.all(), r"QuerySet.*pks"),
        (float("nan"), r"[Nn]a[Nn]"),
        (float("inf"), r"[Ii]nf"),
        ({1, 2}, r"set.*list"),
        (b"bytes", r"bytes.*decode"),
        (object(), r"object"),
        ("NUL \0", r"NUL"),
        ("\udc80", r"surrogate"),
    ],
)
def test_what_is_no_json_is_refused_with_the_argument_and_the_cure(value: Any, text: str) -> None:
    with pytest.raises(InvalidArguments, match=text) as found:
        publish_message(ADD, 1, b=value)
    assert "`b`" in str(found.value)
    with pytest.raises(InvalidArguments, match=r"`?a\["):
        publish_message(ADD, [1, value], 2)
    assert not MessageLog.objects.exists()


def test_arguments_that_are_too_large_are_refused_and_the_largest_is_named(settings: Any) -> None:
    settings.CARROT = {"default_broker": "database://", "max_arguments_size": 2000}
    publish_message(ADD, "x" * 1900, "y")
    with pytest.raises(InvalidArguments, match=r"2,000 allowed.*argument 1.*model or a file"):
        publish_message(ADD, "x" * 2000, "y")
    assert MessageLog.objects.count() == 1


def test_an_unknown_queue_is_refused_with_the_valid_ones(settings: Any) -> None:
    settings.CARROT = {"default_broker": "database://", "queues": [{"name": "default"}, {"name": "mail"}]}
    for publish in (publish_message, lambda task, queue: create_message(task, queue)):
        with pytest.raises(UnknownQueue, match=r'"?no such"?.*default.*mail'):
            publish(noop, queue="no such")
    with pytest.raises(CarrotConfigException):
        get_host_from_name("no such")
    assert get_host_from_name("") == get_host_from_name(None) == get_host_from_name("mail")
    assert not MessageLog.objects.exists()


@pytest.mark.parametrize("priority", [-1, 256, 1.5, "high", True])
def test_a_priority_outside_of_amqp_is_refused(priority: Any) -> None:
    with pytest.raises(InvalidArguments, match="priority"):
        publish_message(noop, priority=priority)


@pytest.mark.parametrize("name", ["exchange", "routing_key"])
def test_a_name_that_amqp_cannot_carry_is_refused(name: str) -> None:
    with pytest.raises(InvalidArguments, match=rf"{name}.*255 bytes"):
        publish_message(noop, **{name: "é" * 200})


def test_every_refusal_is_a_publish_error() -> None:
    for call in (
        lambda: publish_message(lambda: None),
        lambda: publish_message("no.such"),
        lambda: publish_message(sleep),
        lambda: publish_message(sleep, object()),
        lambda: publish_message(noop, queue="no such"),
    ):
        with pytest.raises(PublishError):
            call()
    assert not MessageLog.objects.exists()
    assert "no.such" not in sys.modules
