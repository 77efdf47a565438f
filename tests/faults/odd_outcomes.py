"""Tasks whose ends are hard to write down: results that are no JSON, exceptions that cannot say what they are, logs
without end. Each by its name, as a plain task and as an atomic one, whose end is written by another way.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import Any

from carrot import task
from tests.faults import fault_tasks

logger = logging.getLogger(__name__)

#: Characters of an outcome that takes room, but less than the limits allow; and of one that is far beyond them.
ROOM, HUGE = 50_000, 50_000_000
#: What no database, or not every one, takes as text.
BAD = "a\0b \ud800 c"


def large(journal: str, name: str, gate: str) -> str:
    """Run until the file ``gate`` exists, and leave a log and a result that no database makes small."""
    fault_tasks.hold(journal, name, gate)
    text = f"{random.getrandbits(4 * ROOM):x}"
    logger.warning("%s", text)
    return text


def odd(journal: str, name: str, kind: str) -> Any:
    """End as ``kind`` says, a name in RESULTS, ERRORS or LOGS."""
    fault_tasks.note(journal, name)
    if kind in RESULTS:
        return RESULTS[kind]()
    if kind in ERRORS:
        raise ERRORS[kind]()
    return LOGS[kind]()


@task(atomic=True)
def odd_atomic(journal: str, name: str, kind: str) -> Any:
    """The same as an atomic task."""
    return odd(journal, name, kind)


class Silent:
    """Raises where one asks what it is."""

    def __repr__(self) -> str:
        raise LookupError("no name")


class Rude(Exception):
    """Ends the process, or would, when its text is asked for."""

    def __str__(self) -> str:
        raise SystemExit("no text")


class Wrong(Exception):
    """Says something that is no text."""

    def __str__(self) -> str:
        return 7  # type: ignore[return-value]


class Endless(Exception):
    """Has a text that never ends."""

    def __str__(self) -> str:
        return f"{self}!"


def _itself() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


def _deep() -> list[Any]:
    found: list[Any] = []
    for _ in range(100_000):
        found = [found]
    return found


def _caused() -> Exception:
    """An exception with a thousand causes."""
    error: Exception = ValueError("the first")
    for n in range(1000):
        later = ValueError(f"number {n} {'x' * 100}")
        later.__cause__ = error
        error = later
    return error


def _recursion() -> Exception:
    return _recursion()


def _lines() -> None:
    for n in range(50_000):
        logger.debug("line %s %s", n, "x" * 100)


def _odd_lines() -> None:
    logger.debug("%s", BAD)
    logger.debug("one argument, and there are two: %s", 1, 2)
    logger.debug("%s", Silent())
    logger.debug("two\nlines\r\n\x1b[2J")


RESULTS: dict[str, Callable[[], Any]] = {
    "nul": lambda: BAD,
    "nul_within": lambda: {BAD: [BAD]},
    "nan": lambda: float("nan"),
    "infinity_within": lambda: {"a": [1, float("inf")]},
    "set": lambda: {1, 2},
    "keys": lambda: {(1, 2): "tuple", None: 3},
    "bytes": lambda: b"\0\xff",
    "huge": lambda: "x" * HUGE,
    "many": lambda: list(range(HUGE // 50)),
    "digits": lambda: 10**10_000,
    "itself": _itself,
    "deep": _deep,
    "silent": Silent,
    "generator": lambda: (n for n in range(3)),
}
ERRORS: dict[str, Callable[[], BaseException]] = {
    "bad_text": lambda: ValueError(BAD),
    "huge_text": lambda: ValueError("x" * HUGE),
    "rude": Rude,
    "wrong": Wrong,
    "endless": Endless,
    "silent_argument": lambda: ValueError(Silent()),
    "caused": _caused,
    "recursion": _recursion,
    "exit": lambda: SystemExit(3),
    "interrupt": KeyboardInterrupt,
    "memory": MemoryError,
}
LOGS: dict[str, Callable[[], None]] = {
    "one_line": lambda: logger.debug("%s", "x" * HUGE),
    "lines": _lines,
    "odd_lines": _odd_lines,
}
