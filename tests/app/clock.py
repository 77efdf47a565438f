"""A clock that a test can set, while the process runs: it is the time of day plus what a file says.

Nothing but carrot's own reading of the time is moved; deadlines and leases are measured by clocks that nobody sets.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from django.utils import timezone

from carrot import clock

#: Names the file with the seconds to add; no file is none.
VARIABLE = "CARROT_TEST_CLOCK"


class ShiftedTimezone:
    """Stands for ``django.utils.timezone`` in ``carrot.clock``, which asks it for nothing else."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def now(self) -> datetime:
        try:
            seconds = float(self._path.read_text())
        except FileNotFoundError:
            seconds = 0.0
        return timezone.now() + timedelta(seconds=seconds)


def shift(path: str) -> None:
    """Make ``carrot.clock.now`` of this process, and of those it forks, follow the file.

    The function itself stays the same object: columns have it as their default.
    """
    vars(clock)["timezone"] = ShiftedTimezone(Path(path))
