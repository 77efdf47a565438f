"""Searching tasks, blind to what is masked.

A match in a masked value would tell the value letter by letter, so a row is found by its arguments only where they hold
no secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet
from django.utils.text import smart_split, unescape_string_literal

from carrot import registry
from carrot.admin.redaction import TRUSTED_ORIGINS, Redaction

#: Functions outside the registry whose parameters are looked up for one search.
LOOKED_UP = 200

# Over-approximates what `redaction` masks: a regular expression of the database sees text, not structure.
_URL_PASSWORD = '://[^/: "]*:([^@ "]+@|[^0-9 "\n]|[0-9]+[^0-9/?#, "\n]|[0-9]{6})'  # noqa: S105
_ANY_KEY = '" *:'
_WORD = re.compile(r"[\w-]+", re.ASCII)


def words(term: str) -> list[str]:
    """The parts of a search term that must all be found, as the admin splits it."""
    return [
        unescape_string_literal(word) if word.startswith(('"', "'")) and word[0] == word[-1] and len(word) > 1 else word
        for word in smart_split(term)
    ]


def exact_uuid(term: str) -> UUID | None:
    """The message id that the term is, if it is one: found by the unique index instead of a search."""
    try:
        return UUID(term.strip())
    except ValueError:
        return None


def without_masked_matches(queryset: QuerySet[Any], term: str, redaction: Redaction) -> QuerySet[Any]:
    """``queryset``, already searched for ``term``, without the rows that only masked text lets match."""
    parts = words(term)
    no_password = ~Q(exception__iregex=_URL_PASSWORD)
    no_secret = {column: _no_secret(column, redaction.patterns) for column in ("args", "kwargs")}
    others = _others(queryset, parts)
    open_args = _open_tasks(redaction.hides_positional, others)
    open_kwargs = _open_tasks(redaction.hides_keyword, others)
    for part in parts:
        queryset = queryset.filter(
            Q(task__icontains=part)
            | Q(uuid__icontains=part)
            | (Q(exception__icontains=part) & no_password)
            | (Q(args__icontains=part) & no_secret["args"] & open_args)
            | (Q(kwargs__icontains=part) & no_secret["kwargs"] & open_kwargs)
        )
    return queryset


def _no_secret(column: str, patterns: Sequence[str]) -> Q:
    """No key of this JSON text is secret, and no URL in it has a password."""
    secret = secret_key(patterns)
    condition = ~Q(**{f"{column}__iregex": _URL_PASSWORD})
    return condition & ~Q(**{f"{column}__iregex": secret}) if secret else condition


def secret_key(patterns: Iterable[str]) -> str:
    r"""A regular expression every database understands, that finds (at least) every secret key of a JSON text.

    Patterns are Python's, so only plain words are carried over; ``^``, ``$`` and ``\b`` around them only make it find
    more. With any other pattern every key counts as secret.
    """
    plain = [pattern.removeprefix("(?i)").replace(r"\b", "").strip("^$") for pattern in patterns]
    if not all(_WORD.fullmatch(word) for word in plain):
        return _ANY_KEY
    return rf'({"|".join(plain)})([^"]|\\")*" *:' if plain else ""


def _others(queryset: QuerySet[Any], parts: Sequence[str]) -> list[str]:
    """The functions outside the registry that code named, and whose arguments have any of these parts."""
    found = Q()
    for part in parts:
        found |= Q(args__icontains=part) | Q(kwargs__icontains=part)
    others = queryset.filter(found, origin__in=TRUSTED_ORIGINS).exclude(task__in=registry.names())
    return list(others.order_by().values_list("task", flat=True).distinct()[:LOOKED_UP])


def _open_tasks(hides: Callable[[str, str], bool], others: Sequence[str]) -> Q:
    """The rows whose arguments are all shown, as far as what is known about their functions tells."""
    registered = registry.names()
    shown = Q(task__in=[name for name in registered if not hides(name, "")])
    more = [name for name in others if not hides(name, TRUSTED_ORIGINS[0])]
    return shown | Q(task__in=more, origin__in=TRUSTED_ORIGINS)
