"""Publishes scheduled tasks at their times.

Receives the schedules that are due; hands their messages to ``services``. Every service runs one, and none leads:
whoever takes a slot first publishes it, in one transaction with the task's row. No schedule is kept in memory, so a
change made anywhere counts at the next look.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime

from django.db import transaction

from carrot import clock, database, registry
from carrot.arguments import clean_text
from carrot.exceptions import CarrotError
from carrot.loops import Loop
from carrot.message import Message
from carrot.models import ScheduledTask
from carrot.models.slots import ScheduledTaskQuerySet
from carrot.not_json import error_text
from carrot.services import publish_many

logger = logging.getLogger(__name__)

#: Slots taken in one transaction.
BATCH = 500
#: Bytes of the reason why a schedule could not be published.
MAX_PROBLEM = 4_096
#: Seconds between looks where nothing is due earlier: how soon a change counts.
LOOK = 0.5
#: Seconds to wait where everything due is in the hands of others.
TAKEN = 0.05
#: Seconds between looks for schedules that were changed without ``save()``, and for slots set by a wrong clock.
REALIGN = 1.0
REWIND = 60.0


class Scheduler(Loop):
    """For all schedules of the database, whatever queues this service consumes."""

    def __init__(self) -> None:
        super().__init__("scheduler")
        self._realign_at = 0.0
        self._rewind_at = 0.0

    def step(self) -> float:
        schedules = ScheduledTask.objects.using(database.alias())
        self._set_right(schedules)
        now = clock.now()
        earliest = schedules.earliest_slot()
        if earliest is None:
            return LOOK
        if earliest > now:
            return min(LOOK, float((earliest - now).total_seconds()))
        self._import_tasks(schedules.due(now))
        return 0.0 if publish_due(schedules, now) else TAKEN

    def _set_right(self, schedules: ScheduledTaskQuerySet) -> None:
        now = clock.monotonic()
        if now >= self._realign_at:
            schedules.realign()
            self._realign_at = now + REALIGN
        if now >= self._rewind_at:
            if rewound := schedules.rewind():
                logger.warning("The next runs of %d schedule(s) were too far away: a clock had run ahead.", rewound)
            self._rewind_at = now + REWIND

    @staticmethod
    def _import_tasks(due: ScheduledTaskQuerySet) -> None:
        """Now rather than while rows are locked: a module may take its time."""
        for path in due.order_by().values_list("task", flat=True).distinct():
            with suppress(CarrotError):  # told when the message is made
                registry.resolve(path, registered_only=False)


def publish_due(schedules: ScheduledTaskQuerySet, now: datetime) -> int:
    """Takes up to :data:`BATCH` due slots and publishes their tasks, in one transaction; returns the number taken.

    A schedule that cannot be published loses its slot, keeps the reason in ``problem`` and does not stop the others.
    """
    with transaction.atomic(using=schedules.db_for_change()):
        rows = schedules.take_due(now, BATCH)
        messages = _take(rows, now)
        schedules.advance(rows, now)
        publish_many(messages)
    return len(rows)


def _take(rows: Sequence[ScheduledTask], now: datetime) -> list[Message]:
    """Notes in each row what becomes of its slot; returns the messages to publish."""
    messages = []
    for row in rows:
        try:
            message = row.to_message()
        except Exception as error:
            # Whatever is wrong with one schedule, the others are published.
            problem = clean_text(str(error) if isinstance(error, CarrotError) else error_text(error), MAX_PROBLEM)
            if problem != row.problem:
                logger.error("The scheduled task “%s” cannot be published: %s", row.task_name, problem)
            row.handle(now, None, problem)
        else:
            row.handle(now, message)
            messages.append(message)
    return messages
