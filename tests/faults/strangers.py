"""Messages that other programs put into a queue."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pika

from tests.project import Project

#: What is no task: body, properties, and a part of the reason that is kept with it.
NO_TASKS: dict[str, tuple[bytes, dict[str, Any], str]] = {
    "no properties at all": (b'{"args": []}', {}, "message_id is None"),
    "an empty body": (b"", {"headers": {"type": "tests.app.tasks.noop"}}, "message_id is None"),
    "an id that is none": (b"{}", {"message_id": "../../etc/passwd"}, "no uuid"),
    "zero bytes in an id": (b"{}", {"message_id": "a\0b"}, "no uuid"),
    "a body that is no text": (
        b"\x00\xff\xfe" * 5000,
        {"message_id": str(uuid.uuid4())},
        "no task has this message id",
    ),
    "a task nobody knows": (
        b'{"args": [], "kwargs": {}}',
        {"message_id": str(uuid.uuid4()), "headers": {"type": "os.system"}, "content_type": "application/json"},
        "no task has this message id",
    ),
    "a task that is known": (  # without a row nothing runs, unless the queue's consumer makes one
        b'{"args": [], "kwargs": {}}',
        {"message_id": str(uuid.uuid4()), "headers": {"type": "tests.app.tasks.kill_self"}},
        "no task has this message id",
    ),
    "headers of all types": (
        b"\xf0\x9f\x90\xb0",
        {
            "headers": {"type": {"a": [1, None, {"b": Decimal("1.5")}]}, "carrot": "not a table", "x-death": [1]},
            "priority": 255,
            "expiration": "3600000",
            "reply_to": "nowhere",
            "timestamp": 2**62,
        },
        "message_id is None",
    ),
    "a pickle": (b"\x80\x04\x95", {"message_id": "1", "content_type": "application/x-python-serialize"}, "no uuid"),
    "a long message": (b"x" * 3_000_000, {"type": "y" * 255, "message_id": "z" * 255}, "no uuid"),
}


@contextmanager
def channel_of(site: Project) -> Iterator[Any]:
    """A channel of another program."""
    with pika.BlockingConnection(pika.URLParameters(site.broker_url)) as connection:
        yield connection.channel()


def send(site: Project, body: bytes, queue: str = "default", **properties: Any) -> None:
    """Put a message of one's own making into a queue; it is there when this returns."""
    with channel_of(site) as channel:
        channel.confirm_delivery()
        channel.basic_publish("", queue, body, pika.BasicProperties(**properties), mandatory=True)


def strays(site: Project) -> list[dict[str, Any]]:
    """What is kept of messages that were no tasks."""
    return site.sql("SELECT reason, task, message_id, body, queue FROM carrot_straymessage ORDER BY id")
