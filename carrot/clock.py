"""The one place where carrot reads the time, so that a test can move it in one place."""

from __future__ import annotations

import time
from datetime import datetime

from django.utils import timezone


def now() -> datetime:
    """The wall-clock time to store in rows and to show: aware if `USE_TZ` is on, as `django.utils.timezone.now`."""
    return timezone.now()


def monotonic() -> float:
    """Seconds on a clock that nobody sets, for deadlines and leases within this process. Its zero means nothing."""
    return time.monotonic()
