"""What the publisher makes of the broker's answers, in orders that a real server seldom gives them in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker

from carrot.brokers.amqp.publisher import AmqpPublisher
from carrot.message import Message
from carrot.virtual_host import VirtualHost
from tests.rows import ADD


class Loop:
    """Takes the place of an I/O loop: keeps what is to be done later."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []

    def call_later(self, _seconds: float, function: Callable[[], None]) -> None:
        self.due.append(function)

    def pass_time(self) -> None:
        due, self.due = self.due, []
        for function in due:
            function()


class Channel:
    """Remembers how many messages it was given."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.published = 0

    def confirm_delivery(self, _on_confirm: Any, callback: Callable[[Any], None]) -> None:
        callback(None)

    def basic_publish(self, **_message: Any) -> None:
        self.published += 1

    def add_on_close_callback(self, _callback: Any) -> None:
        """The test calls it."""

    add_on_return_callback = add_on_close_callback


class Connection:
    """Answers nothing by itself: ``asked`` are the channels that it was asked for."""

    server, major_version, is_open = "RabbitMQ", 4, True

    def __init__(self) -> None:
        self.asked: list[Callable[[Channel], None]] = []

    def channel(self, on_open_callback: Callable[[Channel], None]) -> None:
        self.asked.append(on_open_callback)

    def answer(self) -> Channel:
        """Opens the channel that was asked for first."""
        channel = Channel(self)
        self.asked.pop(0)(channel)
        return channel

    def joined(self, send: Callable[[], None]) -> None:
        send()

    def add_on_connection_blocked_callback(self, _callback: Any) -> None:
        """Nothing is ever blocked."""

    add_on_connection_unblocked_callback = add_on_connection_blocked_callback


class Settlement:
    """Remembers what it is told."""

    site = "site"

    def __init__(self) -> None:
        self.taken: list[Message] = []
        self.refused: list[Message] = []

    def learn_site(self) -> bool:
        return True

    def confirmed(self, messages: Sequence[Message]) -> None:
        self.taken += messages

    def undeliverable(self, messages: Sequence[Message], _why: str) -> None:
        self.refused += messages


class Bench:
    """A publisher whose thread is this one, and what is around it."""

    def __init__(self) -> None:
        self.settlement, self.loop = Settlement(), Loop()
        self.thread = AmqpPublisher(VirtualHost("amqp://127.0.0.1:1/"), self.settlement)  # type: ignore[arg-type]
        self.thread._loop.close()
        self.thread._loop = self.loop

    def connect(self) -> Connection:
        connection = Connection()
        self.thread._on_open(connection)
        return connection

    def lose(self, connection: Connection) -> None:
        connection.is_open = False
        self.thread._on_close(connection, ConnectionClosedByBroker(320, "CONNECTION_FORCED"))

    def send(self, *messages: Message) -> None:
        """As if their queue had been looked up."""
        self.thread._targets.update({(message.queue, message.exchange): "" for message in messages})
        self.thread._buffer.extend((message, 0.0) for message in messages)
        self.thread._open_count += len(messages)
        self.thread._drain()

    def bring_back(self, message: Message) -> None:
        method = SimpleNamespace(exchange="", routing_key="nothing")
        self.thread._on_return(None, method, SimpleNamespace(message_id=str(message.uuid)), b"")

    def answer(self, name: str, tag: int, *, multiple: bool = False) -> None:
        method = SimpleNamespace(NAME=name, delivery_tag=tag, multiple=multiple)
        self.thread._on_confirm(SimpleNamespace(method=method))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def message() -> Message:
    return Message(task=ADD, queue="default", routing_key="nothing")


def test_a_channel_that_is_to_be_opened_again_is_not_opened_on_the_next_connection(bench: Bench) -> None:
    """That one has its own. Confirms of a second one would be taken for those of the first."""
    first = bench.connect()
    bench.thread._on_channel_closed(first.answer(), ChannelClosedByBroker(403, "ACCESS_REFUSED"))
    bench.lose(first)
    second = bench.connect()
    bench.loop.pass_time()
    assert len(second.asked) == 1


def test_a_channel_that_the_broker_closed_is_opened_again(bench: Bench) -> None:
    connection = bench.connect()
    bench.thread._on_channel_closed(connection.answer(), ChannelClosedByBroker(403, "ACCESS_REFUSED"))
    bench.loop.pass_time()
    again = connection.answer()
    bench.send(message())
    assert again.published == 1


def test_a_task_that_is_on_its_way_twice_may_come_back_twice_under_one_confirm(bench: Bench) -> None:
    bench.connect().answer()
    task, other = message(), message()
    bench.send(task, other, task)
    bench.bring_back(task)
    bench.bring_back(task)
    bench.answer("Basic.Ack", 3, multiple=True)
    assert bench.settlement.taken == [other]
    assert bench.thread._returned == {}


def test_a_task_that_is_on_its_way_twice_comes_back_twice_however_it_is_confirmed(bench: Bench) -> None:
    bench.connect().answer()
    task = message()
    bench.send(task, task)
    bench.bring_back(task)
    bench.bring_back(task)
    bench.answer("Basic.Ack", 1)
    bench.answer("Basic.Ack", 2)
    assert bench.settlement.taken == []
    assert bench.thread._returned == {}


def test_of_two_messages_of_a_task_one_may_arrive(bench: Bench) -> None:
    bench.connect().answer()
    task = message()
    bench.send(task, task)
    bench.bring_back(task)
    bench.answer("Basic.Ack", 2, multiple=True)
    assert bench.settlement.taken == [task]
    assert bench.thread._returned == {}


def test_nothing_is_kept_of_a_message_that_came_back_and_was_refused(bench: Bench) -> None:
    bench.connect().answer()
    task = message()
    bench.send(task)
    bench.bring_back(task)
    bench.answer("Basic.Nack", 1)
    assert bench.thread._returned == {}
    assert bench.thread.wait_settled(0.0)
    bench.send(task)
    bench.answer("Basic.Ack", 2)
    assert bench.settlement.taken == [task]
