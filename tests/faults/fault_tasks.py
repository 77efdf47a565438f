"""Tasks that leave their traces in a file, so that they run and can be counted while the database is away.

The file is a journal: a line ``begin NAME PID TIME`` or ``end NAME PID TIME`` each, appended with one write; the time
is that of ``time.monotonic``, which all processes of a machine share. An atomic task, whose end is the COMMIT of the
database, writes ``written`` instead of ``end`` when its body is through.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from carrot import task
from tests.app.models import Effect

#: Seconds after which a task that is held gives up, so that a failing test leaves nothing running.
LIMIT = 600.0
#: Bytes of the largest and the smallest piece of memory that ``take_all_memory`` asks for.
LARGEST, SMALLEST = 1 << 24, 1 << 4


def note(journal: str, name: str) -> None:
    """Write that it ran."""
    _append(journal, "end", name)


def nap(journal: str, name: str, seconds: float) -> None:
    """Keep a thread busy for a while: the plain task of the workload."""
    _append(journal, "begin", name)
    time.sleep(seconds)
    _append(journal, "end", name)


@task(atomic=True)
def effect(journal: str, name: str, seconds: float) -> None:
    """Insert an ``Effect`` of that name: the atomic task of the workload."""
    _append(journal, "begin", name)
    time.sleep(seconds)
    Effect.objects.create(message_id=name, attempt=1, pid=os.getpid())
    _append(journal, "written", name)


def hold(journal: str, name: str, gate: str) -> None:
    """Run until the file ``gate`` exists."""
    _append(journal, "begin", name)
    _wait_for(gate)
    _append(journal, "end", name)


@task(atomic=True)
def hold_effect(journal: str, name: str, gate: str) -> None:
    """Insert an ``Effect`` of that name when the file ``gate`` exists."""
    _append(journal, "begin", name)
    _wait_for(gate)
    Effect.objects.create(message_id=name, attempt=1, pid=os.getpid())
    _append(journal, "written", name)


def warm_up(journal: str, name: str, gate: str) -> None:
    """Open the thread's database connection, and hold the thread until all have theirs."""
    Effect.objects.exists()
    hold(journal, name, gate)


def take_all_memory(journal: str, name: str, seconds: float) -> None:
    """Take all memory there is, in ever smaller pieces, keep it for a while, and raise what came of it."""
    _append(journal, "begin", name)
    pieces: list[bytearray] = []
    size, ends = LARGEST, 0.0
    error = MemoryError()  # made while there is memory
    while size > SMALLEST or time.monotonic() < ends:
        try:
            pieces.append(bytearray(size))
        except MemoryError:
            if size > SMALLEST:
                size //= 2
                ends = time.monotonic() + seconds
    raise error


def _wait_for(gate: str) -> None:
    deadline = time.monotonic() + LIMIT
    while not Path(gate).exists():
        if time.monotonic() > deadline:
            raise TimeoutError(gate)
        time.sleep(0.01)


def _append(journal: str, what: str, name: str) -> None:
    with open(journal, "ab", buffering=0) as file:  # O_APPEND: lines of several processes do not mix
        file.write(f"{what} {name} {os.getpid()} {time.monotonic():.6f}\n".encode())
