"""What has no JSON form, or none that a database can store: where it is in a value, and what to pass instead.

Only for values that the encoder refused or that look suspicious: this walks through everything, and takes its time.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import io
import json
import math
import os
import types
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any

from django.core.files.base import File
from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import Manager, Model
from django.db.models.query import QuerySet

#: levels of lists and dictionaries in one argument; far below what the JSON readers of Python and databases survive
MAX_DEPTH = 100

#: digits of the longest whole number that Python, as it comes, turns into text and back
MAX_DIGITS = 4300
_HUGE = 10**MAX_DIGITS

_ENCODER = DjangoJSONEncoder(ensure_ascii=False, allow_nan=False)


def to_json(value: object) -> str:
    """The JSON text of a value. Raises TypeError, ValueError or RecursionError where it has none."""
    return _ENCODER.encode(value)


def depth(value: object) -> int:
    """How many lists and dictionaries are nested in a value that has a JSON text (1 for a flat list)."""
    found, level = 0, [value]
    while level := [item for item in level if isinstance(item, (list, tuple, dict))]:
        found += 1
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return found


def faults(value: object) -> Iterator[tuple[str, str]]:
    """What is wrong in a value, depth first: pairs of the place in it, as ``[3]['owner']``, and what is wrong there.

    The place is "" where it is the value itself. The second text goes on after the place, and ends with the cure.
    """
    return _faults(value, "", ())


def type_name(value: object) -> str:
    """Where a value's class lives, in at most 100 characters: classes made at run time can have any name."""
    try:
        name = f"{type(value).__module__}.{type(value).__qualname__}"
    except Exception:
        return "a class without a readable name"
    return (name if name.isprintable() else ascii(name)[1:-1]).removeprefix("builtins.")[:100]


def short(value: object) -> str:
    """The beginning of a value's repr; the name of its type if it has none (huge numbers, broken classes)."""
    try:
        text = repr(value)
    except Exception:
        return f"<{type_name(value)}>"
    return text if len(text) <= 50 else f"{text[:50]}…"


def error_text(error: BaseException) -> str:
    """``ValueError: text``, also where the error cannot tell its text."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return f"{type(error).__name__} (its text could not be read)"


def _faults(value: Any, place: str, above: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    """What is wrong in a value, depth first; ``above`` are the ids of the containers it is in."""
    if isinstance(value, (list, tuple, dict)):
        if id(value) in above:
            yield place, "contains itself: pass plain data without cycles, for instance ids that refer to each other"
        elif len(above) >= MAX_DEPTH:
            yield (
                "",
                f"is nested more than {MAX_DEPTH} levels deep: pass a flatter structure, or a reference to stored data",
            )
        elif isinstance(value, dict):
            yield from _faults_of_dict(value, place, (*above, id(value)))
        else:
            for index, item in enumerate(value):
                yield from _faults(item, f"{place}[{index}]", (*above, id(value)))
    elif isinstance(value, str):
        problem = bad_text(value)
        if problem is not None:
            yield place, problem
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield place, f"is {value}, which JSON does not have: pass None or a text for it"
    elif isinstance(value, int) and abs(value) >= _HUGE:
        too_long = f"is a whole number of more than {MAX_DIGITS:,} digits, which Python reads only if told to"
        yield place, f"{too_long}: pass it as text, and convert it in the task"
    elif value is not None:
        try:
            encoded = to_json(value)
        except Exception as error:
            yield place, f"is {_what(value)}, which JSON does not have: {_cure(value, error)}"
        else:
            # A lazy string: fine by itself, but its text may not be.
            yield from _faults(json.loads(encoded), place, above) if '"' in encoded else ()


def _faults_of_dict(value: dict[Any, Any], place: str, above: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    for key, item in value.items():
        inner = f"{place}[{short(key)}]"
        if isinstance(key, str):
            problem = bad_text(key)
            if problem is not None:
                yield inner, f"has a key that {problem}"
        elif isinstance(key, float) and not math.isfinite(key):
            yield place, f"has the key {key}, which JSON does not have: use a text for it"
        elif isinstance(key, int):
            if abs(key) >= _HUGE:
                yield place, "has a number with thousands of digits as a key: use a shorter text for it"
        elif key is not None and not isinstance(key, float):
            yield place, f"has a key of type {type_name(key)}: keys are text, numbers, booleans or None; use str(key)"
        yield from _faults(item, inner, above)


def bad_text(text: str) -> str | None:
    position = text.find("\0")
    if position >= 0:
        return (
            f"contains a NUL character (\\u0000) at position {position}, which PostgreSQL cannot store: "
            "remove it, or pass binary data as base64 text"
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return (
            f"contains a lone surrogate (\\u{ord(text[error.start]):04x}) at position {error.start}, which is not "
            "Unicode text: decode the bytes it came from with the right encoding, or pass them as base64 text"
        )
    return None


def _what(value: object) -> str:
    if isinstance(value, Model):
        return f"a model instance ({value._meta.label})"
    if isinstance(value, (QuerySet, Manager)):
        return f"a {type(value).__name__} of {value.model._meta.label}"
    name = getattr(value, "__name__", "")
    return "a lambda" if name == "<lambda>" else f"of type {type_name(value)}"


#: what to pass instead, first match wins
_CURES: tuple[tuple[Callable[[Any], bool], str], ...] = (
    (lambda value: isinstance(value, Model), "pass its pk and load it in the task"),
    (
        lambda value: isinstance(value, (QuerySet, Manager)),
        'pass a list of pks, list(queryset.values_list("pk", flat=True)), and load them in the task',
    ),
    (
        lambda value: isinstance(value, (bytes, bytearray, memoryview)),
        "pass text: value.decode(), or base64.b64encode(value).decode() for binary data",
    ),
    (lambda value: isinstance(value, enum.Enum), "pass its .value"),
    (lambda value: isinstance(value, os.PathLike), "pass str(path)"),
    (
        lambda value: isinstance(value, (io.IOBase, File)) or hasattr(value, "fileno"),
        "pass the path or the storage name of the file and open it in the task",
    ),
    (
        lambda value: isinstance(value, (types.CoroutineType, types.AsyncGeneratorType)),
        "await it and pass what it gives",
    ),
    (
        lambda value: isinstance(value, Set) and not isinstance(value, Sequence),
        "pass a list, for instance sorted(value)",
    ),
    (
        lambda value: isinstance(value, (Iterator, Mapping, range)) or hasattr(value, "__iter__"),
        "pass a list or a dictionary made of it: list(value) or dict(value)",
    ),
    (lambda value: inspect.isclass(value), "pass its name"),
    (lambda value: callable(value), "pass data; the task can import the function it needs, or get its dotted path"),
    (lambda value: dataclasses.is_dataclass(value), "pass dataclasses.asdict(value)"),
    (lambda value: isinstance(value, BaseException), "pass str(error)"),
    (lambda value: isinstance(value, int), "pass it as text, and convert it in the task"),
    (lambda value: hasattr(value, "isoformat"), "pass value.isoformat()"),
)
ANY_CURE = "pass text, numbers, booleans, None, or lists and dictionaries of these"


def _cure(value: object, error: Exception) -> str:
    if not isinstance(error, (TypeError, ValueError)):
        return f"reading it raised {error_text(error)}"
    for matches, cure in _CURES:
        if matches(value):
            return cure
    return ANY_CURE if isinstance(error, TypeError) else f"{ANY_CURE} ({error_text(error)})"
