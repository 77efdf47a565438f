"""The one place where carrot reads the time, so that a test can move it in one place."""

from __future__ import annotations

import time
from datetime import datetime

from django.utils import timezone

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now() -> datetime:
    """The wall-clock time to store in rows and to show: aware if `USE_TZ` is on, as `django.utils.timezone.now`."""
    return timezone.now()


class Awake:
    """Since when this process has been awake, as far as it can tell by looking regularly.

    A host that was suspended, or a container that was paused, finds everybody silent for that long when it goes on.
    Nobody is to be judged for a time in which the judge was not there.
    """

    def __init__(self, gap: float = 5.0) -> None:
        """``gap``: seconds between two looks after which this process must have been away."""
        self._gap = gap
        self._looked_at = self._since = monotonic()

    def look(self) -> float:
        """The moment, by the monotonic clock, since which this process has been looking without a gap."""
        now = monotonic()
        if now - self._looked_at > self._gap:
            self._since = now
        self._looked_at = now
        return self._since


def monotonic() -> float:
    """Seconds on a clock that nobody sets, for deadlines and leases on this host. Its zero means nothing.

    On Linux it counts the time in which the machine was suspended, too: a lease ends while its holder sleeps.
    """
    return time.clock_gettime(_CLOCK)
