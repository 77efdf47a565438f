"""Publishing: rows in the caller's transaction, bells on commit."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import decimal
import threading
import uuid
from typing import Any

import pytest
from django.db import IntegrityError, connections, transaction

from carrot import publisher, task
from carrot.exceptions import InvalidArguments, UnknownQueue
from carrot.message import Message
from carrot.models import MessageLog, Status, insertion
from carrot.services import create_message, publish_many, publish_message
from tests.marks import committing
from tests.rows import ADD

HERE = __name__


@task(queue="mail", priority=7)
def sends(**kwargs: Any) -> None:
    """A task with a queue and a priority of its own."""


def clashes(queue: str, priority: int = 0) -> None:
    """A task with parameters that publish_message() has too."""


@pytest.fixture
def rung(monkeypatch: pytest.MonkeyPatch, settings: Any) -> list[Message]:
    """What was handed to the publisher."""
    settings.CARROT = {"default_broker": "amqp://host/v", "queues": [{"name": "default"}, {"name": "mail"}]}
    messages: list[Message] = []
    monkeypatch.setattr(publisher, "ring", messages.extend)
    return messages


# -- the row ----------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.usefixtures("rung")
def test_the_returned_row_shows_what_the_function_will_receive() -> None:
    when = datetime.datetime(2026, 1, 31, 12, 0, tzinfo=datetime.timezone.utc)
    number = uuid.UUID(int=7)
    row = publish_message(sends, when=when, pair=(1, 2), price=decimal.Decimal("1.50"), id=number, keys={1: "a"})
    expected = {"when": "2026-01-31T12:00:00Z", "pair": [1, 2], "price": "1.50", "id": str(number), "keys": {"1": "a"}}
    assert row.kwargs == expected
    assert row.keywords == expected
    row.refresh_from_db()
    assert row.kwargs == expected
    assert row.positionals == ()


@pytest.mark.django_db
@pytest.mark.usefixtures("rung")
def test_a_row_knows_its_way_and_shows_no_password() -> None:
    row = publish_message(ADD, 1, b=2, priority=3, queue="mail", exchange="shop")
    assert (row.queue, row.exchange, row.routing_key, row.priority) == ("mail", "shop", "mail", 3)
    assert (row.task, row.status, row.origin) == (ADD, Status.PUBLISHED, "code")
    assert row.virtual_host == row.broker
    assert "host" in row.virtual_host
    assert "guest" not in row.virtual_host
    assert publish_message(ADD, 1, 2, routing_key="").routing_key == ""


@pytest.mark.django_db
@pytest.mark.usefixtures("rung")
def test_the_decorator_gives_defaults_that_the_call_overrides() -> None:
    row = publish_message(sends)
    assert (row.queue, row.routing_key, row.priority) == ("mail", "mail", 7)
    row = publish_message(sends, queue="default", priority=2)
    assert (row.queue, row.routing_key, row.priority) == ("default", "default", 2)
    assert publish_message(ADD, 1, 2).queue == "default"


@pytest.mark.django_db
@pytest.mark.usefixtures("rung")
def test_a_message_is_published_when_it_is_told_to() -> None:
    message = create_message(clashes, "default", 5, ("a",), task_kwargs={"priority": 1})
    assert not MessageLog.objects.exists()
    row = message.publish()
    assert isinstance(row, MessageLog)
    assert (row.uuid, row.args, row.kwargs, row.priority) == (message.uuid, ["a"], {"priority": 1}, 5)
    assert create_message(ADD, None, task_args=(1, 2)).queue == "default"


@pytest.mark.django_db
@pytest.mark.usefixtures("rung")
def test_one_publish_is_one_statement(django_assert_num_queries: Any) -> None:
    publish_message(ADD, 1, 2)
    with django_assert_num_queries(1):
        publish_message(ADD, 1, 2)


@pytest.mark.django_db
@pytest.mark.usefixtures("rung")
@pytest.mark.parametrize("again", [lambda message: message, copy.copy])
def test_a_message_that_was_published_is_refused_and_the_callers_transaction_goes_on(again: Any) -> None:
    message = create_message(ADD, None, task_args=(1, 2))
    with transaction.atomic():
        message.publish()
        with pytest.raises(InvalidArguments, match=r"was published already.*Create another one"):
            again(message).publish()
        publish_message(ADD, 3, 4)
    assert MessageLog.objects.count() == 2


@committing
@pytest.mark.usefixtures("rung")
def test_another_object_with_the_id_of_a_published_message_is_refused() -> None:
    message = create_message(ADD, None, task_args=(1, 2))
    message.publish()
    with pytest.raises(InvalidArguments, match="was published already"):
        dataclasses.replace(message).publish()
    assert MessageLog.objects.count() == 1


@committing
@pytest.mark.usefixtures("rung")
def test_a_message_whose_publishing_was_rolled_back_can_be_published() -> None:
    message = create_message(ADD, None, task_args=(1, 2))
    with pytest.raises(LookupError), transaction.atomic():
        message.publish()
        raise LookupError
    assert message.publish().uuid == message.uuid


# -- transactions -----------------------------------------------------------------------------------------------------


@committing
def test_the_bell_follows_the_commit(rung: list[Message]) -> None:
    with transaction.atomic():
        row = publish_message(ADD, 1, 2)
        assert rung == []
    assert [message.uuid for message in rung] == [row.uuid]
    other = publish_message(ADD, 1, 2)  # in autocommit: at once
    assert [message.uuid for message in rung] == [row.uuid, other.uuid]


@committing
def test_a_rollback_leaves_neither_row_nor_bell(rung: list[Message]) -> None:
    with transaction.atomic():
        kept = publish_message(ADD, 1, 2)
        with pytest.raises(ValueError, match="inner"), transaction.atomic():
            publish_message(ADD, 3, 4)
            raise ValueError("inner")
    assert [message.uuid for message in rung] == [kept.uuid]
    assert MessageLog.objects.get() == kept
    with pytest.raises(ValueError, match="outer"), transaction.atomic():
        publish_many([create_message(ADD, "default", task_args=(1, 2))])
        raise ValueError("outer")
    assert len(rung) == 1
    assert MessageLog.objects.count() == 1


@committing
def test_a_publisher_that_fails_does_not_fail_the_caller(
    settings: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings.CARROT = {"default_broker": "amqp://host/v"}

    def fail(_host: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(publisher, "broker_of", fail)
    row = publish_message(ADD, 1, 2)
    assert row.ring_at is not None
    assert "Could not hand messages to the broker" in caplog.text

    monkeypatch.setattr(publisher, "ring", fail)
    with transaction.atomic():
        publish_message(ADD, 1, 2)
    assert MessageLog.objects.count() == 2


@committing
def test_with_the_relay_as_publisher_this_process_rings_nothing(rung: list[Message], settings: Any) -> None:
    settings.CARROT = {**settings.CARROT, "publisher": "relay"}
    brokers = dict(publisher._brokers)
    rows = [publish_message(ADD, 1, 2), *publish_many([create_message(ADD, "default", task_args=(1, 2))])]
    assert rung == []
    assert publisher._brokers == brokers
    for row in rows:
        row.refresh_from_db()
        assert row.ring_at is not None


@committing
def test_a_delayed_message_is_not_rung_now(rung: list[Message]) -> None:
    later = datetime.datetime(2999, 1, 1, tzinfo=datetime.timezone.utc)
    message = Message(task=ADD, args=(1, 2), queue="default", routing_key="default", run_after=later)
    row, other = publish_many([message, create_message(ADD, "default", task_args=(1, 2))])
    assert (row.status, row.ring_at) == (Status.WAITING, later)
    assert [message.uuid for message in rung] == [other.uuid]


# -- many -------------------------------------------------------------------------------------------------------------


@committing
def test_many_are_published_in_order_with_a_statement_for_hundreds(
    rung: list[Message], monkeypatch: pytest.MonkeyPatch, django_assert_max_num_queries: Any
) -> None:
    monkeypatch.setattr(insertion, "BATCH", 40)
    messages = [create_message(ADD, "default", task_args=(number, 0)) for number in range(100)]
    with django_assert_max_num_queries(3 + 2 + 2):  # BEGIN and COMMIT are counted on some versions
        rows = publish_many(iter(messages))
    assert [row.args[0] for row in rows] == list(range(100))
    assert [row.uuid for row in rows] == [message.uuid for message in messages] == [each.uuid for each in rung]
    assert all(row.pk for row in rows)
    assert MessageLog.objects.count() == 100


@committing
def test_of_many_all_are_published_or_none(rung: list[Message], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(insertion, "BATCH", 2)
    message = create_message(ADD, "default", task_args=(1, 2))
    others = [create_message(ADD, "default", task_args=(1, 2)) for _ in range(3)]
    with pytest.raises(IntegrityError):
        publish_many([*others, message, message])

    def broken() -> Any:
        yield message
        raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        publish_many(broken())
    with pytest.raises(UnknownQueue):
        publish_many([message, Message(task=ADD, queue="no such", routing_key="x")])
    assert not MessageLog.objects.exists()
    assert rung == []
    assert publish_many([]) == []


# -- a project's own tests --------------------------------------------------------------------------------------------


@committing
def test_a_test_suite_on_the_embedded_broker_leaves_no_thread_and_no_connection_behind(settings: Any) -> None:
    settings.CARROT = {"default_broker": "database://"}
    assert not MessageLog.objects.exists()  # connected
    threads = set(threading.enumerate())
    in_use = [each.connection for each in connections.all(initialized_only=True)]
    publish_message(ADD, 1, 2)
    with transaction.atomic():
        publish_message(ADD, 1, 2)
        publish_many([create_message(ADD, None, task_args=(1, 2))])
    assert set(threading.enumerate()) == threads
    assert publisher.flush(0.0)
    publisher.close(0.0)
    publisher.close(0.0)
    assert [each.connection for each in connections.all(initialized_only=True)] == in_use
    assert set(MessageLog.objects.values_list("ring_at", "status")) == {(None, "PUBLISHED")}


@pytest.mark.django_db
def test_reserved_parameters_are_refused_with_the_way_out(settings: Any) -> None:
    with pytest.raises(InvalidArguments, match=r"queue, priority.*create_message\("):
        publish_message(clashes, "a")
    assert not MessageLog.objects.exists()
