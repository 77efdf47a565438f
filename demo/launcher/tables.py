"""Tables for a terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

#: The widest a column gets; the last one is never cut.
WIDEST = 44


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with a title, each column as wide as it needs to be."""
    cells = [[*(_cut(cell) for cell in row[:-1]), row[-1]] for row in [head, *rows]]
    widths = [max(_width(row[column]) for row in cells) for column in range(len(head))]
    lines = ["  ".join(map(_padded, row, widths)).rstrip() for row in cells]
    rule = "  ".join("─" * min(width, WIDEST) for width in widths)
    return "\n".join(["", title, "", lines[0], rule, *lines[1:]])


def _cut(text: str) -> str:
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _width(text))


def _width(text: str) -> int:
    """Columns of the terminal; a Chinese character takes two."""
    return sum(1 + (unicodedata.east_asian_width(character) in "WF") for character in text)
