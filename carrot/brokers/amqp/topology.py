"""How queues and exchanges come to be: look first, declare only what is missing, use what is there."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Generic, NamedTuple, TypeVar

from pika import exceptions as pika_errors

from carrot.brokers.amqp.connection import JoinedConnection, explain
from carrot.brokers.base import Depth
from carrot.conf import QueueSettings, get_settings
from carrot.exceptions import BrokerError, BrokerRefused, BrokerUnreachable, CarrotError

T = TypeVar("T")
NOT_FOUND = 404
DIFFERENT = 406
#: RabbitMQ 4.0 drops a message of a quorum queue that was delivered 20 times, unless its limit is -1. Before, there was
#: no limit unless one was set, and -1 was one: a message handed back once was dropped.
NO_LIMIT_SINCE = 4


class Step(NamedTuple):
    """One call of a channel that the broker answers."""

    method: str
    arguments: dict[str, Any]


Steps = Generator[Step, Any, T]


class ChannelRefused(BrokerRefused):
    """The broker closed the channel over a call."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code


def _nobody(_value: object, _error: CarrotError | None) -> None:
    """Takes the place of ``done`` once that was called."""


class Dialogue(Generic[T]):
    """Runs a generator of :class:`Step`s on a channel of its own, which is opened again where the broker closed it.

    A refused step is raised inside the generator as :class:`ChannelRefused`; a lost connection ends it. ``done`` is
    called once, with the generator's value or with the error.
    """

    def __init__(
        self, connection: JoinedConnection, steps: Steps[T], done: Callable[[T | None, CarrotError | None], None]
    ):
        self._connection = connection
        self._steps = steps
        self._done: Callable[[T | None, CarrotError | None], None] = done
        self._channel: Any = None
        self._advance(None)

    def _advance(self, answer: Any, error: BrokerError | None = None) -> None:
        try:
            step = self._steps.throw(error) if error else self._steps.send(answer)
        except StopIteration as stop:
            self._finish(stop.value, None)
        except CarrotError as failure:
            self._finish(None, failure)
        else:
            self._perform(step)

    def _perform(self, step: Step) -> None:
        if self._channel is None:
            if not self._connection.is_open:
                self._finish(None, BrokerUnreachable("the connection was lost"))
                return

            def opened(channel: Any) -> None:
                self._channel = channel
                channel.add_on_close_callback(self._on_close)
                self._perform(step)

            self._connection.channel(on_open_callback=opened)
        elif not self._channel.is_open:
            self._finish(None, BrokerUnreachable("the connection is being closed"))
        else:
            getattr(self._channel, step.method)(callback=self._advance, **step.arguments)

    def _on_close(self, channel: Any, reason: BaseException) -> None:
        self._channel = None
        if isinstance(reason, pika_errors.ChannelClosedByBroker):
            self._advance(None, ChannelRefused(reason.reply_code, reason.reply_text))
        elif not isinstance(reason, pika_errors.ChannelClosedByClient):
            self._finish(None, BrokerUnreachable(explain(reason)))

    def _finish(self, value: T | None, error: CarrotError | None) -> None:
        if self._channel is not None and self._channel.is_open:
            self._channel.close()
        done, self._done = self._done, _nobody
        done(value, error)


def look(queue: QueueSettings) -> Steps[Depth]:
    """What is ready in a queue, without changing anything."""
    answer = yield Step("queue_declare", {"queue": queue.name, "passive": True})
    return Depth(ready=answer.method.message_count, consumers=answer.method.consumer_count)


def purge(queue: QueueSettings) -> Steps[int]:
    """Removes what is ready in a queue; none where there is no queue."""
    try:
        answer = yield Step("queue_purge", {"queue": queue.name})
    except ChannelRefused as refused:
        if refused.code != NOT_FOUND:
            raise
        return 0
    return int(answer.method.message_count)


def compare(queue: QueueSettings, major_version: int) -> Steps[str]:
    """What an existing queue has otherwise than the settings say, in the server's words; "" where nothing is known."""
    try:
        yield _declaration(queue, major_version)
    except ChannelRefused as refused:
        return str(refused) if refused.code == DIFFERENT else ""
    return ""


def _declaration(queue: QueueSettings, major_version: int) -> Step:
    arguments = {"x-max-priority": get_settings().max_priority, **queue.queue_arguments}
    if arguments.get("x-queue-type") == "quorum":
        arguments.pop("x-max-priority", None)  # a quorum queue has no such argument
        if major_version >= NO_LIMIT_SINCE:
            arguments.setdefault("x-delivery-limit", -1)
    return Step("queue_declare", {"queue": queue.name, "durable": queue.durable, "arguments": arguments})


def declare(queue: QueueSettings, major_version: int) -> Steps[None]:
    """Makes sure the queue exists, and the exchange of its own name that is bound to it, as in 1.x.

    What exists is used as it is: arguments of a queue cannot be changed, and declaring it with others is an error.
    ``major_version`` is that of the server.
    """
    try:
        yield Step("queue_declare", {"queue": queue.name, "passive": True})
    except ChannelRefused as refused:
        if refused.code != NOT_FOUND:
            raise
        yield _declaration(queue, major_version)
    try:
        yield Step("exchange_declare", {"exchange": queue.name, "passive": True})
    except ChannelRefused as refused:
        if refused.code != NOT_FOUND:
            raise
        yield Step(
            "exchange_declare",
            {
                "exchange": queue.name,
                "exchange_type": "direct",
                "durable": queue.durable,
                "arguments": dict(queue.exchange_arguments),
            },
        )
    yield Step("queue_bind", {"queue": queue.name, "exchange": queue.name, "routing_key": queue.name})


def find_exchange(name: str) -> Steps[None]:
    """Raises :class:`ChannelRefused` (404) where there is no such exchange."""
    if name:
        yield Step("exchange_declare", {"exchange": name, "passive": True})
