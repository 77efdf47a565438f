"""What comes out of a queue, whoever put it there: it is read without an error, and no delivery is lost."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from contextlib import suppress
from datetime import timezone
from typing import Any
from uuid import UUID

import pytest
from django.utils.timezone import is_aware
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from pika import BasicProperties

from carrot.arguments import encode_arguments
from carrot.brokers.amqp.inbox import FOREIGN, MARKER, MARKER_TYPE, STRAY, TASK, read
from carrot.brokers.amqp.intake import CLAIMABLE, Delivery, Intake
from carrot.conf import QueueSettings, get_settings
from carrot.exceptions import MessageFormatError
from carrot.models import Installation, MessageLog, Status, StrayMessage
from carrot.serializers import DefaultMessageSerializer
from carrot.virtual_host import VirtualHost
from tests.fuzz.strategies import (
    Mischief,
    examples,
    json_values,
    mutated,
    nested,
    texts,
    undone,
    values,
    wire_texts,
    wire_values,
)
from tests.rows import ADD, new_row, new_worker, unsaved_row

SITE = str(UUID(int=7))
KNOWN = {UUID(int=number): status for number, status in enumerate(Status, start=1)}
UNKNOWN = UUID(int=99)
HEADERS = {"type": ADD, "carrot": {"site": SITE, "v": 2}}
ANOTHERS = {"type": ADD, "carrot": {"site": "another", "v": 2}}

ids = st.sampled_from([*KNOWN, UNKNOWN]).flatmap(
    lambda uuid: st.sampled_from([str(uuid), str(uuid).upper(), uuid.hex, f"{{{uuid}}}", uuid.urn])
)
bodies = st.one_of(
    st.sampled_from(
        [
            b"",
            b"\0",
            b"\xef\xbb\xbf{}",
            b"null",
            b"[1]",
            b"[" * 100_000,
            b"1" * 5000,
            b'{"args": [NaN]}',
            b'{"args": ["\\ud800", "\\u0000"], "kwargs": {"a": 1}}',
            b'{"args": [1], "args": 5}',
            json.dumps({"args": nested(101)}).encode(),
            gzip.compress(b'{"args": []}'),
            "ä".encode("utf-16"),
            b"\x80\x04K\x01.",
            b"x" * 2_000_000,
        ]
    ),
    st.builds(
        lambda args, kwargs: json.dumps({"args": args, "kwargs": kwargs}).encode(),
        st.lists(json_values, max_size=3) | json_values,
        st.dictionaries(texts, json_values, max_size=3) | json_values,
    ),
    st.datetimes(timezones=st.none() | st.timezones()).map(lambda time: time.isoformat().encode()),
    st.binary(max_size=30),
)
headers = st.one_of(
    st.none(), st.just(HEADERS), mutated(HEADERS, wire_values), st.dictionaries(wire_texts, wire_values, max_size=4)
)


@st.composite
def odd_properties(draw: DrawFn) -> BasicProperties:
    text = st.none() | wire_texts
    return BasicProperties(
        headers=draw(headers),
        message_id=draw(text | ids),
        type=draw(text | st.just(MARKER_TYPE)),
        timestamp=draw(st.none() | st.integers(0, 2**64 - 1)),
        priority=draw(st.none() | st.integers(0, 255)),
        delivery_mode=draw(st.none() | st.integers(0, 255)),
        content_type=draw(text),
        content_encoding=draw(text),
        expiration=draw(text),
        reply_to=draw(text),
        correlation_id=draw(text),
        user_id=draw(text),
        app_id=draw(text),
        cluster_id=draw(text),
    )


#: As pika decodes them.
properties = st.one_of(
    odd_properties(),
    st.builds(BasicProperties, headers=st.sampled_from([HEADERS, ANOTHERS, None, {"type": ADD}]), message_id=ids),
    st.builds(BasicProperties, headers=st.just(HEADERS), type=st.just(MARKER_TYPE)),
)


def marker(time: str) -> tuple[BasicProperties, bytes]:
    return BasicProperties(headers=HEADERS, type=MARKER_TYPE), time.encode()


@examples(150)
@given(properties, bodies)
@example(*marker("2030-01-01T00:00:00"))
@example(*marker("0001-01-01T00:00:00+14:00"))
@example(*marker("9999-12-31T23:59:59-14:00"))
@example(BasicProperties(headers=nested(500, dict)), b"")
def test_any_delivery_is_read(properties: BasicProperties, body: bytes) -> None:
    one = read(properties, body, SITE)
    assert one.kind in (TASK, MARKER, FOREIGN, STRAY)
    assert (one.kind == TASK) == (one.uuid is not None)
    assert (one.kind == MARKER) == (one.before is not None)
    if one.before is not None:
        assert is_aware(one.before)
        assert one.before.astimezone(timezone.utc)


@examples(150)
@given(properties, bodies)
def test_a_serializer_gives_what_can_be_stored_or_says_what_is_wrong(properties: BasicProperties, body: bytes) -> None:
    serializer = DefaultMessageSerializer()
    for source in (properties, vars(properties)):
        for ask in (serializer.get_uuid, lambda source: serializer.get_task(source, body)):
            told = ""
            try:
                assert ask(source)
            except MessageFormatError as error:
                told = str(error)
            assert told.isprintable()
        serializer.get_site(source)
    with suppress(MessageFormatError):
        args, kwargs = serializer.serialize_arguments(body)
        encode_arguments(args, kwargs, get_settings().max_arguments_size)


# -- with the database ------------------------------------------------------------------------------------------------


def raises() -> None:
    raise Mischief


makers_of_rows = st.one_of(
    st.none(),
    st.sampled_from([lambda: None, raises, object, unsaved_row]),
    st.builds(
        lambda name, value: lambda: unsaved_row(**{name: value}),
        st.sampled_from(
            ["task", "args", "kwargs", "priority", "exchange", "routing_key", "status", "ring_at", "worker_id"]
        ),
        values | st.sampled_from(["a" * 300, "\0", 2**70]),
    ),
)


class Hook:
    """A consumer's ``get_message_log``, and what it gave."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make
        self.made: list[Any] = []

    def __call__(self, properties: Any, body: bytes) -> Any:
        self.made.append(None)
        self.made[-1] = self.make()
        return self.made[-1]


