"""Which arguments a task takes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from carrot.exceptions import InvalidArguments
from carrot.signatures import check_call, parameter_names, reserved_parameters, signature_of, signature_text

if TYPE_CHECKING:
    from no_such_package import NoSuchType  # type: ignore[import-not-found]

HERE = __name__


def add(a: int, b: int = 2, *, flag: bool = False) -> int:
    return a + b


def anything(*args: Any, **kwargs: Any) -> None:
    pass


def strict(a: int, /) -> None:
    pass


def annotated(a: NoSuchType) -> NoSuchType:
    return a


def reserved(queue: str, priority: int, *, exchange: str = "") -> None:
    pass


def positional_only(queue: str, /, **routing_key: str) -> None:
    pass


class Secretive:
    def __repr__(self) -> str:
        raise ValueError("no text")


def odd_defaults(a: Any = Secretive(), b: str = "x" * 100, c: Any = None) -> None:  # noqa: B008
    pass


def keyworded(self: int, task: int, args: int, kwargs: int) -> None:
    pass


def injecting(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function("injected", *args)

    return wrapper


@injecting
def injected(connection: str, a: int) -> None:
    pass


def unreadable(a: int) -> None:
    pass


unreadable.__signature__ = "nonsense"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        ("add", (1,), {}),
        ("add", (1, 2), {"flag": True}),
        ("add", (), {"a": 1}),
        ("anything", (1, 2, 3), {"x": 1, "self": 2}),
        ("strict", (1,), {}),
        ("annotated", (1,), {}),
        ("keyworded", (), {"self": 1, "task": 2, "args": 3, "kwargs": 4}),
        ("unreadable", (1, 2, 3), {"x": 1}),
    ],
)
def test_arguments_that_fit_pass(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    check_call(f"{HERE}.{name}", args, kwargs)


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "parts"),
    [
        ("add", (), {}, ["'a'", "add(a, b=2, *, flag=False)"]),
        ("add", (1, 2, 3), {}, ["too many positional arguments, 3 given"]),
        ("add", (1,), {"a": 1}, ["multiple values for argument 'a'"]),
        ("add", (1,), {"flg": 1}, ["'flg'", "Did you mean 'flag'?"]),
        ("add", (1,), {"zzz": 1}, ["unexpected keyword argument 'zzz'"]),
        ("strict", (), {"a": 1}, ["'a'"]),
        ("annotated", (), {}, ["'a'", "annotated(a)"]),
        ("injected", (1,), {}, ["'a'", "__signature__"]),
    ],
)
def test_arguments_that_do_not_fit_are_refused_by_name(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], parts: list[str]
) -> None:
    with pytest.raises(InvalidArguments) as caught:
        check_call(f"{HERE}.{name}", args, kwargs)
    assert isinstance(caught.value, TypeError)
    assert all(part in str(caught.value) for part in [f"{HERE}.{name}(", *parts])


def test_a_refusal_stays_short_whatever_the_names() -> None:
    with pytest.raises(InvalidArguments) as caught:
        check_call(f"{HERE}.add", (1,), {"x" * 100_000: 1})
    assert len(str(caught.value)) < 500


def test_parameters_that_publish_message_takes_are_reserved() -> None:
    assert reserved_parameters(f"{HERE}.reserved") == ("queue", "priority", "exchange")
    assert reserved_parameters(f"{HERE}.add") == ()
    assert reserved_parameters(f"{HERE}.anything") == ()
    assert reserved_parameters(f"{HERE}.unreadable") == ()


def test_a_parameter_that_is_only_filled_by_position_is_not_reserved() -> None:
    assert reserved_parameters(f"{HERE}.positional_only") == ()


def test_parameter_names_are_those_that_positions_fill() -> None:
    assert parameter_names(f"{HERE}.add") == ("a", "b")
    assert parameter_names(f"{HERE}.anything") == ()
    assert parameter_names(f"{HERE}.unreadable") == ()


def test_signatures_are_shown_without_annotations_and_long_defaults() -> None:
    assert signature_text(add) == "(a, b=2, *, flag=False)"  # type: ignore[arg-type]
    assert signature_text(odd_defaults) == "(a=…, b=…, c=None)"  # type: ignore[arg-type]
    assert signature_text(unreadable) == "(…)"  # type: ignore[arg-type]


def test_a_signature_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = signature_of(add)  # type: ignore[arg-type]
    monkeypatch.setattr(inspect, "signature", None)
    assert signature_of(add) is first  # type: ignore[arg-type]
