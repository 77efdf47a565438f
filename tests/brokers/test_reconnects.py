"""How often, and when, a connection that is lost is tried again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from carrot.brokers.amqp.connection import FIRST_DELAY, LAST_DELAY, ConnectionThread
from carrot.virtual_host import VirtualHost


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
