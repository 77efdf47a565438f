"""Secrets that cannot come out anywhere, in whatever encoding, without being recognised."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

#: The password of a broker. Between characters that mean something in URLs, in Python, in JSON, in SQL and in HTML
#: stand words that are found in no other text, so that a piece of it tells as much as the whole. They are long:
#: words of five letters do turn up by chance in the random tokens of a hundred pages.
PASSWORD = "Kn4pqpg8c:Wz8mxxf7z@Bq3vjwj2d/Ty6rwsd5d#Hj2xksc3k?Lc9sdcz8c%Dg5nzcx4n'Fp7kbgx3z\"Rm1tqxh3z\\Vx4cwjq3x<é"
#: As it has to be written in a URL.
ENCODED = quote(PASSWORD, safe="")
#: An argument of a task. It is in its row, of course.
ARGUMENT = "Gh6tzzc5v-Xv2ndsp9z Jw5kfqn5h'Pb9msdz6w\"Zq7rlpt6d"

#: One of its words.
ARGUMENT_WORD = "Gh6tzzc5v"


def _any_word_of(secret: str) -> re.Pattern[str]:
    return re.compile("|".join(re.findall(r"\w{9}", secret)), re.IGNORECASE)


_WORD, _WORD_OF_ARGUMENT = _any_word_of(PASSWORD), _any_word_of(ARGUMENT)


def leaks(content: object, *, arguments: bool = False) -> list[str]:
    """What surrounds each piece of the password in a text; ``arguments``: also those of the argument."""
    text = content.decode("utf-8", "replace") if isinstance(content, bytes) else str(content)
    words = [_WORD, _WORD_OF_ARGUMENT] if arguments else [_WORD]
    return [text[max(0, found.start() - 80) : found.end() + 60] for word in words for found in word.finditer(text)]


def leaks_below(directory: Path) -> dict[str, list[str]]:
    """The files below a directory in which a piece of the password stands: logs, output, the pages of a database."""
    found = {path: leaks(path.read_bytes()) for path in directory.rglob("*") if path.is_file()}
    return {str(path): places for path, places in found.items() if places}
