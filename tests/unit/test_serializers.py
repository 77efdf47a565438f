"""The wire format."""

from __future__ import annotations

import gzip
import json
import pickle
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from django.test import override_settings

from carrot.exceptions import CarrotError, MessageFormatError
from carrot.message import Message, uuid7
from carrot.serializers import BaseMessageSerializer, DefaultMessageSerializer

READER = DefaultMessageSerializer()


def message(**changes: Any) -> Message:
    values = {"task": "app.tasks.add", "queue": "q", "routing_key": "key", "exchange": "x", "priority": 3}
    return Message(**{**values, "args": (1, "é"), "kwargs": {"b": [2]}, **changes})


def test_the_format_is_that_of_1x() -> None:
    sent = message()
    serializer = DefaultMessageSerializer(sent, site="here")
    assert serializer.publish_kwargs() == {
        "exchange": "x",
        "routing_key": "key",
        "body": '{"args": [1, "é"], "kwargs": {"b": [2]}}',
        "properties": {
            "headers": {"type": "app.tasks.add", "carrot": {"site": "here", "v": 2}},
            "message_id": str(sent.uuid),
            "content_type": "application/json",
            "type": "django-carrot message",
            "priority": 3,
            "delivery_mode": 2,
        },
        "mandatory": True,
    }


def test_without_a_site_the_header_names_none() -> None:
    assert DefaultMessageSerializer(message()).properties()["headers"]["carrot"] == {"v": 2}


def test_what_is_written_is_read_back() -> None:
    sent = message()
    serializer = DefaultMessageSerializer(sent, site="here")
    properties, body = serializer.properties(), serializer.body().encode()
    assert READER.get_task(properties, body) == sent.task
    assert READER.get_uuid(properties) == sent.uuid
    assert READER.get_site(properties) == "here"
    assert READER.serialize_arguments(body) == (sent.args, sent.kwargs)
    assert READER.serialize_arguments(body.decode()) == (sent.args, sent.kwargs)


def test_properties_may_be_an_object_as_pika_gives_it() -> None:
    properties = SimpleNamespace(headers={"type": "app.tasks.add"}, message_id=str(uuid7()).upper())
    assert READER.get_task(properties, b"") == "app.tasks.add"
    assert str(READER.get_uuid(properties)).upper() == properties.message_id
    assert READER.get_site(properties) is None


@pytest.mark.parametrize(
    ("body", "arguments"),
    [
        (b'{"args": [1]}', ((1,), {})),
        (b'{"kwargs": {"a": null}}', ((), {"a": None})),
        (b"{}", ((), {})),
        (b' {"args": [], "version": 9}\n', ((), {})),
    ],
)
def test_either_key_may_be_missing_and_others_are_ignored(body: bytes, arguments: Any) -> None:
    assert READER.serialize_arguments(body) == arguments


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0",
        b"\xff\xfe{\0}\0",
        b"\xef\xbb\xbf{}",
        gzip.compress(b"{}"),
        pickle.dumps({"args": [1]}),
        b"1",
        b'"text"',
        b"null",
        b"true",
        b"[1, 2]",
        b'{"args": {"a": 1}}',
        b'{"args": "abc"}',
        b'{"args": null}',
        b'{"kwargs": [1]}',
        b'{"args": [NaN]}',
        b'{"args": [-Infinity]}',
        b'{"args": ["\\u0000"]}',
        b'{"args": ["\\ud800"]}',
        b'{"kwargs": {"\\u0000": 1}}',
        b'{"args": [' + b"1" * 5000 + b"]}",
        b'{"args": ' + b"[" * 300 + b"]" * 300 + b"}",
        b'{"args": ' + b"[" * 200_000,
        b'{"a":' * 200_000,
        b'{"args": ["' + b"x" * 20_000_000 + b'"]}',
        b'{"args": [1',
        "\ud800",
        None,
        5,
    ],
    ids=lambda body: repr(body)[:30],
)
def test_a_hostile_body_is_a_format_error_and_nothing_else(body: Any) -> None:
    with pytest.raises(MessageFormatError) as caught:
        READER.serialize_arguments(body)
    assert isinstance(caught.value, CarrotError)
    assert len(str(caught.value)) < 500


@override_settings(CARROT={"max_arguments_size": 100_000})
def test_the_size_of_a_body_is_bounded_by_the_setting() -> None:
    assert READER.serialize_arguments(json.dumps({"args": ["x" * 99_000]}))
    with pytest.raises(MessageFormatError, match="100,000 allowed"):
        READER.serialize_arguments(json.dumps({"args": ["x" * 100_000]}))
    with pytest.raises(MessageFormatError, match="bytes long"):
        READER.serialize_arguments(json.dumps({"args": ["x" * 110_000]}))


def test_refusals_do_not_quote_the_body_because_it_may_hold_secrets() -> None:
    for body in (b'{"args": ["hunter2"', b'"hunter2"', b'{"args": "hunter2"}', b'{"args": ["hunter2\\u0000"]}'):
        with pytest.raises(MessageFormatError) as caught:
            READER.serialize_arguments(body)
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "properties",
    [
        None,
        {},
        {"headers": None},
        {"headers": []},
        {"headers": {}},
        {"headers": {"type": None}},
        {"headers": {"type": ""}},
        {"headers": {"type": "  "}},
        {"headers": {"type": b"app.tasks.add"}},
        {"headers": {"type": {"nested": "table"}}},
        {"headers": {"type": "a.b\0"}},
        {"headers": {"type": "a.b\n"}},
        {"headers": {"type": "x" * 1001}},
        SimpleNamespace(headers=None),
        object(),
    ],
    ids=lambda properties: repr(properties)[:30],
)
def test_a_message_without_a_task_is_a_format_error(properties: Any) -> None:
    with pytest.raises(MessageFormatError):
        READER.get_task(properties, b"{}")


@pytest.mark.parametrize("value", [None, "", "5", 5, b"x", {}, "g" * 32, "x" * 10_000])
def test_a_message_id_that_is_no_uuid_is_a_format_error(value: Any) -> None:
    with pytest.raises(MessageFormatError) as caught:
        READER.get_uuid({"message_id": value})
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("own", [None, "x", 5, {}, {"site": None}, {"site": 5}, {"v": 2}])
def test_a_message_of_another_program_has_no_site(own: Any) -> None:
    assert READER.get_site({"headers": {"carrot": own}}) is None
    assert READER.get_site({}) is None


def test_a_serializer_without_a_message_only_reads() -> None:
    with pytest.raises(MessageFormatError, match="can only read"):
        READER.publish_kwargs()


def test_another_format_is_a_subclass() -> None:
    class Other(DefaultMessageSerializer):
        type_header = "task"
        message_type = "other"
        content_type = "text/json"

    properties = Other(message()).properties()
    assert properties["headers"]["task"] == "app.tasks.add"
    assert (properties["type"], properties["content_type"]) == ("other", "text/json")
    assert Other().get_task({"headers": {"task": "a.b"}}, b"") == "a.b"


def test_the_base_class_says_what_is_to_be_defined() -> None:
    base = BaseMessageSerializer(message())
    for call in (lambda: base.get_task({}, b""), lambda: base.serialize_arguments(b""), base.body, base.properties):
        with pytest.raises(NotImplementedError, match="must define"):
            call()


def test_reading_a_message_imports_nothing() -> None:
    assert READER.get_task({"headers": {"type": "antigravity.fly"}}, b"{}") == "antigravity.fly"
    assert "antigravity" not in sys.modules
