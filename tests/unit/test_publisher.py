"""The brokers of a process: made once, shared by its threads, not inherited by its children."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from carrot import publisher
from carrot.brokers import Broker
from carrot.brokers.database import DatabaseBroker
from carrot.conf import get_queue
from carrot.message import Message
from carrot.virtual_host import VirtualHost
from tests.rows import ADD
from tests.servers.process import wait_until

AWAY = "amqp://guest:guest@127.0.0.1:1/x"  # port 1 refuses


@pytest.fixture(autouse=True)
def fresh(settings: Any) -> Iterator[None]:
    settings.CARROT = {
        "default_broker": "database://",
        "queues": [{"name": "default"}, {"name": "away", "host": AWAY}],
    }
    yield
    publisher.close(1.0)
    assert publisher._brokers == {}


def refused(broker: Broker) -> bool:
    """Waits until the first attempt has failed: pika leaves the socket of an attempt that is interrupted to the GC."""
    return wait_until(lambda: "refused" in broker.describe(), 10.0)


def message(queue: str = "default") -> Message:
    return Message(task=ADD, queue=queue, routing_key=queue)


def test_a_virtual_host_has_one_broker() -> None:
    host = get_queue("default").host
    assert publisher.broker_of(host) is publisher.broker_of(VirtualHost.parse("database://"))
    assert publisher.broker_of(host) is not publisher.broker_of(get_queue("away").host)
    assert isinstance(publisher.broker_of(host), DatabaseBroker)


def test_messages_go_to_the_brokers_of_their_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    class Noting(DatabaseBroker):
        def ring(self, messages: Any) -> None:
            noted.setdefault(self.host.scheme, []).append([each.queue for each in messages])

    noted: dict[str, list[list[str]]] = {}
    monkeypatch.setattr(publisher, "make_broker", Noting)
    publisher.ring([message(), message("away"), message()])
    publisher.ring(iter([message("away")]))
    publisher.ring([])
    assert noted == {"database": [["default", "default"]], "amqp": [["away"], ["away"]]}


def test_ringing_never_raises(caplog: pytest.LogCaptureFixture) -> None:
    publisher.ring([message("no such queue")])
    publisher.ring(None)  # type: ignore[arg-type]
    assert caplog.text.count("Could not hand messages to the broker") == 2


def test_a_flush_says_whether_all_is_settled_and_a_close_ends_the_threads() -> None:
    publisher.ring([message()])
    assert publisher.flush(0.0)
    publisher.ring([message("away")])
    broker = publisher.broker_of(get_queue("away").host)
    assert not publisher.flush(0.05)
    assert refused(broker)
    thread = broker._publisher  # type: ignore[attr-defined]
    publisher.close(1.0)
    assert wait_until(lambda: not thread.is_alive(), 5.0)


def test_a_forked_child_begins_anew() -> None:
    publisher.ring([message("away")])
    assert refused(publisher.broker_of(get_queue("away").host))
    lock = publisher._lock
    pid = os.fork()
    if pid == 0:
        clean = publisher._brokers == {} and publisher._lock is not lock and publisher.flush(0.0)
        os._exit(0 if clean else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert publisher._brokers != {}
