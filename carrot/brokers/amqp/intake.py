"""Turns deliveries into claims: whose message each is, which row it rings, and what is kept of the others.

Receives deliveries from the subscription; hands on claims, and the tags of deliveries that must go back to the broker.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import NAMESPACE_URL, UUID, uuid5

from django.db import DataError, IntegrityError, transaction
from django.db import Error as DatabaseFailure

from carrot import clock, database
from carrot.arguments import clean_text
from carrot.brokers.amqp.inbox import FOREIGN, MARKER, STRAY, TASK, Read, read
from carrot.brokers.base import Adopt
from carrot.conf import QueueSettings, get_settings
from carrot.models import Installation, MessageLog, Origin, Status, StrayMessage
from carrot.models.claim import Claim
from carrot.not_json import error_text

logger = logging.getLogger(__name__)

#: Statuses a message of a row finds it in where it was not claimed and could have been.
CLAIMABLE = (Status.PUBLISHED, Status.HANDED_OVER)


class Delivery(NamedTuple):
    """A message as it came. ``tag`` means something on the channel of ``epoch`` only."""

    epoch: int
    tag: int
    properties: Any
    body: bytes


class Taken(NamedTuple):
    """What became of a batch. All tags but ``back`` may be acknowledged."""

    claims: list[Claim]
    back: set[int]
    foreign: bool


class Intake:
    """Of one queue in one worker process. Every method runs in the claimer's thread."""

    def __init__(self, queue: QueueSettings, adopt: Adopt | None) -> None:
        self.queue = queue
        self._adopt = adopt
        self._site = ""

    def take(self, batch: Sequence[Delivery], worker_id: int) -> Taken:
        """Claims the tasks of ``batch``, in their order; committed when it returns. Raises ``django.db.Error``."""
        if not self._site:
            self._site = str(Installation.objects.site())
        opened = [read(delivery.properties, delivery.body, self._site) for delivery in batch]
        alias = database.alias()
        # Creation and claim of another program's task are one transaction; carrot's own messages need none around.
        with transaction.atomic(using=alias) if self._adopt else nullcontext():
            if self._adopt:
                opened = [
                    self._adopted(one, delivery) if one.kind in (TASK, STRAY) and one.stranger else one
                    for one, delivery in zip(opened, batch, strict=True)
                ]
            uuids = list(dict.fromkeys(one.uuid for one in opened if one.kind == TASK and one.uuid))
            claims = MessageLog.objects.claim(uuids, worker_id) if uuids else {}
        unclaimed = self._unclaimed([uuid for uuid in uuids if uuid not in claims])
        strays = [one for one in opened if one.kind == STRAY]
        strays += [
            one._replace(reason="no task has this message id")
            for one in opened
            if one.kind == TASK and one.uuid not in claims and one.uuid not in unclaimed
        ]
        try:
            if strays:
                self._keep(strays)
            if markers := [one.before for one in opened if one.kind == MARKER and one.before is not None]:
                self._marker_came(max(markers))
        except DatabaseFailure:
            # The claims are committed and count for more.
            logger.exception("%d stray message(s) in queue %s could not be kept.", len(strays), self.queue.name)
        back = {
            delivery.tag
            for delivery, one in zip(batch, opened, strict=True)
            # A row that still waits was not ours to claim: this worker was declared lost, or somebody has just handed
            # the row back. Its message may be its only bell, so it is not acknowledged.
            if one.kind == FOREIGN or (one.uuid is not None and unclaimed.get(one.uuid) in CLAIMABLE)
        }
        foreign = any(one.kind == FOREIGN for one in opened)
        return Taken([claims[uuid] for uuid in uuids if uuid in claims], back, foreign)

    def _unclaimed(self, uuids: Sequence[UUID]) -> dict[UUID, str]:
        """The status of rows that exist and were not claimed: final, running, waiting for something else."""
        if not uuids:
            return {}
        return dict(MessageLog.objects.filter(uuid__in=uuids).values_list("uuid", "status"))

    # -- messages of other programs -------------------------------------------------------------------------------

    def _adopted(self, one: Read, delivery: Delivery) -> Read:
        """Has the consumer make a row of another program's message; a message that comes again finds the row."""
        name = f"{self.queue.host.address}|{self.queue.name}|{one.message_id}"
        uuid = one.uuid or (uuid5(NAMESPACE_URL, name) if one.message_id else None)
        if uuid is not None and MessageLog.objects.filter(uuid=uuid).exists():
            return one._replace(kind=TASK, uuid=uuid)
        assert self._adopt is not None
        try:
            with transaction.atomic(using=database.alias()):  # a savepoint: what a hook breaks is its own message only
                row = self._adopt(delivery.properties, delivery.body)
                if row is None:
                    return one._replace(kind=STRAY, reason="the consumer's get_message_log() made no task of it")
                self._enter(row, uuid)
        except (DataError, IntegrityError) as error:  # of this row; no reason to wait for the database
            return one._replace(kind=STRAY, reason=f"get_message_log() made a row that cannot be stored: {error}")
        except DatabaseFailure:
            raise
        except Exception as error:
            logger.exception("get_message_log() of the consumer of queue %s raised.", self.queue.name)
            return one._replace(kind=STRAY, reason=f"get_message_log() raised {error_text(error)}")
        return one._replace(kind=TASK, uuid=row.uuid)

    def _enter(self, row: MessageLog, uuid: UUID | None) -> None:
        """Makes an adopted row one like the others: ours to claim now, its task taken from the registry only."""
        now = clock.now()
        if uuid is not None:
            row.uuid = uuid
        row.origin = Origin.MESSAGE
        row.status = Status.PUBLISHED
        row.broker, row.queue = self.queue.host.address, self.queue.name
        row.exchange, row.routing_key = (
            "",
            self.queue.name,
        )  # how it is rung again, if it has to be
        row.state_at, row.ring_at = now, now + timedelta(seconds=get_settings().confirm_timeout)
        row.to_message()  # raises, as any other mistake of the hook, what no bell could ever be made of
        row.save()

    # -- what is no task ------------------------------------------------------------------------------------------

    def _keep(self, strays: Sequence[Read]) -> None:
        logger.warning("%d message(s) in queue %s were no tasks: %s", len(strays), self.queue.name, strays[0].reason)
        StrayMessage.objects.keep(
            [
                StrayMessage(
                    received_at=clock.now(),
                    broker=self.queue.host.address,
                    queue=self.queue.name,
                    # Some of it is a stranger's, or made of it: nothing in it may be refused by the database.
                    reason=clean_text(one.reason, 1000)[:255],
                    task=clean_text(one.task, 1000)[:255],
                    message_id=clean_text(one.message_id, 1000)[:255],
                    body=clean_text(one.excerpt, 10_000),
                )
                for one in strays
            ]
        )

    def _marker_came(self, before: Any) -> None:
        """Everything sent before a marker came out before it: what has waited since a time before the moment it names,
        and has no bell, has lost its message; or it is still to come, where a long transaction published, or a clock is
        behind.

        Its bell is set a little ahead, so that messages another worker holds at this moment are claimed first.
        """
        name = self.queue.name
        lost = (
            MessageLog.objects.believed_in(name).filter(state_at__lt=before).arm(2 * get_settings().reconcile_interval)
        )
        if lost:
            logger.warning("The messages of %d task(s) in queue %s may be lost; they ring again.", lost, name)
