"""Rings rows whose time has come: delayed tasks, and every row whose message was not confirmed.

Receives nothing but the table; hands messages on to the publisher. Every service runs one; two share the work.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

from carrot import clock, publisher
from carrot.conf import CarrotSettings
from carrot.loops import Loop
from carrot.models import MessageLog
from carrot.services import messages_of
from carrot.virtual_host import VirtualHost

#: Rows rung with one statement.
BATCH = 500
#: Seconds until a row is looked at again that no message can be made of.
HOPELESS = 600.0
#: Seconds between two looks for bells that a wrong clock has set.
REWIND = 60.0
#: Seconds between looks where nothing is known to be due.
LOOK = 0.5


class Relay(Loop):
    """For the queues of the settings, consumed here or not.

    ``tell`` is told, again and again, why messages that are due cannot be sent; once, by an empty text, that they can.
    """

    def __init__(self, settings: CarrotSettings, tell: Callable[[str], None] = lambda _why: None) -> None:
        super().__init__("relay")
        self._tell = tell
        self._unsent, self._told = "", True  # a service before this one may have told something
        self._again = settings.ring_again
        #: Seconds from now after which no bell is set but by a wrong clock.
        self._latest = max(HOPELESS, self._again, 2 * settings.reconcile_interval) + REWIND
        by_host = sorted(settings.queues.values(), key=lambda queue: queue.host.url)
        self._hosts: list[tuple[VirtualHost, list[str]]] = [
            (host, [queue.name for queue in group]) for host, group in groupby(by_host, key=lambda queue: queue.host)
        ]
        self._settings_checked = False
        self._rewound_at = 0.0

    def step(self) -> float:
        if not self._settings_checked:
            self._follow_settings()
        if clock.monotonic() - self._rewound_at >= REWIND:
            self._rewound_at = clock.monotonic()
            MessageLog.objects.rewind(self._latest)
        if not MessageLog.objects.due(clock.now()).exists():
            self._say("")
            return self._until_next()
        rang = False
        unsent = []
        for host, names in self._hosts:
            broker = publisher.broker_of(host)
            # A broker that is away is not rung: its rows would only be pushed forward, one bell after the other.
            if not broker.can_ring():
                if MessageLog.objects.due(clock.now()).filter(queue__in=names).exists():
                    unsent.append(f"{host}: {broker.describe()}")
                continue
            rows = MessageLog.objects.ring(
                names,
                again_in=None if broker.rows_are_messages else self._again,
                broker=host.address,
                limit=BATCH,
            )
            broker.ring(messages_of(rows, None if broker.rows_are_messages else HOPELESS))
            rang = rang or bool(rows)
            if rows and not broker.rows_are_messages:
                broker.flush(self._again / 2)  # no faster than the broker takes them
        self._say("\n".join(unsent))
        return 0.0 if rang else LOOK

    def _say(self, unsent: str) -> None:
        """Tells what is seen twice: every connection has a moment in which it is not there yet."""
        seen, self._unsent = self._unsent, unsent
        if seen == unsent and (unsent or self._told):
            self._tell(unsent)
            self._told = bool(unsent)

    def _follow_settings(self) -> None:
        """Waiting rows of a queue whose broker changed in the settings go to the new one."""
        for host, names in self._hosts:
            for name in names:
                MessageLog.objects.moved(name, host.address)
        self._settings_checked = True

    def _until_next(self) -> float:
        """Seconds until the earliest bell; no longer than :data:`LOOK`, as earlier ones may be set at any time."""
        next_bell = (
            MessageLog.objects.filter(ring_at__isnull=False)
            .order_by("ring_at")
            .values_list("ring_at", flat=True)
            .first()
        )
        if next_bell is None:
            return LOOK
        return min(LOOK, max(0.01, float((next_bell - clock.now()).total_seconds())))
