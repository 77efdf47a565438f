"""How often, and when, a connection that is lost is tried again."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from carrot.brokers.amqp.connection import FIRST_DELAY, LAST_DELAY, ConnectionThread
from carrot.virtual_host import VirtualHost
from tests.servers.process import wait_until


def open_sockets() -> set[str]:
    """Those of this process."""
    return {name for entry in Path("/proc/self/fd").iterdir() if (name := target(entry)).startswith("socket:")}


def target(entry: Path) -> str:
    try:
        return os.readlink(entry)
    except FileNotFoundError:
        return ""  # that of the look itself


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Linux tells what a process has open")
@pytest.mark.parametrize("answers", [True, False], ids=["silent", "deaf"])
def test_an_end_amid_an_attempt_to_connect_leaves_no_socket(answers: bool) -> None:
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(0 if answers else 4):  # as many waiting as it takes: no SYN is answered any more
            client = sockets.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        before = open_sockets()
        thread = ConnectionThread(VirtualHost(f"amqp://127.0.0.1:{listener.getsockname()[1]}/"), "consumer")
        thread.start()
        thread.connect()
        assert wait_until(lambda: len(open_sockets() - before) == 3, 5.0), (
            "its loop has a pair of them, and the attempt one"
        )
        assert thread.shut(5.0)
        thread.join(5.0)
        assert open_sockets() - before == set()


class Delays:
    """Takes the place of an I/O loop: remembers the seconds after which something is to be done."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def call_later(self, seconds: float, _function: Callable[[], None]) -> None:
        self.seconds.append(seconds)


def delays_of(attempts: int) -> list[float]:
    """The seconds before each attempt of a process that finds no broker."""
    thread, loop = ConnectionThread(VirtualHost("amqp://127.0.0.1:1/"), "consumer"), Delays()
    thread._loop.close()
    thread._loop = loop
    for _ in range(attempts):
        thread._gone("Connection refused")
    return loop.seconds


def test_the_delays_grow_to_a_limit() -> None:
    delays = delays_of(50)
    assert 0.5 * FIRST_DELAY <= delays[0] <= 1.5 * FIRST_DELAY
    assert all(0.5 * LAST_DELAY <= delay <= 1.5 * LAST_DELAY for delay in delays[4:])


@pytest.mark.parametrize("attempt", [0, 5])
def test_the_processes_of_a_site_do_not_all_knock_at_once(attempt: int) -> None:
    delays = sorted(delays_of(attempt + 1)[attempt] for _process in range(50))
    assert delays[-1] > 1.5 * delays[0]
    assert len(set(delays)) == 50
