"""RabbitMQ as one process sees it: a publishing and a consuming connection, each made when first needed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeout
from datetime import datetime
from typing import TypeVar

import pika

from carrot import clock, database
from carrot.brokers.amqp.inbox import MARKER_TYPE
from carrot.brokers.amqp.publisher import AmqpPublisher
from carrot.brokers.amqp.settlement import RowSettlement
from carrot.brokers.amqp.subscription import AmqpSubscription, ConsumerThread
from carrot.brokers.amqp.topology import Steps, look, purge
from carrot.brokers.base import Adopt, Broker, Depth
from carrot.conf import QueueSettings
from carrot.exceptions import BrokerUnreachable
from carrot.message import Message
from carrot.models import Installation
from carrot.virtual_host import VirtualHost

T = TypeVar("T")

#: Seconds a connection's thread may be silent before it is taken for dead.
STALLED = 60.0


class AmqpBroker(Broker):
    """``amqp://`` and ``amqps://``."""

    rows_are_messages = False

    def __init__(self, host: VirtualHost) -> None:
        super().__init__(host)
        self._lock = threading.Lock()
        self._publisher: AmqpPublisher | None = None
        #: Runs, and connects when there is something to publish.
        self._spare: AmqpPublisher | None = None
        self._consumer: ConsumerThread | None = None

    def publisher(self) -> AmqpPublisher:
        """The publishing connection, begun at the first call."""
        with self._lock:
            if self._publisher is None or not self._publisher.is_alive():
                publisher, self._spare = self._spare or self._new_publisher(), None
                publisher.connect()
                self._publisher = publisher
            return self._publisher

    def _new_publisher(self) -> AmqpPublisher:
        # Kept only once it runs: healthy() looks at any moment, and takes what does not run for dead.
        publisher = AmqpPublisher(self.host, RowSettlement(self.host.address))
        publisher.start()
        return publisher

    def ring(self, messages: Sequence[Message]) -> None:
        self.publisher().send(messages)

    def can_ring(self) -> bool:
        publisher = self.publisher()
        return publisher.connected and not publisher.blocked

    def flush(self, timeout: float) -> bool:
        return self._publisher is None or self._publisher.wait_settled(timeout)

    def subscribe(self, queue: QueueSettings, wake: Callable[[], None], adopt: Adopt | None = None) -> AmqpSubscription:
        with self._lock:
            if self._consumer is None:
                # Once a task of this worker has taken all memory, it is too late to start a thread for what publishes:
                # where it has no memory to begin, that never returns (https://github.com/python/cpython/issues/140746).
                self._spare = self._spare or self._new_publisher()
                consumer = ConsumerThread(self.host)
                consumer.start()
                consumer.connect()
                self._consumer = consumer
            return self._consumer.subscribe(queue, wake, adopt)

    def depth(self, queue: QueueSettings, timeout: float) -> Depth | None:
        return self._ask(look(queue), timeout)

    def purge(self, queue: QueueSettings, timeout: float) -> int:
        return self._ask(purge(queue), timeout) or 0

    def _ask(self, steps: Steps[T], timeout: float) -> T | None:
        ends = clock.monotonic() + timeout
        publisher = self.publisher()
        if not publisher.wait_connected(timeout):
            raise BrokerUnreachable(f"{self.host}: {publisher.error}")
        if publisher.blocked:
            raise BrokerUnreachable(f"{self.host} {publisher.blocked}")
        try:
            return publisher.ask(steps).result(max(0.0, ends - clock.monotonic()))
        except (FutureTimeout, CancelledError) as error:
            raise BrokerUnreachable(f"{self.host} did not answer within {timeout:g} s") from error

    def send_marker(self, queue: QueueSettings, before: datetime) -> None:
        # Priority 0 puts it behind every waiting message; one that is lost is followed by the next.
        properties = pika.BasicProperties(
            type=MARKER_TYPE,
            headers={"carrot": {"site": str(Installation.objects.site())}},
            priority=0,
            delivery_mode=1,
        )
        self.publisher().send_loose(queue.name, before.isoformat().encode(), properties)

    def describe(self) -> str:
        threads = [thread for thread in (self._consumer, self._publisher) if thread is not None]
        if not threads:
            return "not connected yet"
        troubles = [trouble for thread in threads if (trouble := thread.error or thread.blocked)]
        return troubles[0] if troubles else threads[0].server

    def healthy(self, awake_since: float = 0.0) -> bool:
        now = clock.monotonic()
        # The publisher's thread writes into the database, which may have it wait.
        watched = [(self._publisher, database.PATIENCE), (self._consumer, STALLED)]
        return all(
            thread is None or (thread.is_alive() and now - max(thread.ticked_at, awake_since) < patience)
            for thread, patience in watched
        )

    def close(self, timeout: float) -> None:
        ends = clock.monotonic() + timeout
        with self._lock:
            threads = [thread for thread in (self._publisher, self._spare, self._consumer) if thread is not None]
            self._publisher = self._spare = self._consumer = None
        for thread in threads:
            thread.shut(max(0.0, ends - clock.monotonic()))
