"""What of a task's data may be seen: secrets are masked by the names they go by.

Keyword arguments, and keys at any depth, by the patterns of the setting ``redact`` and by the names that the option
``redact`` of ``@carrot.task`` lists; positional arguments by the names of the parameters they fill. Passwords in URLs
are masked everywhere. Where names cannot be known, values are hidden.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from inspect import Parameter
from typing import Any

from carrot import registry
from carrot.conf import get_settings
from carrot.functions import function_at
from carrot.models import Origin
from carrot.signatures import signature_of

MASK = "••••••"

#: Rows whose function may be imported to learn its parameters: Python code named it. Others may be anybody's words.
TRUSTED_ORIGINS = (Origin.CODE, Origin.SCHEDULE)

# A URL up to the next space or quote; then in it the user, with no colon that a port follows. Two steps, so that the
# time grows with the length of a text, whatever it holds.
_URL = re.compile(r"://[^\s\"]+")
_USER = re.compile(r"://(?!\[)[^/:]*:(?!\d{1,5}(?:[/?#]|$))")
# An @ that was not encoded may stand in a password; behind a / it belongs to the path.
_MORE_PASSWORD = re.compile(r"(?:[^/?#@]*@)*")
_PORT = re.compile(r"\d{1,5}(?:[/?#,]|\W*$)")
# What follows a URL that may have been cut: the end of the text or of a line, or the mark of the cut.
_CUT = re.compile(r"$|[\r\n]| …")


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Arguments as they may be shown. ``hidden``: the function is unknown, so all values are masked."""

    values: Any
    hidden: bool = False


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What a function says about its arguments. ``rest``: the name behind ``*``, or empty."""

    names: tuple[str, ...] = ()
    rest: str = ""
    #: the option ``redact``, in lower case
    secret: frozenset[str] = frozenset()

    def name_of(self, index: int) -> str:
        """The parameter that a positional argument fills."""
        return self.names[index] if index < len(self.names) else self.rest


#: What is known about the arguments of a function that is none of ours.
NO_OPINION = Parameters()


class Redaction:
    """The masks of one page: reads the settings once, and looks up each function once."""

    def __init__(self) -> None:
        self.patterns = get_settings().redact
        self._compiled = [re.compile(pattern, re.IGNORECASE) for pattern in self.patterns]
        self._found: dict[tuple[str, bool], Parameters | None] = {}

    def is_secret(self, name: str, parameters: Parameters = NO_OPINION) -> bool:
        """Whether what goes by this name is masked."""
        return name.casefold() in parameters.secret or any(pattern.search(name) for pattern in self._compiled)

    def value(self, value: Any, parameters: Parameters = NO_OPINION) -> Any:
        """A JSON value with the secrets in it masked, at any depth."""
        if isinstance(value, dict):
            return {
                key: MASK if self.is_secret(key, parameters) else self.value(item, parameters)
                for key, item in value.items()
            }
        if isinstance(value, list):
            return [self.value(item, parameters) for item in value]
        return url_passwords_masked(value) if isinstance(value, str) else value

    def positional(self, task: str, origin: str, values: Sequence[Any]) -> Shown:
        """Positional arguments with the secret ones masked; all of them where the function cannot be found."""
        parameters = self.parameters(task, origin) if values else NO_OPINION
        if parameters is None:
            return Shown(values=[MASK] * len(values), hidden=True)
        return Shown(
            values=[
                MASK if self.is_secret(parameters.name_of(index), parameters) else self.value(value, parameters)
                for index, value in enumerate(values)
            ]
        )

    def keyword(self, task: str, origin: str, values: dict[str, Any]) -> Shown:
        """Keyword arguments with the secret ones masked; all of them where nobody can tell what the function hides."""
        parameters = self.parameters(task, origin) if values else NO_OPINION
        if parameters is None:
            return Shown(values=dict.fromkeys(values, MASK), hidden=True)
        return Shown(values=self.value(values, parameters))

    def hides_positional(self, task: str, origin: str) -> bool:
        """Whether any positional argument of this task is masked by name, or may be."""
        parameters = self.parameters(task, origin)
        if parameters is None or parameters.secret:
            return True
        return any(map(self.is_secret, (*parameters.names, parameters.rest)))

    def hides_keyword(self, task: str, origin: str) -> bool:
        """Whether any keyword argument of this task may be masked for another reason than the patterns."""
        parameters = self.parameters(task, origin)
        return parameters is None or bool(parameters.secret)

    def parameters(self, task: str, origin: str) -> Parameters | None:
        """What a function says about its arguments; None where it cannot be found."""
        key = task, origin in TRUSTED_ORIGINS
        if key not in self._found:
            self._found[key] = _parameters(*key)
        return self._found[key]


def url_passwords_masked(text: str) -> str:
    """``amqp://user:••••••@host/``, and ``amqp://user:••••••`` where the text was cut in the middle of a password."""
    return _URL.sub(_password_masked, text) if "://" in text else text


def _password_masked(match: re.Match[str]) -> str:
    url = match.group()
    shown, end = "", 0
    for user in _USER.finditer(url):
        start = user.end()
        if start <= end:
            continue  # within a password
        at = url.find("@", start)
        if at < 0:
            if start < len(url) and _cut(match) and not _PORT.match(url, start):
                return f"{shown}{url[end:start]}{MASK}"
            break
        shown += f"{url[end:start]}{MASK}@"
        more = _MORE_PASSWORD.match(url, at + 1)
        end = more.end() if more else at + 1
    return shown + url[end:]


def _cut(match: re.Match[str]) -> bool:
    """Whether the text may have been cut behind this."""
    return match.group().endswith("…") or _CUT.match(match.string, match.end()) is not None


def _parameters(task: str, trusted: bool) -> Parameters | None:
    if not trusted and not registry.is_registered(task):
        return None
    try:
        options = registry.task_options(task)
        signature = signature_of(function_at(task))
    except Exception:
        # Whatever the project's module does when it is imported: the page must be shown.
        return None
    rest = [
        name
        for name, parameter in (signature.parameters if signature else {}).items()
        if parameter.kind is Parameter.VAR_POSITIONAL
    ]
    return Parameters(
        names=registry.parameter_names(task),
        rest=rest[0] if rest else "",
        secret=frozenset(name.casefold() for name in options.redact),
    )
