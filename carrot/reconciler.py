"""Finds tasks whose message vanished from the broker, and has them rung again.

Receives the broker's counts; hands bells on to the relay. A confirmed message may still be lost: a power cut, a queue
purged or deleted by hand, a broker restored from somewhere.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from django.db.models import Count, Min

from carrot import clock, publisher
from carrot.conf import CarrotSettings, QueueSettings
from carrot.exceptions import BrokerError
from carrot.loops import Loop
from carrot.models import MessageLog

logger = logging.getLogger(__name__)

#: Rows counted at most; more than that are "many", which is all that has to be known.
COUNTED = 10_000
#: Looks from one marker of a queue to the next.
MARKER_LOOKS = 12
ANSWER_TIMEOUT = 5.0


class Reconciler(Loop):
    """For the queues this service consumes, on brokers where messages and rows are two things."""

    def __init__(self, queues: Sequence[QueueSettings], settings: CarrotSettings) -> None:
        super().__init__("reconciler")
        #: Seconds between two looks, and that a row must have been waiting to be missed: longer than any worker holds
        #: an unclaimed message.
        self._interval = settings.reconcile_interval
        #: The bells of rows whose messages are in the hands of a publisher or a relay are due within it.
        self._in_hand = timedelta(seconds=settings.ring_again)
        self._queues = [queue for queue in queues if not queue.host.is_database]
        self._empty_before: dict[str, bool] = {}
        self._mark_at: dict[str, float] = {}

    def step(self) -> float:
        for queue in self._queues:
            try:
                self._compare(queue)
            except BrokerError:
                # A broker that does not answer is the publisher's to report; nothing is known of its messages.
                self._empty_before.pop(queue.name, None)
        return self._interval

    def _compare(self, queue: QueueSettings) -> None:
        settled = clock.now() - timedelta(seconds=self._interval)
        waiting = MessageLog.objects.believed_in(queue.name).filter(state_at__lt=settled)
        # In the order of the index that serves it; SQLite would take that of the statuses for every waiting row.
        rows = waiting.order_by("-priority", "pk").values("pk")[:COUNTED].count()
        if not rows:
            self._empty_before.pop(queue.name, None)
            return
        depth = publisher.broker_of(queue.host).depth(queue, ANSWER_TIMEOUT)
        if depth is None:
            return
        if depth.ready == 0:
            # Seen twice, since at one moment all may be on their way to a worker that is about to claim them.
            if self._empty_before.get(queue.name):
                lost = waiting.arm(0.0)
                logger.warning("Queue %s is empty and %d task(s) wait in it: they are rung again.", queue.name, lost)
            self._empty_before[queue.name] = True
            return
        self._empty_before.pop(queue.name, None)
        if depth.ready < rows and clock.monotonic() >= self._mark_at.get(queue.name, 0.0):
            before = self._all_sent_before(queue)
            if before is not None:
                self._mark_at[queue.name] = clock.monotonic() + MARKER_LOOKS * self._interval
                publisher.broker_of(queue.host).send_marker(queue, before)

    def _all_sent_before(self, queue: QueueSettings) -> datetime | None:
        """A moment; of the tasks that have waited for longer, the broker has taken every message. None: there are too
        many bells to tell.

        After an outage old tasks are rung for minutes. Their messages come out behind a marker that is sent now, and
        are not lost.
        """
        now = clock.now()
        unsent = MessageLog.objects.due(now + self._in_hand).routed_into(queue.name)
        # What the broker has refused has a note, and no place in the queue.
        bells = unsent.filter(note="").exclude(status="WAITING")[:COUNTED]
        found = bells.aggregate(count=Count("pk"), first=Min("state_at"))
        return None if found["count"] == COUNTED else min(now, found["first"] or now)
