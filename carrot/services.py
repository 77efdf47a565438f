"""The verbs that users' code and the monitor share.

Receives calls; hands on rows. Every verb is safe inside the caller's transaction: the row is part of it, and its
message follows only on commit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from django.db import IntegrityError, router, transaction

from carrot import publisher, registry
from carrot.arguments import decode, encode_arguments
from carrot.conf import get_queue, get_settings
from carrot.exceptions import CarrotError, InvalidArguments, UnknownQueue
from carrot.functions import function_at
from carrot.message import Message
from carrot.models import MessageLog, Origin, ScheduledTask, Status
from carrot.models.insertion import insert
from carrot.models.slots import MAX_NAME, parse_interval
from carrot.not_json import bad_text, error_text, short, type_name
from carrot.signatures import signature_of

logger = logging.getLogger(__name__)

#: Parameters of :func:`create_scheduled_task` that hide parameters of the task of the same name.
SCHEDULE_PARAMETERS = ("task", "interval", "task_name", "queue", "update")


def publish_message(
    task: Callable[..., Any] | str,
    *task_args: Any,
    priority: int = 0,
    queue: str | None = None,
    exchange: str = "",
    routing_key: str | None = None,
    **task_kwargs: Any,
) -> MessageLog:
    """Publishes ``task(*task_args, **task_kwargs)`` and returns its row.

    Inside ``transaction.atomic()`` the row is part of the caller's transaction: a rollback leaves nothing, a commit
    means that the task will run, whatever happens to this process or to the broker. Never waits for the broker.

    ``queue`` None and ``priority`` 0 stand for those of ``@carrot.task``, then for ``default`` and 0; ``routing_key``
    defaults to the queue's name. The function receives what the JSON of its arguments decodes to (a datetime arrives
    as an ISO string, a tuple as a list); the returned row shows it. Raises :class:`~carrot.exceptions.PublishError`,
    with nothing written.
    """
    path = registry.validate_task(task)
    if reserved := registry.reserved_parameters(path):
        raise InvalidArguments(
            f"{path} has parameters that publish_message() keeps for itself: {', '.join(reserved)}. "
            "Use create_message(task, queue, task_args=…, task_kwargs={…}).publish(), or rename them."
        )
    return publish(_message(path, task_args, task_kwargs, queue, priority, exchange, routing_key))


def create_message(
    task: Callable[..., Any] | str,
    queue: str | None,
    priority: int = 0,
    task_args: Sequence[Any] = (),
    exchange: str = "",
    routing_key: str | None = None,
    task_kwargs: Mapping[str, Any] | None = None,
) -> Message:
    """A checked message that is not published yet: ``create_message(…).publish()``, or many for ``publish_many``.

    Raises :class:`~carrot.exceptions.PublishError`.
    """
    path = registry.validate_task(task)
    return _message(path, task_args, task_kwargs or {}, queue, priority, exchange, routing_key)


def _message(
    path: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    queue: str | None,
    priority: int,
    exchange: str,
    routing_key: str | None,
) -> Message:
    options = registry.task_options(path)
    if queue is not None and not isinstance(queue, str):
        raise UnknownQueue(f"queue is of type {type_name(queue)}; it must be the name of a queue.")
    settings = get_queue(queue or options.queue)
    try:
        args, kwargs = [*args], {**kwargs}  # read once: it may be an iterator
    except Exception as error:
        raise InvalidArguments(
            f"The arguments of {path} cannot be read: {error_text(error)}. Pass a list and a dictionary."
        ) from error
    registry.check_call(path, args, kwargs)
    args_text, kwargs_text = encode_arguments(
        args, kwargs, get_settings().max_arguments_size, names=registry.parameter_names(path)
    )
    return Message(
        task=path,
        args=tuple(decode(args_text)),
        kwargs=decode(kwargs_text),
        queue=settings.name,
        priority=priority or options.priority or 0,
        exchange=exchange,
        routing_key=settings.name if routing_key is None else routing_key,
    )


def publish(message: Message) -> MessageLog:
    """Writes the row of ``message``; rings it on commit. See :func:`publish_message`.

    Raises ``InvalidArguments`` for a message that has its row already. That leaves the caller's transaction usable,
    except where the one that was published was a copy of it.
    """
    row = _row(message)
    alias = router.db_for_write(MessageLog)
    # Asked only of a message that came here before: its transaction may have been rolled back, and it is welcome again.
    if message.was_published() and MessageLog.objects.using(alias).filter(uuid=message.uuid).exists():
        raise _published_already(message)
    try:
        insert([row], alias)
    except IntegrityError as error:
        raise _published_already(message) from error
    message.note_published()
    ring_on_commit(_due([row], [message]))
    return row


def _published_already(message: Message) -> InvalidArguments:
    return InvalidArguments(
        f"The message {message.uuid} of {message.task} was published already, and one message is one task. Create "
        "another one to have the task run once more, or requeue the row of this one if it failed."
    )


def publish_many(messages: Iterable[Message]) -> list[MessageLog]:
    """Publishes ``messages`` in one transaction, 500 rows a statement, and returns their rows in order.

    All or none: an error leaves nothing written.
    """
    messages = list(messages)
    rows = [_row(message) for message in messages]
    alias = router.db_for_write(MessageLog)
    with transaction.atomic(using=alias):
        insert(rows, alias)
        ring_on_commit(_due(rows, messages))
    return rows


def _row(message: Message) -> MessageLog:
    host = get_queue(message.queue).host
    settings = get_settings()
    grace = settings.confirm_timeout if settings.publisher == "thread" else 0.0
    return MessageLog.from_message(message, broker=host.address, row_is_message=host.is_database, ring_in=grace)


def messages_of(rows: Iterable[MessageLog], again_in: float | None) -> list[Message]:
    """The messages that ring ``rows``. A row that none can be made of, as only a hand can write one, says why, and
    waits for another look after ``again_in`` seconds. None: the embedded broker, where it needs none to be claimed."""
    messages = []
    for row in rows:
        try:
            messages.append(row.to_message())
        except (CarrotError, TypeError, ValueError) as error:
            if again_in is not None:
                logger.error("Task %s cannot be published: %s", row.pk, error)
                MessageLog.objects.undeliverable([row.uuid], f"no message can be made of it: {error}", again_in)
    return messages


def ring_on_commit(messages: Sequence[Message]) -> None:
    """Hands ``messages`` to the publisher once the current transaction of their rows is committed; now if there is
    none.

    ``robust``: an error here must not reach the caller, whose transaction is committed by then.
    """
    if messages and get_settings().publisher == "thread":
        alias = router.db_for_write(MessageLog)
        connection = transaction.get_connection(alias)
        if not connection.in_atomic_block and not connection.get_autocommit():
            return  # Django has no hooks for a commit by hand; the relay rings after the grace

        def ring() -> None:  # no partial: where a robust hook fails, Django asks it for its name
            publisher.ring(messages)

        transaction.on_commit(ring, using=alias, robust=True)


def _due(rows: Sequence[MessageLog], messages: Sequence[Message]) -> list[Message]:
    return [message for row, message in zip(rows, messages, strict=True) if row.status == Status.PUBLISHED]


def run_scheduled_task(schedule: ScheduledTask, priority: int = 0) -> MessageLog:
    """Publishes the task of ``schedule`` now, active or not, in one transaction; its slots stay where they are.

    ``priority`` 0 stands for that of the schedule. Raises :class:`~carrot.exceptions.PublishError`, with nothing
    written.
    """
    message = schedule.to_message(priority)
    with transaction.atomic(using=router.db_for_write(MessageLog)):
        row = publish(message)
        schedule.last_run, schedule.last_message, schedule.problem = row.publish_time, row, ""
        schedule.save(update_fields=["last_run", "last_message", "problem"])
    return row


def create_scheduled_task(
    task: Callable[..., Any] | str,
    interval: Mapping[str, int],
    task_name: str | None = None,
    queue: str | None = None,
    *,
    update: bool = False,
    **kwargs: Any,
) -> ScheduledTask:
    """Has ``task(**kwargs)`` published at every ``interval``, such as ``{"seconds": 5}``; returns its row.

    The units are seconds, minutes, hours and days. ``task_name`` None stands for the task's dotted path. The first run
    comes one interval from now. ``update=True`` changes the schedule of that name where there is one, so that the call
    may be repeated: what it does not name (active, priority, exchange, routing key) stays as it is, and the slots too,
    unless the interval is another. Positional arguments, and parameters called like those of this function, need a
    ``ScheduledTask`` made directly.

    Raises :class:`~carrot.exceptions.PublishError`, with nothing written.
    """
    path = registry.validate_task(task)
    signature = signature_of(function_at(path))
    hidden = [name for name in SCHEDULE_PARAMETERS if signature is not None and name in signature.parameters]
    if hidden:
        raise InvalidArguments(
            f"{path} has parameters that create_scheduled_task() keeps for itself: {', '.join(hidden)}. "
            "Use carrot.models.ScheduledTask(task_name=…, task=…, kwargs={…}, …).save(), or rename them."
        )
    unit, count = parse_interval(interval)
    name: Any = path if task_name is None else task_name
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or bad_text(name):
        raise InvalidArguments(f"task_name is {short(name)}; it must be plain text of 1 to {MAX_NAME} characters.")
    message = create_message(path, queue, task_kwargs=kwargs)
    values = {
        "task": path,
        "args": [],
        "kwargs": message.kwargs,
        "queue": message.queue,
        "interval_type": unit,
        "interval_count": count,
        "origin": Origin.CODE,
    }
    schedules = ScheduledTask.objects.using(router.db_for_write(ScheduledTask))
    if update:
        return schedules.update_or_create(task_name=name, defaults=values)[0]
    try:
        with transaction.atomic(using=schedules.db):  # so that an error leaves the caller's transaction usable
            return schedules.create(task_name=name, **values)
    except IntegrityError:
        if not schedules.filter(task_name=name).exists():
            raise
    raise InvalidArguments(
        f"There is a scheduled task named {name!r} already. Give this one another task_name, "
        "or pass update=True to change the one there is."
    )
