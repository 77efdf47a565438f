"""Threads of the service that die when a test says so.

They die with ``SystemExit``, as of what nobody expected and nobody catches, at the moment when they look at the clock
the next time; all of carrot's threads do that again and again. A task that runs in them is not touched: what it raises
is its own outcome.
"""

from __future__ import annotations

import os
import threading
from functools import partial
from pathlib import Path

from carrot import clock

#: Names a directory. A file with the name of a thread in it, and where it matters the pid of a process after a space,
#: is the death of one such thread, which removes it.
VARIABLE = "CARROT_TEST_DEADLY_THREADS"


def make_mortal(directory: str) -> None:
    """Have the threads of the processes that this one forks look for their deaths."""
    os.register_at_fork(after_in_child=partial(_replace_clock, Path(directory)))


def _replace_clock(directory: Path) -> None:
    from carrot.context import current  # which needs the models

    monotonic = clock.monotonic

    def deadly_monotonic() -> float:
        name = threading.current_thread().name
        for death in (directory / name, directory / f"{name} {os.getpid()}"):
            if death.exists() and current() is None:
                death.unlink()
                raise SystemExit(f"{name} was to die")
        return monotonic()

    vars(clock)["monotonic"] = deadly_monotonic
