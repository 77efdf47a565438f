"""Tasks that leave their traces in a file, so that they run and can be counted while the database is away.

The file is a journal: a line ``begin NAME PID`` or ``end NAME PID`` each, appended with one write.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

#: Seconds after which a task that is held gives up, so that a failing test leaves nothing running.
LIMIT = 90.0


def note(journal: str, name: str) -> None:
    """Write that it ran."""
    _append(journal, "end", name)


def nap(journal: str, name: str, seconds: float) -> None:
    """Keep a thread busy for a while."""
    _append(journal, "begin", name)
    time.sleep(seconds)
    _append(journal, "end", name)


def hold(journal: str, name: str, gate: str) -> None:
    """Run until the file ``gate`` exists."""
    _append(journal, "begin", name)
    deadline = time.monotonic() + LIMIT
    while not Path(gate).exists():
        if time.monotonic() > deadline:
            raise TimeoutError(gate)
        time.sleep(0.01)
    _append(journal, "end", name)


def _append(journal: str, what: str, name: str) -> None:
    with open(journal, "ab", buffering=0) as file:  # O_APPEND: lines of several processes do not mix
        file.write(f"{what} {name} {os.getpid()}\n".encode())
