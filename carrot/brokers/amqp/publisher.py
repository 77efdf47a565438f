"""Sends messages: mandatory, persistent, confirms streamed, many to one write.

Receives messages of committed rows from any thread; hands on what the broker said of each. Losing everything in here is
harmless: a row's bell stays armed until its message is confirmed.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict, deque
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import pika
from pika import exceptions as pika_errors

from carrot import clock
from carrot.brokers.amqp.connection import ConnectionThread, JoinedConnection
from carrot.brokers.amqp.settlement import RowSettlement
from carrot.brokers.amqp.topology import Dialogue, Steps, declare, find_exchange
from carrot.conf import get_queue, get_settings
from carrot.exceptions import BrokerUnreachable, CarrotError
from carrot.message import Message
from carrot.serializers import DefaultMessageSerializer
from carrot.virtual_host import VirtualHost

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: Messages sent and not yet confirmed. Enough to keep the broker busy, few enough to forget on a lost connection.
WINDOW = 1000
#: Messages handed over and not yet sent. More are not taken: the relay rings them.
BUFFER = 20_000
#: Seconds that messages are gathered for after a write. The first after a pause goes out at once; in a burst each
#: write, which costs the publishing thread a turn of the interpreter, carries many.
GATHER = 0.005
#: Part of the confirm timeout after which a message that could not be sent is dropped here, as the relay rings it soon.
STALE = 0.8


class AmqpPublisher(ConnectionThread):
    """The publishing connection of one process to one virtual host."""

    def __init__(self, host: VirtualHost, settlement: RowSettlement) -> None:
        super().__init__(host, "publisher")
        self._settlement = settlement
        self._buffer: deque[tuple[Message, float]] = deque()
        self._drain_posted = False
        self._drained_at = 0.0
        self._channel: Any = None
        self._next_tag = 1
        self._unconfirmed: dict[int, Message] = {}
        #: Message id -> why it came back, once for each return: a task may be on its way twice.
        self._returned: defaultdict[str, list[str]] = defaultdict(list)
        #: Messages that came back once and were sent again.
        self._second: set[UUID] = set()
        #: (queue, exchange) -> None while it is being looked up, "" when fit for use, else why it is not.
        self._targets: dict[tuple[str, str], str | None] = {}
        self._parked: dict[tuple[str, str], list[Message]] = {}
        self._settled = threading.Condition()
        self._open_count = 0

    # -- any thread -----------------------------------------------------------------------------------------------

    def send(self, messages: Sequence[Message]) -> None:
        """Takes messages for sending, as far as there is room. Never blocks."""
        room = BUFFER - len(self._buffer)
        now = clock.monotonic()
        taken = messages[:room] if room < len(messages) else messages
        with self._settled:
            self._open_count += len(taken)
        self._buffer.extend((message, now) for message in taken)
        if not self._drain_posted:
            self._drain_posted = True
            self.call(self._drain_soon)

    def wait_settled(self, timeout: float) -> bool:
        """Waits until nothing handed over is open any more; whether that came to pass within ``timeout`` seconds."""
        with self._settled:
            return self._settled.wait_for(lambda: self._open_count == 0, timeout)

    def ask(self, steps: Steps[T]) -> Future[T | None]:
        """Runs a dialogue with the broker on this connection."""
        answer: Future[T | None] = Future()

        def begin() -> None:
            if self._connection is None or not self._connection.is_open:
                answer.set_exception(BrokerUnreachable(self.error))
            else:
                Dialogue(self._connection, steps, partial(_answer, answer))

        self.call(begin)
        return answer

    def send_loose(self, queue: str, body: bytes, properties: pika.BasicProperties) -> None:
        """Sends a message of no row straight to a queue, on a channel of its own; lost where there is no connection."""

        def send(channel: Any) -> None:
            channel.basic_publish("", queue, body, properties)
            channel.close()

        def begin() -> None:
            if self._connection is not None and self._connection.is_open:
                self._connection.channel(on_open_callback=send)

        self.call(begin)

    # -- this thread ----------------------------------------------------------------------------------------------

    def opened(self, connection: JoinedConnection) -> None:
        if self._settlement.learn_site():
            connection.channel(on_open_callback=self._on_channel)
        else:  # without the database there is nothing to send either
            self.later(1.0, partial(self._open_again, connection))

    def _open_again(self, connection: JoinedConnection) -> None:
        # On no other connection: it has a channel of its own, and confirms on two of them are not told apart.
        if connection.is_open:
            self.opened(connection)

    def lost(self) -> None:
        self._channel = None
        self._targets.clear()
        self._forget(len(self._unconfirmed) + sum(map(len, self._parked.values())))
        self._unconfirmed.clear()
        self._parked.clear()
        self._returned.clear()
        self._second.clear()

    def unblocked(self) -> None:
        self._drain()

    def ticked(self) -> None:
        self._settlement.tick()
        too_old = clock.monotonic() - STALE * get_settings().confirm_timeout
        while self._buffer and self._buffer[0][1] < too_old and (self._channel is None or self.blocked):
            self._buffer.popleft()
            self._forget(1)
        for target in [target for target, why in self._targets.items() if why and target in self._parked]:
            self._find(target)

    def _on_channel(self, channel: Any) -> None:
        self._next_tag = 1
        channel.add_on_close_callback(self._on_channel_closed)
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(self._on_confirm, callback=partial(self._on_confirming, channel))

    def _on_confirming(self, channel: Any, _frame: Any) -> None:
        self._channel = channel
        self._drain()

    def _on_channel_closed(self, channel: Any, reason: BaseException) -> None:
        """An exchange or a right may have gone: the rows that it is about say so, other unconfirmed ones ring again by
        themselves. Everything is looked up anew."""
        if isinstance(reason, pika_errors.ChannelClosedByBroker) and not self._refused(reason.reply_text):
            logger.warning("%s closed the publishing channel: %s", self.host, reason.reply_text)
        self.lost()
        if channel.connection.is_open and not self._stopping:
            self.later(1.0, partial(self._open_again, channel.connection))

    def _refused(self, why: str) -> bool:
        """Notes why the broker takes no message for the exchange that it names; False where it names none of ours.

        It tells no more of the message than that. Those for other exchanges were lost with the channel, and are rung
        at another time, so that they do not share this fate again.
        """
        tags = [
            tag
            for tag, message in self._unconfirmed.items()
            if f"exchange '{message.exchange or 'amq.default'}'" in why
        ]
        self._undeliverable([self._unconfirmed.pop(tag) for tag in tags], why)
        return bool(tags)

    def _drain_soon(self) -> None:
        early = self._drained_at + GATHER - clock.monotonic()
        if early > 0:
            self.later(early, self._drain)
        else:
            self._drain()

    def _drain(self) -> None:
        # Lowered before the buffer is read: a message appended after that posts its own call.
        self._drain_posted = False
        if self._channel is None or self._connection is None or not self._connection.is_open or self.blocked:
            return
        if self._buffer and len(self._unconfirmed) < WINDOW:
            self._connection.joined(self._send_window)
            self._drained_at = clock.monotonic()

    def _send_window(self) -> None:
        while self._buffer and len(self._unconfirmed) < WINDOW:
            self._send_one(self._buffer.popleft()[0])

    def _send_one(self, message: Message) -> None:
        target = (message.queue, message.exchange)
        if self._targets.get(target) == "":
            self._publish(message)
            return
        self._parked.setdefault(target, []).append(message)
        if target not in self._targets:
            self._find(target)

    def _find(self, target: tuple[str, str]) -> None:
        """Looks a target up, once for each connection. While it is not fit for use it is looked up again once a second,
        for all messages that have come by then: one line in the log and one change of rows, not one for each."""
        self._targets[target] = None
        assert self._connection is not None
        Dialogue(self._connection, _prepare(*target, self._connection.major_version), partial(self._found, target))

    def _found(self, target: tuple[str, str], _value: None, error: CarrotError | None) -> None:
        self._targets[target] = str(error) if error else ""
        waiting = self._parked.pop(target, [])
        if isinstance(error, BrokerUnreachable):
            self._forget(len(waiting))  # the rows are armed
        elif error:
            self._undeliverable(waiting, str(error))
        elif self._channel is not None and self._connection is not None:
            self._connection.joined(partial(self._publish_all, waiting))
            self._drain()
        else:
            self._forget(len(waiting))

    def _publish_all(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self._publish(message)

    def _publish(self, message: Message) -> None:
        kwargs = DefaultMessageSerializer(message, site=self._settlement.site).publish_kwargs()
        self._channel.basic_publish(**{**kwargs, "properties": pika.BasicProperties(**kwargs["properties"])})
        self._unconfirmed[self._next_tag] = message
        self._next_tag += 1

    def _on_return(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        """Comes before the confirm of the same message (RabbitMQ "Publishers" guide)."""
        where = f"exchange “{method.exchange}”" if method.exchange else "the default exchange"
        why = f"no queue takes routing key “{method.routing_key}” from {where}"
        self._returned[str(properties.message_id)].append(why)

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        last = method.delivery_tag
        if method.multiple:
            # Tags are dense and the dictionary is in their order: the covered ones are at its front.
            tags = []
            for tag in self._unconfirmed:
                if tag > last:
                    break
                tags.append(tag)
        else:
            tags = [last] if last in self._unconfirmed else []
        messages = [self._unconfirmed.pop(tag) for tag in tags]
        if method.NAME == "Basic.Nack":
            self._not_taken(messages)
        else:
            self._confirmed(messages)
        if self._buffer:
            self._drain()

    def _confirmed(self, messages: list[Message]) -> None:
        if self._returned:
            reasons = [(message, self._why_returned(message)) for message in messages]
            messages = [message for message, why in reasons if not why]
            for message, why in reasons:
                if why:
                    self._came_back(message, why)
        self._second.difference_update(message.uuid for message in messages)
        self._settlement.confirmed(messages)
        self._forget(len(messages))

    def _not_taken(self, messages: list[Message]) -> None:
        """The broker could not keep them. The rows are armed."""
        for message in messages:
            self._why_returned(message)
        self._second.difference_update(message.uuid for message in messages)
        self._forget(len(messages))

    def _why_returned(self, message: Message) -> str:
        """Takes out one return of the message; empty where there is none."""
        reasons = self._returned.get(str(message.uuid))
        if not reasons:
            return ""
        why = reasons.pop()
        if not reasons:
            del self._returned[str(message.uuid)]
        return why

    def _came_back(self, message: Message, why: str) -> None:
        """Sends it once more, as its queue may have been deleted since it was looked up: it is made anew then."""
        target = (message.queue, message.exchange)
        if message.uuid in self._second:
            self._undeliverable([message], why)
            return
        self._second.add(message.uuid)
        if self._targets.get(target) == "":
            del self._targets[target]
        self._send_one(message)

    def _undeliverable(self, messages: list[Message], why: str) -> None:
        self._second.difference_update(message.uuid for message in messages)
        if messages:
            logger.warning(
                "%s cannot deliver %d message(s) of queue %s: %s", self.host, len(messages), messages[0].queue, why
            )
            self._settlement.undeliverable(messages, why)
            self._forget(len(messages))

    def _forget(self, count: int) -> None:
        """``count`` messages are open no more, whatever became of them."""
        with self._settled:
            self._open_count -= count
            if self._open_count <= 0:
                self._settled.notify_all()


def _prepare(queue_name: str, exchange: str, major_version: int) -> Steps[None]:
    queue = get_queue(queue_name)
    yield from declare(queue, major_version)
    if exchange != queue.name:
        yield from find_exchange(exchange)


def _answer(future: Future[T | None], value: T | None, error: CarrotError | None) -> None:
    if error:
        future.set_exception(error)
    else:
        future.set_result(value)
