"""Deletes finished tasks when their time is over, a few at a time."""

from __future__ import annotations

import logging
from datetime import timedelta

from django.db import transaction

from carrot import clock, database
from carrot.conf import Retention
from carrot.loops import Loop
from carrot.models import MessageLog, WorkerProcess

logger = logging.getLogger(__name__)

#: Seconds between two looks where nothing is left to delete.
PERIOD = 60.0
#: Rows deleted with one statement, so that no lock is held for long.
SLICE = 500
#: Seconds a worker's row is kept after its end, for the monitor.
WORKERS = 30 * 86_400.0


class Janitor(Loop):
    """Keeps the tables from growing for ever; see the setting ``retention``."""

    def __init__(self, retention: Retention) -> None:
        super().__init__("retention")
        self._ages = {
            "COMPLETED": retention.completed,
            "HANDED_OVER": retention.completed,
            "FAILED": retention.failed,
            "CANCELLED": retention.cancelled,
        }

    def step(self) -> float:
        deleted = 0
        for status, age in self._ages.items():
            if age is not None:
                deleted = max(deleted, self._delete_old(status, age))
        self._forget_workers()
        return 0.0 if deleted == SLICE else PERIOD

    def _delete_old(self, status: str, age: float) -> int:
        """Deletes the oldest rows of ``status``; a row requeued in between has another status and stays."""
        limit = clock.now() - timedelta(seconds=age)
        old = MessageLog.objects.filter(status=status, state_at__lt=limit).order_by("state_at", "pk")
        keys = list(old.values_list("pk", flat=True)[:SLICE])
        if keys:
            with transaction.atomic(using=database.alias()):
                # The keys alone: to delete what belongs to a row, Django reads it first, arguments and logs and all.
                MessageLog.objects.filter(pk__in=MessageLog.objects.lock(keys, (status,))).only("pk").delete()
        return len(keys)

    def _forget_workers(self) -> None:
        """A task that still names one of them shows its number alone."""
        limit = clock.now() - timedelta(seconds=WORKERS)
        WorkerProcess.objects.filter(alive=False, ended_at__lt=limit).delete()
