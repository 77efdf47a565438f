"""Which arguments a task takes: checked when it is published, which is where the mistake is."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Mapping, Sequence
from types import FunctionType
from typing import Any
from weakref import WeakKeyDictionary

from carrot.exceptions import InvalidArguments
from carrot.functions import function_at

#: parameters of ``publish_message`` that hide parameters of the task of the same name
PUBLISH_PARAMETERS = ("queue", "priority", "exchange", "routing_key")

# Signatures that were read, for as long as the function lives. A pure cache: two threads that fill it at once write the
# same.
_signatures: WeakKeyDictionary[FunctionType, inspect.Signature | None] = WeakKeyDictionary()


def check_call(path: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Makes sure that a task takes these arguments. Raises `InvalidArguments`, naming the parameter."""
    function = function_at(path)
    signature = signature_of(function)
    if signature is None:
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        reason = str(error)[:200]
        if "too many positional" in reason:
            reason = f"{reason}, {len(args)} given"
        cure = _suggestion(signature, kwargs)
        if hasattr(function, "__wrapped__"):
            cure += " If a decorator changes the parameters, it has to set __signature__ on the function it returns."
        raise InvalidArguments(
            f"{path}{signature_text(function)} does not take these arguments: {reason}.{cure}"
        ) from None


def reserved_parameters(path: str) -> tuple[str, ...]:
    """The parameters of a task that ``publish_message`` cannot fill, because they are parameters of its own."""
    signature = signature_of(function_at(path))
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = signature.parameters if signature is not None else {}
    return tuple(name for name in PUBLISH_PARAMETERS if name in parameters and parameters[name].kind in named)


def parameter_names(path: str) -> tuple[str, ...]:
    """The parameters that positional arguments fill, in order, for messages; () if they are not known."""
    signature = signature_of(function_at(path))
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = signature.parameters if signature is not None else {}
    return tuple(name for name, parameter in parameters.items() if parameter.kind in positional)


def signature_of(function: FunctionType) -> inspect.Signature | None:
    """The signature of a function; None if it has none, and takes whatever it is given."""
    try:
        return _signatures[function]
    except KeyError:
        signature = _signatures[function] = _read_signature(function)
        return signature


def signature_text(function: FunctionType) -> str:
    """The parameters for people, ``(a, b=2, *, flag=False)``: without annotations, long defaults cut."""
    signature = signature_of(function)
    if signature is None:
        return "(…)"
    parameters = [
        parameter.replace(
            annotation=inspect.Parameter.empty,
            default=parameter.default if parameter.default is inspect.Parameter.empty else _Shown(parameter.default),
        )
        for parameter in signature.parameters.values()
    ]
    return str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty))


class _Shown:
    """A default value whose repr is short and never fails."""

    def __init__(self, value: object) -> None:
        try:
            text = repr(value)
        except Exception:
            text = "…"
        self._text = text if len(text) <= 30 else "…"

    def __repr__(self) -> str:
        return self._text


def _read_signature(function: FunctionType) -> inspect.Signature | None:
    options: dict[str, Any] = {}
    if sys.version_info >= (3, 14):
        # Annotations are evaluated when read; names imported for type checking only must not matter here.
        from annotationlib import Format

        options["annotation_format"] = Format.FORWARDREF
    try:
        return inspect.signature(function, **options)
    except (ValueError, TypeError, NameError, AttributeError):
        return None


def _suggestion(signature: inspect.Signature, kwargs: Mapping[Any, Any]) -> str:
    for name in kwargs:
        if isinstance(name, str) and name not in signature.parameters:
            close = difflib.get_close_matches(name, signature.parameters, n=1)
            return f" Did you mean {close[0]!r}?" if close else ""
    return ""
