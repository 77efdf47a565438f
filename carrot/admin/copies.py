"""Running completed tasks again, any number of them: each as a new task, once for each press of a button."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db import IntegrityError
from django.db.models import ExpressionWrapper, F, TextField
from django.utils.translation import gettext as _

from carrot.arguments import decode
from carrot.conf import get_settings
from carrot.message import Message
from carrot.models import MessageLog, Status
from carrot.operations import Result
from carrot.services import publish_many

#: Rows of one transaction; each may have a megabyte of arguments.
SLICE = 100


def run_again(ids: Sequence[int], token: UUID) -> Result:
    """Publishes a copy of each completed task among ``ids``; what is another status is skipped.

    The copies' ids follow from ``token``, so that the same press arriving twice, even at once, makes one copy of each.
    """
    result = Result()
    for start in range(0, len(ids), SLICE):
        keys = ids[start : start + SLICE]
        try:
            _copy(keys, token, result)
        except IntegrityError:
            # The same press arrived twice, and the other request was quicker: its copies can be seen now.
            _copy(keys, token, result)
    return result


def _copy(keys: Sequence[int], token: UUID, result: Result) -> None:
    rows = _rows(keys)
    ids = [copy_id(row.uuid, token) for row in rows.values()]
    there = set(MessageLog.objects.filter(uuid__in=ids).values_list("uuid", flat=True))
    copies, skipped = [], []
    for pk in keys:
        row = rows.get(pk)
        if row is None:
            skipped.append(_("not there any more"))
        elif row.status != Status.COMPLETED:
            skipped.append(_("status: %(status)s") % {"status": row.get_status_display()})
        elif row.queue not in get_settings().queues:
            skipped.append(_("queue %(queue)s is not in the settings any more") % {"queue": row.queue})
        elif copy_id(row.uuid, token) in there:
            skipped.append(_("run again already"))
        else:
            try:
                copies.append(_copy_of(row, token))
            except (ValueError, TypeError, RecursionError):
                skipped.append(_("its arguments cannot be read"))  # the row was changed by hand
    publish_many(copies)
    result.done += len(copies)
    result.skipped.update(skipped)


def _rows(keys: Sequence[int]) -> dict[int, Any]:
    """The tasks, their arguments as text, since one that is no JSON must not stand in the way of the others."""
    rows = MessageLog.objects.filter(pk__in=keys).defer("args", "kwargs", "output", "log", "traceback", "exception")
    texts = {f"{name}_text": ExpressionWrapper(F(name), TextField()) for name in ("args", "kwargs")}
    return {row.pk: row for row in rows.annotate(**texts)}


def _copy_of(row: Any, token: UUID) -> Message:
    """Raises ValueError or TypeError (InvalidArguments is one) where the row holds what no message can."""
    return Message(
        uuid=copy_id(row.uuid, token),
        task=row.task,
        args=tuple(decode(row.args_text)),
        kwargs=dict(decode(row.kwargs_text)),
        queue=row.queue,
        priority=row.priority,
        exchange=row.exchange,
        routing_key=row.routing_key,
        origin=row.origin,
    )


def copy_id(original: UUID, token: UUID) -> UUID:
    """The id of the copy that this press makes of a task: the time of ``token`` (RFC 9562, version 7), then a hash."""
    digest = int.from_bytes(hashlib.sha256(token.bytes + original.bytes).digest()[:16], "big")
    random = (digest & ~(0xF << 76) & ~(0b11 << 62) & ((1 << 80) - 1)) | 7 << 76 | 0b10 << 62
    return UUID(int=(token.int >> 80 << 80) | random)