@pytest.mark.django_db
@examples(150)
@given(st.lists(st.tuples(properties, bodies), min_size=1, max_size=6), makers_of_rows, st.booleans())
@example([marker("2030-01-01T00:00:00"), marker("2030-01-01T00:00:00+00:00")], None, True)
@example([marker("9999-12-31T23:59:59-14:00")], None, True)
@example([(BasicProperties(message_id="a"), b"")], raises, True)
@example([(BasicProperties(message_id="a"), b"")] * 2, unsaved_row, True)
def test_every_delivery_is_claimed_or_kept_or_goes_back(
    messages: list[tuple[BasicProperties, bytes]], make: Callable[[], Any] | None, alive: bool
) -> None:
    with undone():
        Installation.objects.update_or_create(pk=1, defaults={"site_id": SITE})
        for uuid, status in KNOWN.items():
            new_row(uuid=uuid, status=status)
        strays = StrayMessage.objects.count()
        hook = Hook(make) if make else None
        batch = [Delivery(1, tag, *message) for tag, message in enumerate(messages, start=1)]
        taken = Intake(QueueSettings(name="default", host=VirtualHost()), hook).take(batch, new_worker(alive=alive).pk)

        for claim in taken.claims:
            row = MessageLog.objects.get(uuid=claim.uuid)
            assert (row.status, row.args, row.kwargs) == (Status.IN_PROGRESS, claim.args, claim.kwargs)
        assert alive or not taken.claims
        without_row = sum(getattr(row, "pk", None) is None for row in hook.made) if hook else 0
        for delivery in batch:
            one = read(delivery.properties, delivery.body, SITE)
            rows = list(MessageLog.objects.filter(uuid=one.uuid)) if one.uuid else []
            if delivery.tag in taken.back:
                adopted = hook is not None and one.stranger
                assert one.kind == FOREIGN or adopted or [row for row in rows if row.status in CLAIMABLE]
            else:
                assert one.kind != FOREIGN
                assert not any(row.status in CLAIMABLE for row in rows), "its message is acknowledged"
                if one.kind != MARKER and not rows and not (hook and one.stranger):
                    without_row += 1
        assert StrayMessage.objects.count() - strays == without_row
