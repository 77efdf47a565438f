"""Messages that other programs put into a queue of ours, through a real RabbitMQ: the next task runs all the same."""

from __future__ import annotations

import gzip
import struct
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import pytest
from pika import BasicProperties

from carrot.brokers import Broker
from carrot.brokers.amqp.inbox import MARKER_TYPE
from carrot.models import Installation, MessageLog, Status, StrayMessage
from carrot.services import publish_message
from tests.brokers.conftest import Receivers
from tests.brokers.probe import Probe
from tests.fuzz.strategies import nested
from tests.marks import committing
from tests.rows import ADD

pytestmark = committing


@pytest.fixture
def broker_url(amqp_url: str) -> str:
    return amqp_url


class RawHeaders(BasicProperties):  # type: ignore[misc]  # pika has no types
    """Headers, and perhaps a message id, as bytes that pika would not write."""

    def __init__(self, table: bytes, message_id: str = "") -> None:
        super().__init__()
        self._table = table
        self._id = message_id.encode()

    def encode(self) -> list[bytes]:
        flags = BasicProperties.FLAG_HEADERS | (BasicProperties.FLAG_MESSAGE_ID if self._id else 0)
        pieces = [struct.pack(">HI", flags, len(self._table)), self._table]
        return pieces + ([struct.pack("B", len(self._id)), self._id] if self._id else [])


def field(name: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + value


def within(levels: int, kind: bytes) -> bytes:
    """Tables (``F``) or arrays (``A``) in each other."""
    value = b""
    for _ in range(levels):
        inner = field(b"", kind + struct.pack(">I", len(value)) + value) if kind == b"F" else value
        value = inner if kind == b"F" else kind + struct.pack(">I", len(value)) + value
    return value if kind == b"F" else field(b"a", value)


ODD: dict[str, tuple[Any, bytes]] = {
    "nothing": (BasicProperties(), b""),
    "nul": (BasicProperties(message_id="a\0b", headers={"type": "\0"}), b"\0"),
    "gzip": (BasicProperties(content_encoding="gzip", headers={"type": ADD}), gzip.compress(b'{"args": [1, 2]}')),
    "pickle": (BasicProperties(content_type="application/x-python-serialize"), b"\x80\x04K\x01."),
    "a large body": (BasicProperties(headers={"type": ADD}), b"[" * 5_000_000),
    "every property": (
        BasicProperties(
            content_type="text/plain",
            content_encoding="x" * 255,
            headers={"": None, "type": 7},
            message_id="00000000-0000-0000-0000-000000000000",
            priority=255,
            expiration="60000",
            delivery_mode=1,
            user_id="guest",
            app_id="x" * 255,
            reply_to="amq.gen-x",
            correlation_id="é" * 100,
            timestamp=2**63,
            type=MARKER_TYPE,
            cluster_id="c",
        ),
        b"{}",
    ),
    "every type of header": (
        BasicProperties(
            headers={
                "type": {"a": [1, "b", {}]},
                "carrot": [Decimal("1.5"), Decimal(-3), True, None],
                "a": 2**62,
                "b": b"\xff",
                "c": datetime(9999, 12, 31, tzinfo=timezone.utc),
                "d": nested(50, dict),
            }
        ),
        b"{}",
    ),
    "death": (BasicProperties(headers={"x-death": [{"count": 3, "queue": "default"}] * 30}), b"{}"),
    "names that are no text": (RawHeaders(field(b"\xff\xfe", b"t\1") + field(b"type", b"S\0\0\0\2\xff\xfe")), b""),
    "numbers": (
        RawHeaders(
            field(b"a", b"d" + struct.pack(">d", 1e300))
            + field(b"b", b"f" + struct.pack(">f", -1.5))
            + field(b"c", b"D\xff" + struct.pack(">i", 2**31 - 1))
            + field(b"d", b"l" + b"\xff" * 8)
        ),
        b"",
    ),
}
#: What pika cannot decode.
UNREADABLE = {
    "a timestamp in milliseconds": field(b"at", b"T" + struct.pack(">Q", 1_700_000_000_000)),
    "the largest timestamp": field(b"at", b"T" + b"\xff" * 8),
    "tables in tables": within(15_000, b"F"),
    "arrays in arrays": within(15_000, b"A"),
}


def put(probe: Probe, properties: Any, body: bytes) -> None:
    probe.channel.basic_publish("", "default", body, properties)


def test_odd_messages_are_kept_as_strays_and_the_next_task_is_claimed(
    broker: Broker, probe: Probe, receiver: Receivers
) -> None:
    here = receiver()
    here.until(lambda: probe.exists("default"), "a queue")
    for properties, body in ODD.values():
        put(probe, properties, body)
    publish_message(ADD, 1, 2)
    here.collect(1)
    assert here.subscription.problem() == ""
    here.until(lambda: StrayMessage.objects.count() == len(ODD), "strays for all")


@pytest.mark.parametrize("name", UNREADABLE)
def test_headers_that_cannot_be_decoded_do_not_stop_the_consumer(
    broker: Broker, probe: Probe, receiver: Receivers, name: str
) -> None:
    here = receiver()
    here.until(lambda: probe.exists("default"), "a queue")
    row = MessageLog.objects.create(task=ADD, args=[0, 0], broker=broker.host.address, queue="default")
    put(probe, RawHeaders(UNREADABLE[name], "somebody's"), b"the body")
    put(probe, RawHeaders(UNREADABLE[name], str(row.uuid)), b"")
    publish_message(ADD, 1, 2)
    here.collect(2)
    assert sorted(here.arguments()) == [0, 1], "a bell rings whatever else its message has"
    row.refresh_from_db()
    assert row.status == Status.IN_PROGRESS
    stray = StrayMessage.objects.get()
    assert (stray.message_id, stray.body) == ("somebody's", "the body")
    assert here.subscription.problem() == ""


def test_a_forged_marker_without_a_zone_arms_nothing(broker: Broker, probe: Probe, receiver: Receivers) -> None:
    here = receiver()
    here.until(lambda: probe.exists("default"), "a queue")
    headers = {"carrot": {"site": str(Installation.objects.site())}}
    for time in (b"2030-01-01T00:00:00", b"2030-01-01T00:00:00+00:00", b"9999-12-31T23:59:59-14:00"):
        put(probe, BasicProperties(type=MARKER_TYPE, headers=headers), time)
    publish_message(ADD, 1, 2)
    here.collect(1)
    here.until(lambda: StrayMessage.objects.count() == 2, "strays")
