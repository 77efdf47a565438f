"""Secrets that cannot come out anywhere, in whatever encoding, without being recognised."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

#: The password of a broker. Between characters that mean something in URLs, in Python, in JSON, in SQL and in HTML
#: stand words that are found in no other text, so that a piece of it tells as much as the whole.
PASSWORD = "Kn4pq:Wz8mx@Bq3vj/Ty6rw#Hj2xk?Lc9sd%Dg5nz'Fp7kb\"Rm1tq\\Vx4cw<é"
#: As it has to be written in a URL.
ENCODED = quote(PASSWORD, safe="")
#: An argument of a task. It is in its row, of course.
ARGUMENT = "Gh6tz-Xv2nd Jw5kf'Pb9ms\"Zq7rl"

_WORD = re.compile(r"(?i)Kn4pq|Wz8mx|Bq3vj|Ty6rw|Hj2xk|Lc9sd|Dg5nz|Fp7kb|Rm1tq|Vx4cw")
_WORD_OF_ARGUMENT = re.compile(r"(?i)Gh6tz|Xv2nd|Jw5kf|Pb9ms|Zq7rl")


def leaks(content: object, *, arguments: bool = False) -> list[str]:
    """What surrounds each piece of the password in a text; ``arguments``: also those of the argument."""
    text = content.decode("utf-8", "replace") if isinstance(content, bytes) else str(content)
    words = [_WORD, _WORD_OF_ARGUMENT] if arguments else [_WORD]
    return [text[max(0, found.start() - 80) : found.end() + 60] for word in words for found in word.finditer(text)]


def leaks_below(directory: Path) -> dict[str, list[str]]:
    """The files below a directory in which a piece of the password stands: logs, output, the pages of a database."""
    found = {path: leaks(path.read_bytes()) for path in directory.rglob("*") if path.is_file()}
    return {str(path): places for path, places in found.items() if places}
