"""The stored log of a task, by levels."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

#: What is shown first, and what a level of a project's own, which only its workers know, counts as.
DEFAULT_LEVEL = "INFO"

_LINE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (Level -?\d{1,9}|\S+) ")
_LEFT_OUT = re.compile(r"… .* …")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One record: a line and those that continue it. A note about missing lines has no level and is always shown."""

    level: str
    text: str


@dataclass(frozen=True, kw_only=True)
class LevelChoice:
    """A level as the page offers it."""

    name: str
    count: int
    selected: bool


@dataclass(frozen=True, kw_only=True)
class TaskLog:
    """What a page shows of a log. ``hidden`` counts the records below the level."""

    entries: tuple[Entry, ...]
    level: str
    choices: tuple[LevelChoice, ...]
    hidden: int
    total: int


def read(text: str, level: str) -> TaskLog:
    """The records of a stored log at ``level`` (a name; anything else is INFO) and above."""
    level = level.upper() if level.upper() in LEVELS else DEFAULT_LEVEL
    entries = tuple(_entries(text))
    shown = tuple(entry for entry in entries if _rank(entry.level) >= LEVELS.index(level))
    counts = [sum(_rank(entry.level) >= rank for entry in entries) for rank in range(len(LEVELS))]
    return TaskLog(
        entries=shown,
        level=level,
        choices=tuple(
            LevelChoice(name=name, count=counts[rank], selected=name == level) for rank, name in enumerate(LEVELS)
        ),
        hidden=len(entries) - len(shown),
        total=len(entries),
    )


def _entries(text: str) -> Iterator[Entry]:
    level, lines = DEFAULT_LEVEL, list[str]()
    for line in text.split("\n") if text else ():
        found = _LINE.match(line)
        left_out = found is None and _LEFT_OUT.fullmatch(line)
        if (found or left_out) and lines:
            yield Entry(level=level, text="\n".join(lines))
            level, lines = DEFAULT_LEVEL, []
        if found:
            level = _standard(found.group(2))
        elif left_out:
            level = ""
        lines.append(line)
    if lines:
        yield Entry(level=level, text="\n".join(lines))


def _standard(name: str) -> str:
    """The standard level at or below a level's name."""
    if name in LEVELS:
        return name
    number = int(name.removeprefix("Level ")) if name.startswith("Level ") else logging.getLevelName(name)
    if not isinstance(number, int):
        return DEFAULT_LEVEL
    return LEVELS[min(max(number // 10 - 1, 0), len(LEVELS) - 1)]


def _rank(level: str) -> int:
    return LEVELS.index(level) if level else len(LEVELS)
