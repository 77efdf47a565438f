"""The JSON of arguments and results.

Receives what user code passes to a task or returns from one; hands on JSON text that every supported database and the
wire can hold. Arguments that are not JSON are refused with the place and the cure, because the function must receive
what its caller meant. Results are never refused: the work is done, so what is not JSON is kept as marked text.

Values follow ``DjangoJSONEncoder``: dates, times (to the millisecond) and durations become ISO text, ``Decimal``,
``UUID`` and lazy strings become text, tuples become lists, and dictionary keys become text. The function receives what
this JSON decodes to.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from django.db.models import Manager, Model
from django.db.models.query import QuerySet

from carrot.exceptions import InvalidArguments
from carrot.not_json import (
    ANY_CURE,
    MAX_DEPTH,
    MAX_DIGITS,
    bad_text,
    depth,
    error_text,
    faults,
    short,
    to_json,
    type_name,
)

__all__ = ["MARK", "MAX_DEPTH", "clean_text", "decode", "encode_arguments", "encode_output", "to_json"]

#: the key that only a marked result has at its top level, see `encode_output`
MARK: Final = "__carrot__"

#: Python's limit of digits; 0 is none, as in the first releases of 3.10
_digits_limit: Callable[[], int] = getattr(sys, "get_int_max_str_digits", int)

#: a smaller limit of a text counts as this, in bytes: the marks themselves need room
MIN_LIMIT = 512


def encode_arguments(
    args: Sequence[Any], kwargs: Mapping[str, Any], limit: int, *, names: Sequence[str] = ()
) -> tuple[str, str]:
    """The JSON texts of positional and keyword arguments; ``limit`` is in bytes of UTF-8, for both together.

    ``names`` are the parameters that the positional arguments fill, for the messages.

    Raises `InvalidArguments`, naming the argument and the cure.
    """
    positional, keywords = list(args), dict(kwargs)
    try:
        texts = (to_json(positional) if positional else "[]", to_json(keywords) if keywords else "{}")
        size = len(texts[0].encode()) + len(texts[1].encode())
    except Exception as error:
        # Anything: user code runs in here too, for instance the translation of a lazy string.
        raise (_culprit(positional, keywords, names) or _no_json(error)) from error
    if size > limit:
        raise InvalidArguments(_too_large(positional, keywords, names, size, limit))
    if not all(map(_storable, texts, (positional, keywords))) or not all(type(name) is str for name in keywords):
        culprit = _culprit(positional, keywords, names)
        if culprit is not None:
            raise culprit
    return texts


def decode(text: str) -> Any:
    """What a stored JSON text says. Raises ValueError if it is not JSON (somebody changed the row by hand)."""
    return json.loads(text)


def encode_output(value: object, limit: int) -> str:
    """The JSON text of a task's result, at most ``limit`` bytes of UTF-8 (never less than `MIN_LIMIT`).

    Never raises because of the value. A JSON object with the key ``"__carrot__"`` at its top level is always a marked
    result, never the result itself:

    - ``{"__carrot__": "repr", "type": "module.Class", "text": …}``: not JSON; the text is its ``repr()``
    - ``{"__carrot__": "cut", "size": bytes, "text": …}``: larger than the limit; the text is head and tail of its JSON
    - ``{"__carrot__": "json", "value": …}``: a result that has this key itself, as it is
    """
    limit = max(limit, MIN_LIMIT)
    try:
        text = to_json(value)
        size = len(text.encode())
        storable = _storable(text, value) or next(faults(value), None) is None
        if storable and isinstance(value, dict) and MARK in value:
            text = to_json({MARK: "json", "value": value})
            size = len(text.encode())
    except BaseException as error:
        # Results come from user code and may run some (a repr, a lazy string); only an operator's Ctrl+C passes.
        if isinstance(error, KeyboardInterrupt):
            raise
        storable = False
    if not storable:
        return _marked({MARK: "repr", "type": type_name(value)}, _repr(value), limit)
    if size > limit:
        return _marked({MARK: "cut", "size": size}, text, limit)
    return text


def clean_text(text: str, limit: int) -> str:
    r"""The text as every database can store it, at most ``limit`` bytes of UTF-8 (never less than `MIN_LIMIT`).

    NUL becomes ``\x00`` and lone surrogates ``\udc80``, readable and harmless. Of a longer text the head (a third) and
    the tail stay, because a traceback ends with what matters, and a line between them says how much is missing.
    """
    limit = max(limit, MIN_LIMIT)
    if "\0" in text:
        text = text.replace("\0", "\\x00")
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= limit:
        return data.decode()
    room = limit - len(_gap(len(data)).encode())
    head = data[: room // 3].decode("utf-8", "ignore")
    tail = data[len(data) - (room - room // 3) :].decode("utf-8", "ignore")
    return head + _gap(len(data) - len(head.encode()) - len(tail.encode())) + tail


def _storable(text: str, value: object) -> bool:
    """Whether one look tells that a JSON text can be stored, and read by every Python: NUL is always escaped, brackets
    bound the depth, and where Python has its usual limit for numbers, the encoder has refused longer ones."""
    flat = text.count("[") + text.count("{") <= MAX_DEPTH
    no_long_number = len(text) <= MAX_DIGITS or 0 < _digits_limit() <= MAX_DIGITS
    return no_long_number and "\\u0000" not in text and (flat or depth(value) <= MAX_DEPTH)


def _gap(size: int) -> str:
    return f"\n… [{size:,} bytes cut] …\n"


def _marked(marks: dict[str, object], text: str, limit: int) -> str:
    """The marked result, cut until its JSON, whose quotes and escapes need room too, is within the limit."""
    room = limit
    while True:
        # `clean_text` never goes below its own minimum; what must be shorter is plainly cut.
        shown = clean_text(text, room) if room >= MIN_LIMIT else clean_text(text[:room], MIN_LIMIT)
        result = to_json({**marks, "text": shown})
        size = len(result.encode())
        if size <= limit or not shown:
            return result
        room = max(0, room * limit // size - 8)


def _repr(value: object) -> str:
    """A text for any value, whatever its ``repr`` does; runs no query (one that fails would break a transaction)."""
    try:
        if isinstance(value, (QuerySet, Manager)):
            return f"<{type(value).__name__} of {value.model._meta.label}>"
        if isinstance(value, Model):
            return f"<{value._meta.label}: pk={value.pk!r}>"
        return str(repr(value))
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return f"<{type_name(value)}: its repr() raised {type_name(error)}>"


def _culprit(args: list[Any], kwargs: dict[Any, Any], names: Sequence[str]) -> InvalidArguments | None:
    """The error about the first argument that has no JSON or cannot be stored; None if there is none."""
    for label, name, value in _labelled(args, kwargs, names):
        if not isinstance(name, str):
            return InvalidArguments(
                f"The {label} has a name of type {type_name(name)}: names of arguments are text (str)."
            )
        problem = bad_text(name)
        if problem is not None:
            return InvalidArguments(f"The name of {label} {problem}.")
        if fault := _first_fault(value):
            inner = f"{name}{fault[0]}"
            where = f" (`{inner}`)" if inner and label != f"argument {_shown(inner)}" else ""
            return InvalidArguments(f"A{label[1:]}{where} {fault[1]}.")
    return None


def _first_fault(value: object) -> tuple[str, str] | None:
    try:
        return next(faults(value), None)
    except Exception as error:
        # An object that raises whatever it is asked, be it for an attribute or its class.
        return "", f"is of type {type_name(value)}, and looking at it raised {error_text(error)}: {ANY_CURE}"


def _no_json(error: Exception) -> InvalidArguments:
    return InvalidArguments(
        f"The arguments have no JSON form: {error_text(error)}. "
        "Pass text, numbers, booleans, None, and lists and dictionaries of these."
    )


def _labelled(args: list[Any], kwargs: dict[Any, Any], names: Sequence[str]) -> Iterator[tuple[str, Any, Any]]:
    """Each argument: what to call it, the name of its parameter ("" if it is not known), its value."""
    for number, value in enumerate(args, 1):
        yield f"argument {number}", names[number - 1] if number <= len(names) else "", value
    for name, value in kwargs.items():
        yield f"argument {_shown(name)}", name, value


def _shown(key: object) -> str:
    return f"`{key if isinstance(key, str) and key.isidentifier() and len(key) <= 50 else short(key)}`"


def _too_large(args: list[Any], kwargs: dict[Any, Any], names: Sequence[str], size: int, limit: int) -> str:
    sizes = [(len(to_json(value).encode()), label) for label, _, value in _labelled(args, kwargs, names)]
    largest, label = max(sizes, default=(0, "none"))
    return (
        f"The arguments are {size:,} bytes of JSON, more than the {limit:,} allowed; the largest is {label} "
        f"({largest:,} bytes). Store the data, in a model or a file, and pass a reference to it, "
        "or raise CARROT['max_arguments_size']."
    )
