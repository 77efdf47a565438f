"""The verbs that users' code and the monitor share.

Receives calls; hands on rows. Every verb is safe inside the caller's transaction: the row is part of it, and its
message follows only on commit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from django.db import router, transaction

from carrot import publisher, registry
from carrot.arguments import decode, encode_arguments
from carrot.conf import get_queue, get_settings
from carrot.exceptions import InvalidArguments
from carrot.message import Message
from carrot.models import MessageLog, Status
from carrot.models.insertion import insert
from carrot.models.message_log import RING_GRACE

#: Rows written with one statement.
BATCH = 500


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
    settings = get_queue(queue or options.queue)
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
    """Writes the row of ``message``; rings it on commit. See :func:`publish_message`."""
    row = _row(message)
    insert(row, router.db_for_write(MessageLog))
    _ring_on_commit([row], [message])
    return row


def publish_many(messages: Iterable[Message]) -> list[MessageLog]:
    """Publishes ``messages`` in one transaction, 500 rows a statement, and returns their rows in order.

    All or none: an error leaves nothing written.
    """
    messages = list(messages)
    rows = [_row(message) for message in messages]
    alias = router.db_for_write(MessageLog)
    with transaction.atomic(using=alias):
        MessageLog.objects.using(alias).bulk_create(rows, batch_size=BATCH)
        _ring_on_commit(rows, messages)
    return rows


def _row(message: Message) -> MessageLog:
    host = get_queue(message.queue).host
    grace = RING_GRACE if get_settings().publisher == "thread" else 0.0
    return MessageLog.from_message(message, broker=host.address, row_is_message=host.is_database, ring_in=grace)


def _ring_on_commit(rows: Sequence[MessageLog], messages: Sequence[Message]) -> None:
    """``robust``: an error here must not reach the caller, whose transaction is committed by then."""
    now = [message for row, message in zip(rows, messages, strict=True) if row.status == Status.PUBLISHED]
    if now and get_settings().publisher == "thread":
        alias = router.db_for_write(MessageLog)
        transaction.on_commit(partial(publisher.ring, now), using=alias, robust=True)
