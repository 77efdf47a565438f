"""What the broker said of messages, written into their rows: late, in batches, and usually not at all.

Receives confirmed and refused messages from the publisher's thread. A row that a worker has claimed meanwhile needs no
word any more, so confirms are kept for a second: most are claimed by then, and the one UPDATE finds the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from uuid import UUID

from django.db import Error as DatabaseFailure

from carrot import clock, database
from carrot.conf import get_settings
from carrot.message import Message
from carrot.models import Installation, MessageLog

logger = logging.getLogger(__name__)

#: Seconds a confirm is kept before it is written.
PATIENCE = 1.0
#: Seconds without anything to write after which this thread's database connection is closed.
IDLE = 10.0
#: Seconds until a message that the broker returned is tried again.
UNROUTABLE_RETRY = 15.0
BATCH = 500


class RowSettlement:
    """Lives in one publisher's thread. ``address`` is of the virtual host, for the log."""

    def __init__(self, address: str) -> None:
        self.address = address
        #: The id of this installation; empty until learned.
        self.site = ""
        self._confirmed: list[tuple[float, Message]] = []
        self._used_at = clock.monotonic()

    def learn_site(self) -> bool:
        """Asks the database for the installation's id, once; False where it cannot be had now."""
        if not self.site:
            try:
                self.site = str(Installation.objects.site())
            except DatabaseFailure as error:
                logger.warning("The publisher to %s waits for the database: %s", self.address, error)
                database.drop_broken()
        return bool(self.site)

    def confirmed(self, messages: Sequence[Message]) -> None:
        now = clock.monotonic()
        self._confirmed.extend((now, message) for message in messages)

    def undeliverable(self, messages: Sequence[Message], why: str) -> None:
        """The rows wait, say why, and are tried again; a queue or binding made meanwhile lets them through."""
        self._write(lambda: MessageLog.objects.undeliverable([m.uuid for m in messages], why, UNROUTABLE_RETRY))

    def tick(self) -> None:
        """Once a second: writes the confirms that are old enough; without work, lets the database go."""
        due = clock.monotonic() - PATIENCE
        count = next((index for index, entry in enumerate(self._confirmed) if entry[0] > due), len(self._confirmed))
        ripe, self._confirmed = self._confirmed[:count], self._confirmed[count:]
        groups: dict[tuple[int, bool], list[UUID]] = {}
        for _, message in ripe:
            groups.setdefault((message.fence, not self._consumable(message.queue)), []).append(message.uuid)
        for (fence, handed_over), uuids in groups.items():
            for start in range(0, len(uuids), BATCH):
                some = uuids[start : start + BATCH]
                if not self._write(partial(MessageLog.objects.confirmed, some, fence, handed_over=handed_over)):
                    return  # the next would wait for the database as long
        if not ripe and clock.monotonic() - self._used_at > IDLE:
            database.close()
            self._used_at = clock.monotonic()

    @staticmethod
    def _consumable(name: str) -> bool:
        queue = get_settings().queues.get(name)
        return queue is None or queue.consumable

    def _write(self, change: Callable[[], int]) -> bool:
        """Whether it was written. A failure costs a second bell, nothing more: the row stays armed."""
        self._used_at = clock.monotonic()
        try:
            change()
        except DatabaseFailure as error:
            logger.warning("Could not note what %s said of messages (they will be rung again): %s", self.address, error)
            database.drop_broken()
            return False
        return True
