"""Many messages leave with one write: the one place where carrot reaches into pika."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from carrot import publisher
from carrot.brokers import Broker
from carrot.brokers.amqp.connection import JoinedConnection
from carrot.services import create_message, publish_many
from tests.brokers.probe import Probe
from tests.marks import committing
from tests.rows import ADD
from tests.servers.process import wait_until

pytestmark = committing


@pytest.fixture
def broker_url(amqp_url: str) -> str:
    return amqp_url


class Writes:
    """What carrot's connections hand to the socket: the pieces, and those that did not pass the way we gather on."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.around: list[bytes] = []
        self.inside = False


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> Writes:
    seen = Writes()
    output, emit = JoinedConnection._output_marshaled_frames, JoinedConnection._adapter_emit_data

    def watched_output(self: JoinedConnection, frames: Sequence[bytes]) -> None:
        seen.inside = True
        output(self, frames)
        seen.inside = False

    def watched_emit(self: JoinedConnection, data: bytes) -> None:
        (seen.pieces if seen.inside or self._gathered is None else seen.around).append(data)
        emit(self, data)

    monkeypatch.setattr(JoinedConnection, "_output_marshaled_frames", watched_output)
    monkeypatch.setattr(JoinedConnection, "_adapter_emit_data", watched_emit)
    return seen


def publish_hundred() -> None:
    publish_many(create_message(ADD, "default", task_args=(number, 0)) for number in range(100))
    assert publisher.flush(10.0)


def test_a_hundred_messages_are_few_writes(broker: Broker, probe: Probe, writes: Writes) -> None:
    publish_hundred()  # declares what is missing
    writes.pieces.clear()
    publish_hundred()
    assert sum(piece.count(b"django-carrot message") for piece in writes.pieces) == 100
    assert len(writes.pieces) <= 5  # pika alone: 300
    assert wait_until(lambda: probe.ready() == 200, 10.0)


def test_pika_writes_nothing_of_a_message_on_another_way(broker: Broker, writes: Writes) -> None:
    """A pika release that wrote frames around ``_output_marshaled_frames`` would disturb their order."""
    publish_hundred()
    assert writes.pieces
    assert writes.around == []
