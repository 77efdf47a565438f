"""Receives messages: one connection a process, one channel a queue, acknowledged right after the claim commits.

Receives deliveries; hands on claims. The claimer thread calls :meth:`AmqpSubscription.claim` and ``demand``; everything
that touches the channel happens in the connection's thread.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from carrot import clock
from carrot.brokers.amqp.connection import ConnectionThread, JoinedConnection, explain
from carrot.brokers.amqp.intake import Delivery, Intake
from carrot.brokers.amqp.topology import Dialogue, compare, declare
from carrot.brokers.base import Adopt, Subscription
from carrot.conf import QueueSettings
from carrot.exceptions import CarrotError
from carrot.models.claim import Claim
from carrot.virtual_host import VirtualHost

logger = logging.getLogger(__name__)

#: Messages the broker sends ahead while tasks are tiny; 200 drains three times faster than 10.
LARGE_PREFETCH = 250
#: Seconds to wait after the broker or the database refused something.
RETRY = 1.0


class AmqpSubscription(Subscription):
    """One queue. ``_wanted`` is the prefetch the claimer asks for (0: hold nothing); the thread converges to it."""

    def __init__(
        self, thread: ConsumerThread, queue: QueueSettings, wake: Callable[[], None], adopt: Adopt | None
    ) -> None:
        self.queue = queue
        self._intake = Intake(queue, adopt)
        self._thread = thread
        self._wake = wake
        self._deliveries: deque[Delivery] = deque()
        self._wanted = queue.concurrency
        self._not_before = 0.0
        self._problem = self._difference = ""
        self._foreign = False
        # The connection's thread alone touches these.
        self._channel: Any = None
        self._epoch = 0
        self._tag = ""
        self._prefetch = 0
        self._busy = False
        self._compared = False

    # -- the claimer's thread -------------------------------------------------------------------------------------

    def has_work(self) -> bool:
        return bool(self._deliveries) and clock.monotonic() >= self._not_before

    def next_look(self) -> float:
        return max(0.0, self._not_before - clock.monotonic()) if self._deliveries else 1.0

    def problem(self) -> str:
        return self._problem or self._thread.error or self._difference

    def claim(self, limit: int, worker_id: int) -> list[Claim]:
        batch: list[Delivery] = []
        with suppress(IndexError):  # the other thread may be taking them out at this moment
            while len(batch) < limit:
                batch.append(self._deliveries.popleft())
        if not batch:
            return []
        epoch, last = batch[-1].epoch, batch[-1].tag
        # Deliveries of a closed channel come again from the broker; only the newest channel's may be acknowledged.
        batch = [delivery for delivery in batch if delivery.epoch == epoch]
        try:
            taken = self._intake.take(batch, worker_id)
        except Exception:  # whatever it was, the messages must not stay in our hands
            self._not_before = clock.monotonic() + RETRY
            self._hand_back(epoch, last)
            raise
        if taken.back:
            self._thread.call(partial(self._sort_out, epoch, [delivery.tag for delivery in batch], taken.back))
        else:
            self._thread.call(partial(self._acknowledge, epoch, last))
        if taken.back and not taken.claims:
            self._not_before = clock.monotonic() + RETRY  # they come again at once
        if taken.foreign:
            self._refuse_foreign()
        return taken.claims

    def demand(self, room: int) -> None:
        if self._foreign:
            room = 0
        if room <= 0:
            wanted = 0
            if dropped := self._drop_deliveries():
                # Lower tags are acknowledged or handed back already, in order: what is left is up to the last one here.
                self._hand_back(dropped[-1].epoch, dropped[-1].tag)
        elif room >= 2 * self.queue.concurrency + 20:
            wanted = LARGE_PREFETCH
        else:
            # The broad band between the two keeps a queue of mixed tasks from changing its mind with each of them.
            wanted = self._wanted or self.queue.concurrency
            # What is held must be gone within seconds: others may be idle, and the reconciler takes it for lost.
            if room <= self.queue.concurrency + 5:
                wanted = self.queue.concurrency
        if wanted != self._wanted:
            self._wanted = wanted
            self._thread.call(self._converge)

    def _drop_deliveries(self) -> list[Delivery]:
        """Takes out what is at hand, one by one: the other thread may be appending or taking at this moment."""
        dropped = []
        with suppress(IndexError):
            while True:
                dropped.append(self._deliveries.popleft())
        return dropped

    def _hand_back(self, epoch: int, last: int) -> None:
        self._thread.call(partial(self._nack, epoch, last))

    def _refuse_foreign(self) -> None:
        self._foreign = True
        self._problem = (
            f"queue {self.queue.name} on {self.queue.host} holds messages of another installation; it is no longer "
            "consumed. Give each project its own virtual host, or its own queue names, and start the service again."
        )
        logger.error("%s", self._problem)
        self.demand(0)

    def close(self, timeout: float) -> None:
        self.demand(0)

    # -- the connection's thread ----------------------------------------------------------------------------------

    def start(self, connection: JoinedConnection) -> None:
        """Declares the queue and begins to consume; tried again until it works."""
        Dialogue(connection, declare(self.queue, connection.major_version), partial(self._declared, connection))

    def _declared(self, connection: JoinedConnection, _value: None, error: CarrotError | None) -> None:
        if not connection.is_open:
            return
        if error:
            self._trouble(f"queue {self.queue.name} cannot be used: {error}")
            self._thread.later(RETRY * 2, partial(self._again, connection))
        else:
            connection.channel(on_open_callback=self._on_channel)
            if not self._compared or self._difference:
                Dialogue(connection, compare(self.queue, connection.major_version), self._on_compared)

    def _on_compared(self, difference: str | None, error: CarrotError | None) -> None:
        self._compared, self._difference = error is None, ""
        if difference:
            text = (
                f"is not as the settings say ({difference}). It is used as it is; to change it, stop all services, "
                "delete the queue in RabbitMQ, and start them again: the tasks are in the database."
            )
            logger.warning("Queue %s on %s %s", self.queue.name, self.queue.host, text)
            self._difference = f"it {text}"

    def _again(self, connection: JoinedConnection) -> None:
        if connection.is_open:
            self.start(connection)

    def _on_channel(self, channel: Any) -> None:
        self._epoch += 1
        self._channel, self._tag, self._busy = channel, "", False
        channel.add_on_close_callback(self._on_channel_closed)
        channel.add_on_cancel_callback(self._on_cancelled)
        self._converge()

    def _converge(self) -> None:
        """One step from what the channel does to what is wanted; each step's answer takes the next."""
        channel = self._channel
        if channel is None or not channel.is_open or self._busy:
            return
        if self._tag and self._prefetch != self._wanted:
            self._busy = True
            channel.basic_cancel(self._tag, callback=self._on_cancel_ok)
        elif not self._tag and self._wanted:
            self._busy, self._prefetch = True, self._wanted
            channel.basic_qos(prefetch_count=self._prefetch, callback=self._on_qos_ok)

    def _on_qos_ok(self, _frame: Any) -> None:
        if self._channel is not None and self._channel.is_open:
            self._tag = self._channel.basic_consume(
                self.queue.name, partial(self._on_delivery, self._epoch), callback=self._on_consume_ok
            )

    def _on_consume_ok(self, _frame: Any) -> None:
        self._trouble("")
        self._busy = False
        self._converge()

    def _on_cancel_ok(self, _frame: Any) -> None:
        self._tag, self._busy = "", False
        if not self._wanted:
            # They slipped in between the claimer's look and the cancel. One by one: the claimer may hold lower tags.
            tags = [delivery.tag for delivery in self._drop_deliveries() if delivery.epoch == self._epoch]
            self._sort_out(self._epoch, tags, tags)
        self._converge()

    def _on_delivery(self, epoch: int, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self._deliveries.append(Delivery(epoch, method.delivery_tag, properties, body))
        self._wake()

    def _on_cancelled(self, _frame: Any) -> None:
        """The broker took the consumer away: the queue was deleted, or its leader went."""
        self._trouble(f"queue {self.queue.name} went away; declaring it again")
        if self._channel is not None and self._channel.is_open:
            self._channel.close()

    def _on_channel_closed(self, channel: Any, reason: BaseException) -> None:
        self._channel, self._tag, self._busy = None, "", False
        self._epoch += 1
        connection = self._thread.connection
        if connection is not None and connection.is_open:
            if not self._problem:
                self._trouble(f"the channel of queue {self.queue.name} was closed: {explain(reason)}")
            self._thread.later(RETRY, partial(self._again, connection))

    def lost(self) -> None:
        self._channel, self._tag, self._busy = None, "", False
        self._epoch += 1

    def _acknowledge(self, epoch: int, last: int) -> None:
        """Everything up to ``last``. A tag means something on its own channel only: after a reconnect the broker
        delivers again anyway."""
        if epoch == self._epoch and self._channel is not None and self._channel.is_open:
            self._channel.basic_ack(last, multiple=True)

    def _sort_out(self, epoch: int, tags: Sequence[int], back: Collection[int]) -> None:
        if epoch == self._epoch and self._channel is not None and self._channel.is_open:
            for tag in tags:
                if tag in back:
                    self._channel.basic_nack(tag, requeue=True)
                else:
                    self._channel.basic_ack(tag)

    def _nack(self, epoch: int, last: int) -> None:
        if epoch == self._epoch and self._channel is not None and self._channel.is_open:
            self._channel.basic_nack(last, multiple=True, requeue=True)

    def _trouble(self, text: str) -> None:
        if text and text != self._problem:
            logger.warning("%s (%s)", text, self.queue.host)
        if not self._foreign:
            self._problem = text


class ConsumerThread(ConnectionThread):
    """The consuming connection of one worker process to one virtual host. Apart from the publishing one, as an alarm in
    the broker stops reading from connections that publish, acknowledgements included."""

    def __init__(self, host: VirtualHost) -> None:
        super().__init__(host, "consumer")
        self._subscriptions: list[AmqpSubscription] = []

    @property
    def connection(self) -> JoinedConnection | None:
        return self._connection

    def subscribe(self, queue: QueueSettings, wake: Callable[[], None], adopt: Adopt | None) -> AmqpSubscription:
        subscription = AmqpSubscription(self, queue, wake, adopt)
        self.call(partial(self._add, subscription))
        return subscription

    def _add(self, subscription: AmqpSubscription) -> None:
        self._subscriptions.append(subscription)
        if self._connection is not None and self._connection.is_open:
            subscription.start(self._connection)

    def opened(self, connection: JoinedConnection) -> None:
        for subscription in self._subscriptions:
            subscription.start(connection)

    def lost(self) -> None:
        for subscription in self._subscriptions:
            subscription.lost()
