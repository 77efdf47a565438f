"""What comes in: text with everything in it, values of every kind, objects that make trouble, and almost good input."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, time, timedelta, timezone
from enum import Enum
from pathlib import PurePosixPath
from typing import Any, NoReturn

from django.db import transaction
from django.utils.functional import lazy
from django.utils.translation import gettext_lazy
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

LONG = os.environ.get("CARROT_FUZZ") == "long"

#: More digits than Python turns into text.
HUGE = 10**5000


def examples(count: int) -> settings:
    """For a test whose examples are dear, or cheap: how many it takes."""
    return settings(max_examples=count * (100 if LONG else 1))


class Wrapped:
    """A value for a test. Where it fails Hypothesis shows it, which not every value lets it do."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"Wrapped({_printer.repr(self.value)})"


class _Printer(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if abs(x) < HUGE else "HUGE"


_printer = _Printer()
_printer.maxstring = _printer.maxother = 200


@contextmanager
def undone() -> Iterator[None]:
    """What is written inside is rolled back: all examples of a test share its transaction."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


# -- text -------------------------------------------------------------------------------------------------------------

#: NUL and lone surrogates too.
characters = st.characters(exclude_categories=())
texts = st.text(characters, max_size=20) | st.sampled_from(
    ["", "\0", "a\0b", "\udc80", "\ud83e\udd55", "\ufeff", "é", "\u202e", "a\nb", "{{ x }}", "%s", "<script>", "'", '"']
)


# -- objects that make trouble ----------------------------------------------------------------------------------------


class Mischief(Exception):
    """What hostile objects raise; its own text raises too."""

    def __str__(self) -> NoReturn:
        raise RuntimeError("no text")

    __repr__ = __str__


def _mischief(*args: Any) -> NoReturn:
    raise Mischief


def hostile(*methods: str) -> object:
    """An object whose methods of these names raise."""
    return type("Hostile", (), dict.fromkeys(methods, _mischief))()


class Unsettled(Enum):
    A = "a"


def generator() -> Iterator[int]:
    yield 1


def itself(kind: type) -> Any:
    """A list or a dict that contains itself."""
    found: Any = kind()
    if isinstance(found, list):
        found.append([found])
    else:
        found["a"] = {"b": found}
    return found


def nested(depth: int, kind: type = list) -> Any:
    """Lists or dicts within each other."""
    value: Any = kind()
    for _ in range(depth - 1):
        value = [value] if kind is list else {"a": value}
    return value


#: Made anew for each example: some of them can be used once.
makers: dict[str, Callable[[], Any]] = {
    "no text": lambda: hostile("__repr__", "__str__"),
    "no equality": lambda: hostile("__eq__", "__ne__"),
    "no text, equality and hash": lambda: hostile("__repr__", "__str__", "__eq__", "__hash__"),
    "no truth": lambda: hostile("__bool__", "__len__"),
    "no attributes": lambda: hostile("__getattr__"),
    "no items": lambda: hostile("__iter__", "__getitem__"),
    "no order": lambda: hostile("__lt__", "__le__", "__gt__", "__ge__"),
    "an object": object,
    "an object of a nameless class": lambda: type("", (), {})(),
    "a huge number": lambda: HUGE,
    "a huge negative number": lambda: -HUGE,
    "a generator": generator,
    "a function": lambda: hostile,
    "an enum": lambda: Unsettled.A,
    "a list in itself": lambda: itself(list),
    "a dict in itself": lambda: itself(dict),
    "a list too deep for us": lambda: nested(101),
    "a list too deep for Python": lambda: nested(3000),
    "a dict too deep for Python": lambda: nested(3000, dict),
    "a translation": lambda: gettext_lazy("Delete"),
    "a translation that raises": lambda: lazy(_mischief, str)(),
    "a translation to NUL": lambda: lazy(lambda: "\0", str)(),
    "a path": lambda: PurePosixPath("a/b"),
    "an error": Mischief,
    "memory": lambda: memoryview(b"abc"),
    "a range": lambda: range(3),
}
troublemakers = st.sampled_from(sorted(makers)).map(lambda name: makers[name]())


# -- values -----------------------------------------------------------------------------------------------------------

json_leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
leaves = (
    json_leaves
    | st.floats()
    | st.sampled_from([2**63, -(2**63) - 1, 0, 1, -1, float("nan"), 255, 256, True])
    | st.binary(max_size=10)
    | st.decimals()
    | st.datetimes(timezones=st.none() | st.sampled_from([timezone.utc, timezone(timedelta(hours=14))]))
    | st.builds(date.fromordinal, st.integers(1, date.max.toordinal()))
    | st.timedeltas()
    | st.builds(time, st.integers(0, 23), tzinfo=st.none() | st.just(timezone.utc))
    | st.uuids()
    | st.complex_numbers()
    | troublemakers
)
keys = st.one_of(texts, st.integers(), st.booleans(), st.none(), st.floats(), st.binary(max_size=3), st.tuples(texts))


def _containers(inner: SearchStrategy[Any]) -> SearchStrategy[Any]:
    few = {"max_size": 3}
    return (
        st.lists(inner, **few)
        | st.lists(inner, **few).map(tuple)
        | st.dictionaries(texts, inner, **few)
        | st.dictionaries(keys, inner, **few)
        | st.frozensets(keys, **few)
    )


json_values = st.recursive(
    json_leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)
#: Anything at all.
values = st.recursive(leaves, _containers, max_leaves=6)


# -- on the wire ------------------------------------------------------------------------------------------------------

#: As pika decodes them: text, or bytes where they are not UTF-8.
wire_texts = st.text(max_size=20) | st.sampled_from(["", "\0", "é", "a\nb", b"\xff\xfe", "x" * 255])
wire_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        wire_texts,
        st.binary(max_size=10),
        st.decimals(allow_nan=False, allow_infinity=False, places=2),
        st.datetimes(timezones=st.just(timezone.utc)),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(wire_texts, inner, max_size=3),
    max_leaves=6,
)


# -- almost good input ------------------------------------------------------------------------------------------------


@st.composite
def mutated(draw: DrawFn, good: Any, worse: SearchStrategy[Any] = values) -> Any:
    """``good``, made of dicts and lists, with a few places in it changed, renamed, taken out or put in."""
    result = good
    for _ in range(draw(st.integers(1, 3))):
        result = _changed(draw, result, worse)
    return result


def _changed(draw: DrawFn, value: Any, worse: SearchStrategy[Any]) -> Any:
    if type(value) not in (dict, list) or not value or draw(st.integers(0, 9)) == 0:
        return draw(worse)
    value = value.copy()
    place: Any = draw(st.sampled_from(list(value) if isinstance(value, dict) else range(len(value))))
    what = draw(st.sampled_from(["deeper", "deeper", "deeper", "out", "in", "rename"]))
    if what == "deeper":
        value[place] = _changed(draw, value[place], worse)
    elif what == "out":
        del value[place]
    elif isinstance(value, list):
        value.insert(place, draw(worse))
    elif what == "in":
        value[draw(keys)] = draw(worse)
    else:
        name = str(place)
        index = draw(st.integers(0, len(name)))
        value[name[:index] + draw(texts) + name[index + draw(st.integers(0, 1)) :]] = value.pop(place)
    return value
