"""The embedded broker: the rows are the queue.

Nothing is sent and nothing can be lost on the way. A worker claims waiting rows directly, looking every 10 ms while
there is work and ever more rarely (to half a second) while there is none. A publish in the worker's own process wakes
it.
"""

from __future__ import annotations

import random
import weakref
from collections.abc import Callable, Sequence
from datetime import datetime

from carrot import clock
from carrot.brokers.base import Adopt, Broker, Depth, Subscription
from carrot.conf import QueueSettings
from carrot.message import Message
from carrot.models import MessageLog
from carrot.models.claim import Claim

#: Seconds between looks at a queue that just had work, and at one that has had none for a while.
BUSY_LOOK = 0.01
IDLE_LOOK = 0.5

_subscriptions: weakref.WeakSet[DatabaseSubscription] = weakref.WeakSet()


class DatabaseSubscription(Subscription):
    """Looks at one queue's rows at adaptive intervals."""

    def __init__(self, queue: QueueSettings, wake: Callable[[], None]) -> None:
        self.queue = queue
        self._wake = wake
        self._pause = BUSY_LOOK
        self._look_at = 0.0
        self._pokes = 0
        self._room = 1
        _subscriptions.add(self)

    def claim(self, limit: int, worker_id: int) -> list[Claim]:
        pokes = self._pokes
        claims = MessageLog.objects.claim_next(self.queue.name, limit, worker_id)
        if len(claims) == limit:  # there is probably more: look again as soon as there is room
            self._pause, self._look_at = BUSY_LOOK, 0.0
        else:
            self._pause = BUSY_LOOK if claims else min(IDLE_LOOK, self._pause * 1.5)
            # Jitter, so that the processes of a service do not look in step.
            self._look_at = clock.monotonic() + self._pause * random.uniform(0.8, 1.2)  # noqa: S311
            if self._pokes != pokes:  # meanwhile; the row may have come after the look
                self._look_at = 0.0
        return claims

    def has_work(self) -> bool:
        return self._room > 0 and clock.monotonic() >= self._look_at

    def next_look(self) -> float:
        return max(0.0, self._look_at - clock.monotonic()) if self._room > 0 else IDLE_LOOK

    def demand(self, room: int) -> None:
        self._room = room

    def poke(self) -> None:
        """A row was published in this process: look now."""
        self._pokes += 1
        self._pause, self._look_at = BUSY_LOOK, 0.0
        self._wake()

    def close(self, timeout: float) -> None:
        self._room = 0
        _subscriptions.discard(self)


class DatabaseBroker(Broker):
    """``database://``."""

    rows_are_messages = True

    def ring(self, messages: Sequence[Message]) -> None:
        names = {message.queue for message in messages}
        for subscription in list(_subscriptions):
            if subscription.queue.name in names:
                subscription.poke()

    def can_ring(self) -> bool:
        return True

    def flush(self, timeout: float) -> bool:
        return True

    def subscribe(self, queue: QueueSettings, wake: Callable[[], None], adopt: Adopt | None = None) -> Subscription:
        return DatabaseSubscription(queue, wake)

    def depth(self, queue: QueueSettings, timeout: float) -> Depth | None:
        return None

    def purge(self, queue: QueueSettings, timeout: float) -> int:
        return 0  # the rows are the messages

    def send_marker(self, queue: QueueSettings, before: datetime) -> None:
        """Rows cannot vanish from themselves."""

    def describe(self) -> str:
        return "embedded broker"

    def close(self, timeout: float) -> None:
        """Nothing is held."""
