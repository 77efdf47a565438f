"""What an operator does with tasks: the verbs behind the monitor's buttons, and of 1.x.

Receives primary keys; hands on what was done and what was not, and why. Any number of keys: they are taken in slices
of 500, each a short transaction. Pressing twice does everything once, as each verb tests the status it starts from.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from django.db import OperationalError, router, transaction
from django.db.models import Max
from django.utils.translation import gettext as _

from carrot import publisher
from carrot.conf import get_queue, get_settings
from carrot.exceptions import BrokerError
from carrot.message import Message
from carrot.models import MessageLog, Origin, Status
from carrot.services import messages_of, publish, ring_on_commit

logger = logging.getLogger(__name__)

#: Rows of one short transaction.
SLICE = 500
#: Seconds the broker gets to purge a queue.
PURGE_TIMEOUT = 5.0

#: Statuses in which a task waits, for a worker or for its time.
WAITING = (Status.PUBLISHED, Status.WAITING)
#: Statuses in which a task is over and may be deleted.
FINAL = (Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.HANDED_OVER)


@dataclass(kw_only=True)
class Result:
    """What an operation did: the number of tasks changed, and of those left alone by reason."""

    done: int = 0
    skipped: Counter[str] = field(default_factory=Counter)


def requeue(ids: Iterable[int]) -> Result:
    """Has failed and withdrawn tasks run again, as the same rows; their finished attempts move to the history.

    A task whose queue left the settings is skipped. The messages follow on commit.
    """

    settings = get_settings()
    # The relay waits where this process sends the message itself. On the embedded broker the row is the message.
    grace = settings.confirm_timeout if settings.publisher == "thread" else 0.0

    def some(keys: Sequence[int]) -> set[int]:
        rows = MessageLog.objects.requeue(
            keys,
            {
                name: (queue.host.address, 0.0 if queue.host.is_database else grace)
                for name, queue in settings.queues.items()
            },
        )
        ring_on_commit(messages_of(rows, grace or None))
        return {row.pk for row in rows}

    return _sliced(ids, some, (Status.FAILED, Status.CANCELLED))


def run_again(row: MessageLog, *, origin: str = Origin.CODE) -> MessageLog:
    """Publishes a copy of ``row`` and returns the new row; the old one stays as it is.

    Raises :class:`~carrot.exceptions.UnknownQueue` where its queue left the settings.
    """
    queue = get_queue(row.queue)
    return publish(
        Message(
            task=row.task,
            args=row.positionals,
            kwargs=row.keywords,
            queue=queue.name,
            priority=row.priority,
            exchange=row.exchange,
            routing_key=row.routing_key,
            origin=row.origin if row.origin != Origin.CODE else origin,
        )
    )


def withdraw(ids: Iterable[int]) -> Result:
    """Withdraws tasks that wait, now or until a time; what runs goes on."""

    def some(keys: Sequence[int]) -> set[int]:
        waiting = MessageLog.objects.lock(keys, WAITING)
        MessageLog.objects.filter(pk__in=waiting).withdraw()
        return waiting

    return _sliced(ids, some, WAITING)


def delete(ids: Iterable[int]) -> Result:
    """Deletes tasks that are over, with their history. What waits or runs is skipped: withdraw it first."""

    def some(keys: Sequence[int]) -> set[int]:
        over = MessageLog.objects.lock(keys, FINAL)
        MessageLog.objects.filter(pk__in=over).only("pk").delete()  # else Django reads arguments and logs first
        return over

    return _sliced(ids, some, FINAL)


def purge_queue(name: str | None = None) -> int:
    """Withdraws every task that waits in queue ``name`` and removes the messages from the broker.

    None: in each queue that this project consumes; one that others consume is purged by its name alone. Running tasks
    are untouched, and so are tasks published while it works: their messages, which the broker may have removed with
    the others, are sent again. Returns the number of tasks withdrawn. A broker that is away changes nothing of that:
    the messages of withdrawn tasks run nothing.
    """
    withdrawn = 0
    consumed = [queue for queue in get_settings().queues.values() if queue.consumable]
    for queue in [get_queue(name)] if name else consumed:
        waiting = MessageLog.objects.filter(queue=queue.name, status=Status.PUBLISHED)
        last = waiting.aggregate(last=Max("pk"))["last"]
        while last is not None:
            keys = list(waiting.filter(pk__lte=last).values_list("pk", flat=True)[:SLICE])
            if not keys:
                break
            withdrawn += MessageLog.objects.filter(pk__in=keys).withdraw()
        try:
            publisher.broker_of(queue.host).purge(queue, PURGE_TIMEOUT)
        except BrokerError as error:
            logger.warning("Queue %s was purged, its broker was not: %s", queue.name, error)
        if not queue.host.is_database:
            waiting.arm(0.0)
    return withdrawn


def requeue_all() -> int:
    """Has every waiting task rung again, and tasks released that no living worker has; how many were rung.

    For a broker that lost its messages. A task that runs is never touched, and one whose message is there after all
    runs once. In slices, so that no worker waits for long to claim one.
    """
    embedded = [name for name, queue in get_settings().queues.items() if queue.host.is_database]
    waiting = MessageLog.objects.filter(status=Status.PUBLISHED).exclude(queue__in=embedded)

    def some(keys: Sequence[int]) -> set[int]:
        still = MessageLog.objects.lock(keys, (Status.PUBLISHED,))
        MessageLog.objects.filter(pk__in=still).arm(0.0)
        return still

    # Their keys are read first: rows that were rung wait as before, and no condition tells them from the others.
    rung = _sliced(list(waiting.order_by("pk").values_list("pk", flat=True)), some, (Status.PUBLISHED,)).done
    while orphans := MessageLog.objects.orphans(SLICE):
        released = MessageLog.objects.release(((pk, fence) for pk, fence, _worker in orphans), skip_locked=True)
        rung += released
        if not released:
            break  # locked, or somebody else's by now: the reapers look at them again
    return rung


def _sliced(ids: Iterable[int], some: Callable[[Sequence[int]], set[int]], statuses: Collection[str]) -> Result:
    """Calls ``some`` with slices of ``ids``, each in a transaction of its own; it answers with the keys it changed.

    Those that had none of ``statuses`` are counted as skipped, by what they are instead.
    """
    result = Result()
    source = iter(ids)
    while keys := list(islice(source, SLICE)):
        done = _once_more(some, keys)
        result.done += len(done)
        if len(done) < len(keys):
            result.skipped += _reasons(set(keys) - done, statuses)
    return result


def _once_more(some: Callable[[Sequence[int]], set[int]], keys: Sequence[int]) -> set[int]:
    """A slice in a transaction; a second time where it met a worker and lost (deadlock, serialization failure)."""
    alias = router.db_for_write(MessageLog)
    try:
        with transaction.atomic(using=alias):
            return some(keys)
    except OperationalError:
        if transaction.get_connection(alias).in_atomic_block:
            raise  # the caller's transaction is lost with it
        with transaction.atomic(using=alias):
            return some(keys)


def _reasons(keys: set[int], statuses: Collection[str]) -> Counter[str]:
    reasons: Counter[str] = Counter()
    rows = MessageLog.objects.filter(pk__in=keys).only("status", "queue")
    for row in rows:
        if row.status in statuses:
            reasons[_("queue %(queue)s is not in the settings any more") % {"queue": row.queue}] += 1
        else:
            reasons[_("status: %(status)s") % {"status": row.get_status_display()}] += 1
    if missing := len(keys) - len(rows):
        reasons[_("not there any more")] += missing
    return reasons
