"""What of a task's data may be seen: secrets are masked by the names they go by.

Keyword arguments, and keys at any depth, by the patterns of the setting ``redact``; positional arguments by the names
of the parameters they fill. Passwords in URLs are masked everywhere. Where names cannot be known, values are hidden.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from carrot import registry
from carrot.conf import get_settings
from carrot.models import Origin

MASK = "••••••"

#: Rows whose function may be imported to learn its parameters: Python code named it. Others may be anybody's words.
TRUSTED_ORIGINS = (Origin.CODE, Origin.SCHEDULE)

# What follows the colon may be a port instead, and the @ belong to the path.
_URL_PASSWORD = re.compile(r"(://[^/\s:@\"]*:)(?!\d{1,5}(?:[/?#]|$))[^@\s\"]+@")
_PAIR = re.compile(r'"((?:[^"\\]|\\.)*)"(\s*:\s*)("(?:[^"\\]|\\.)*(?:"|$)|[^\s,\[\]{}"]+|[\[{].*)', re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Positional:
    """Positional arguments as they may be shown. ``hidden``: the names are unknown, so all values are masked."""

    values: list[Any]
    hidden: bool = False


class Redaction:
    """The masks of one page: reads the settings once, and looks up each function once."""

    def __init__(self) -> None:
        self.patterns = get_settings().redact
        self._compiled = [re.compile(pattern, re.IGNORECASE) for pattern in self.patterns]
        self._names: dict[tuple[str, bool], tuple[str, ...] | None] = {}

    def is_secret(self, name: str) -> bool:
        """Whether what goes by this name is masked."""
        return any(pattern.search(name) for pattern in self._compiled)

    def value(self, value: Any) -> Any:
        """A JSON value with the secrets in it masked, at any depth."""
        if isinstance(value, dict):
            return {key: MASK if self.is_secret(key) else self.value(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.value(item) for item in value]
        return url_passwords_masked(value) if isinstance(value, str) else value

    def positional(self, task: str, origin: str, values: Sequence[Any]) -> Positional:
        """Positional arguments with the secret ones masked; all of them where the function cannot be found."""
        if not values or not self._compiled:
            return Positional(values=self.value(list(values)))
        names = self.parameters(task, origin)
        if names is None:
            return Positional(values=[MASK] * len(values), hidden=True)
        return Positional(
            values=[
                MASK if index < len(names) and self.is_secret(names[index]) else self.value(value)
                for index, value in enumerate(values)
            ]
        )

    def hides_positional(self, task: str, origin: str) -> bool:
        """Whether any positional argument of this task is masked by name, or may be."""
        if not self._compiled:
            return False
        names = self.parameters(task, origin)
        return names is None or any(map(self.is_secret, names))

    def parameters(self, task: str, origin: str) -> tuple[str, ...] | None:
        """The names of a function's positional parameters; None where the function cannot be found."""
        key = task, origin in TRUSTED_ORIGINS
        if key not in self._names:
            self._names[key] = _parameters(*key)
        return self._names[key]

    def text(self, text: str) -> str:
        """A text that looks like JSON but cannot be read as such: values of secret keys are masked.

        A list or dictionary as such a value ends the text, because where it ends is not known.
        """

        def masked(match: re.Match[str]) -> str:
            key, colon, value = match.groups()
            if self.is_secret(key):
                return f'"{key}"{colon}"{MASK}"'
            # The value may hold further pairs.
            return f'"{key}"{colon}{_PAIR.sub(masked, value) if value[0] in "[{" else value}'

        return url_passwords_masked(_PAIR.sub(masked, text))


def url_passwords_masked(text: str) -> str:
    """``amqp://user:••••••@host/``"""
    return _URL_PASSWORD.sub(rf"\1{MASK}@", text) if "://" in text else text


def _parameters(task: str, trusted: bool) -> tuple[str, ...] | None:
    if not trusted and not registry.is_registered(task):
        return None
    try:
        return registry.parameter_names(task)
    except Exception:
        # Whatever the project's module does when it is imported: the page must be shown.
        return None
