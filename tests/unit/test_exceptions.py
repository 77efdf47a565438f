"""The tree of errors: what an `except` of a project catches."""

from __future__ import annotations

import re

import pytest

from carrot import exceptions


def drawn_tree() -> dict[str, tuple[str, set[str]]]:
    """Name of each error of the docstring's drawing → its parent by indentation, and its other bases in brackets."""
    drawing = (exceptions.__doc__ or "").split("::")[1]
    parents: list[str] = []
    found = {}
    for line in drawing.partition("\n\nEvery")[0].splitlines():
        match = re.match(r"([ │├└─]*)([A-Z]\w+)(?:\((\w+)\))?", line)
        if match and match[2]:
            depth = (len(match[1]) - 4) // 4
            del parents[depth:]
            found[match[2]] = (parents[-1] if parents else "Exception", {match[3]} - {None})
            parents.append(match[2])
    return found


def test_the_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    defined = {
        name: tuple(base.__name__ for base in each.__bases__)
        for name, each in vars(exceptions).items()
        if isinstance(each, type) and issubclass(each, Exception)
    }
    assert {name: (parent, *others) for name, (parent, others) in drawn_tree().items()} == defined


@pytest.mark.parametrize(
    ("error", "caught_as"),
    [
        (exceptions.TaskImportError, ImportError),
        (exceptions.TaskAttributeError, AttributeError),
        (exceptions.InvalidArguments, TypeError),
        (exceptions.UnknownQueue, exceptions.CarrotConfigException),
        (exceptions.UnknownQueue, exceptions.PublishError),
        (exceptions.TaskImportError, exceptions.InvalidTask),
        (exceptions.BrokerRefused, exceptions.BrokerError),
    ],
)
def test_errors_are_caught_as_what_1_x_raised_and_as_errors_of_carrot(
    error: type[exceptions.CarrotError], caught_as: type[Exception]
) -> None:
    with pytest.raises(caught_as, match="the text") as caught:
        raise error("the text")
    assert isinstance(caught.value, exceptions.CarrotError)


def test_an_unknown_queue_is_no_error_of_the_task() -> None:
    assert not issubclass(exceptions.UnknownQueue, exceptions.InvalidTask)
