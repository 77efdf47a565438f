"""RabbitMQ as another program sees it: plain pika."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingChannel

from tests.servers.process import wait_until


class Probe:
    """A blocking channel to one virtual host."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self.channel: BlockingChannel = self._connection.channel()

    def put(self, body: bytes = b"", queue: str = "default", **properties: Any) -> None:
        self.channel.basic_publish("", queue, body, pika.BasicProperties(**properties))

    def get(self, queue: str = "default", timeout: float = 10.0) -> tuple[Any, bytes]:
        """The properties and the body of the next message, acknowledged; fails when none comes."""
        found: list[Any] = []

        def came() -> bool:
            found[:] = self.channel.basic_get(queue, auto_ack=True)
            return found[0] is not None

        if not wait_until(came, timeout):
            raise AssertionError(f"No message came into {queue} within {timeout:g} s.")
        return found[1], found[2]

    def ready(self, queue: str = "default") -> int:
        """How many messages wait in the queue."""
        return int(self.channel.queue_declare(queue, passive=True).method.message_count)

    def exists(self, queue: str) -> bool:
        """Whether there is such a queue; asked on a channel of its own, which RabbitMQ closes if there is none."""
        channel = self._connection.channel()
        with contextlib.suppress(pika.exceptions.ChannelClosedByBroker):
            channel.queue_declare(queue, passive=True)
            channel.close()
            return True
        return False

    def close(self) -> None:
        if self._connection.is_open:
            self._connection.close()


@contextlib.contextmanager
def opened(url: str) -> Iterator[Probe]:
    probe = Probe(url)
    try:
        yield probe
    finally:
        probe.close()
