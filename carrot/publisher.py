"""Rings the bells: hands the messages of committed rows to the brokers of this process.

Receives messages from ``services`` (on commit), from the relay and from workers that hand tasks back; hands them to the
broker of their queue. Nothing here blocks or raises into the caller: a row stays armed until its message is confirmed.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Iterable

from carrot import clock
from carrot.brokers import Broker, make_broker
from carrot.conf import get_queue
from carrot.message import Message
from carrot.virtual_host import VirtualHost

logger = logging.getLogger(__name__)

#: Seconds a process that ends gives its last messages.
FLUSH_AT_EXIT = 2.0

_lock = threading.Lock()
_brokers: dict[VirtualHost, Broker] = {}


def broker_of(host: VirtualHost) -> Broker:
    """This process's broker object for ``host``; made once, connected when first used."""
    with _lock:
        if host not in _brokers:
            if not _brokers:
                atexit.register(close, FLUSH_AT_EXIT)
            _brokers[host] = make_broker(host)
        return _brokers[host]


def ring(messages: Iterable[Message]) -> None:
    """Sends the messages of committed rows, each to its queue's broker. Never blocks, never raises."""
    by_host: dict[VirtualHost, list[Message]] = {}
    try:
        for message in messages:
            by_host.setdefault(get_queue(message.queue).host, []).append(message)
        for host, batch in by_host.items():
            broker_of(host).ring(batch)
    except Exception:
        # The row is committed and armed: the relay rings it. The caller's request must not fail over it.
        logger.exception("Could not hand messages to the broker; the service will.")


def flush(timeout: float) -> bool:
    """Waits at most ``timeout`` seconds until every message handed over is settled; whether all are."""
    ends = clock.monotonic() + timeout
    with _lock:
        brokers = list(_brokers.values())
    settled = [broker.flush(max(0.0, ends - clock.monotonic())) for broker in brokers]
    return all(settled)


def close(timeout: float) -> None:
    """Flushes and ends every broker of this process, within about ``timeout`` seconds. Idempotent."""
    flush(timeout)
    with _lock:
        brokers = list(_brokers.values())
        _brokers.clear()
    for broker in brokers:
        broker.close(timeout)


def _forget() -> None:
    """In a forked child: the threads are gone and the sockets are the parent's. Nothing is closed, all is made anew."""
    global _lock
    _lock = threading.Lock()
    _brokers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
