"""What fits the code of this process, and what is a mistake of the task itself."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from carrot import clock, invocation
from carrot.exceptions import InvalidArguments, TaskAttributeError, TaskImportError
from carrot.invocation import DoesNotFit, Patience, call, function_of
from tests.rows import unsaved_claim

HERE = __name__


def _doubled(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs) * 2

    return wrapper


@_doubled
def decorated(value: int) -> int:
    return value


async def in_a_coroutine(value: int) -> int:
    return value


def raises_a_type_error(value: Any) -> int:
    return value + 1


def run(name: str, *args: Any, **changes: Any) -> Any:
    claim = unsaved_claim(f"{HERE}.{name}", *args, **changes)
    return call(function_of(claim), claim)


def test_what_fits_is_called() -> None:
    assert run("decorated", 2) == 4
    assert run("in_a_coroutine", 2) == 2


@pytest.mark.parametrize(
    ("path", "error"),
    [(f"{HERE}.nothing", TaskAttributeError), ("no_such_package.tasks.work", TaskImportError)],
)
def test_an_unknown_function_does_not_fit(path: str, error: type[Exception]) -> None:
    with pytest.raises(DoesNotFit) as caught:
        function_of(unsaved_claim(path))
    assert isinstance(caught.value.error, error)


@pytest.mark.parametrize("name", ["decorated", "in_a_coroutine", "raises_a_type_error"])
@pytest.mark.parametrize("args", [[], [1, 2]])
def test_arguments_that_the_function_does_not_take_do_not_fit(name: str, args: list[int]) -> None:
    with pytest.raises(DoesNotFit) as caught:
        run(name, *args)
    assert isinstance(caught.value.error, InvalidArguments)


def test_a_type_error_within_the_function_is_its_own() -> None:
    with pytest.raises(TypeError, match="can only concatenate str"):
        run("raises_a_type_error", "text")


def test_patience_is_counted_for_each_task_from_when_it_was_first_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(clock, "monotonic", lambda: now)
    patience = Patience(10.0)
    one, two = unsaved_claim(id=1), unsaved_claim(id=2)
    assert patience.lasts(one)
    now += 6
    assert patience.lasts(two)
    now += 5
    assert patience.lasts(two)
    assert not patience.lasts(one)
    assert patience.lasts(one)  # its end is written by now: the next time is another one
    assert not Patience(0.0).lasts(one)


def test_no_more_tasks_are_remembered_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invocation, "REMEMBERED", 3)
    patience = Patience(10.0)
    for number in range(10):
        assert patience.lasts(unsaved_claim(id=number))
    assert len(patience._since) == 3
