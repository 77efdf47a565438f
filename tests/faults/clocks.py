"""Clocks that are wrong: those of processes of a project, and that of a PostgreSQL server.

    clock = Clock(site.directory / "clock")
    service = site.service(env=clock.env)      # or Workload(..., clocks=True): workload.clocks["service 1"]
    clock.shift(-3600)                         # at once, in all processes started with clock.env

What moves is ``carrot.clock.now`` (see ``tests/app/clock.py``); nothing else in the process notices. For the clock of a
database, start it with one: ``postgresql.stop(); postgresql.start(clock_offset=86400)``, or use the fixture
``database_clock``.
"""

from __future__ import annotations

from pathlib import Path

from tests.app.clock import VARIABLE


class Clock:
    """The clock of the processes started with ``env`` in their environment."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.env = {VARIABLE: str(path)}

    def shift(self, seconds: float) -> None:
        """Let it go ``seconds`` ahead of the time of day (behind, if negative) from now on; 0 sets it right."""
        written = self._path.with_name(f"{self._path.name}.new")
        written.write_text(str(seconds))
        written.replace(self._path)  # at once: nobody reads half a number
