"""Reading what came out of a queue: a task of ours, a marker of ours, somebody else's, or a stray."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from carrot import clock
from carrot.exceptions import MessageFormatError
from carrot.serializers import DefaultMessageSerializer

#: The property ``type`` of a marker (see ``carrot.reconciler``).
MARKER_TYPE = "django-carrot marker"

TASK, MARKER, FOREIGN, STRAY = "task", "marker", "foreign", "stray"
EXCERPT = 2000

_serializer = DefaultMessageSerializer()


class Read(NamedTuple):
    """What one delivery is. Nothing of its body is used for a task: the row has the arguments."""

    kind: str
    uuid: UUID | None
    task: str
    message_id: str
    reason: str
    excerpt: str
    before: datetime | None = None
    #: Not sent by carrot: another program, or carrot 1.x.
    stranger: bool = False


def read(properties: Any, body: bytes, site: str) -> Read:
    """Sorts a delivery by its properties. Never raises, whatever a stranger put there."""
    sender = _serializer.get_site(properties)
    if sender is not None and sender != site:
        return _stray(FOREIGN, properties, body, "sent by another installation")
    if properties.type == MARKER_TYPE and sender == site:
        before = _moment(body)
        if before is None:
            return _stray(STRAY, properties, body, "a marker without a time")
        return Read(MARKER, None, "", "", "", "", before)
    try:
        uuid = _serializer.get_uuid(properties)
    except MessageFormatError as error:
        return _stray(STRAY, properties, body, str(error))._replace(stranger=sender is None)
    if sender == site:
        return Read(TASK, uuid, "", str(uuid), "", "")
    return _stray(TASK, properties, body, "")._replace(uuid=uuid, stranger=True)


def _moment(body: bytes) -> datetime | None:
    """The time in a marker, aware or naive as the times of rows are; None where it cannot be compared with them."""
    now = clock.now()
    try:
        return now + (datetime.fromisoformat(body.decode("ascii")) - now)
    except (ValueError, TypeError, OverflowError):
        return None


def _stray(kind: str, properties: Any, body: bytes, reason: str) -> Read:
    try:
        task = _serializer.get_task(properties, body)
    except MessageFormatError:
        task = ""
    excerpt = body[:EXCERPT].decode("utf-8", "replace").replace("\0", "�")
    return Read(
        kind, None, task, str(properties.message_id or "").replace("\0", "�"), reason.replace("\0", "�"), excerpt
    )
