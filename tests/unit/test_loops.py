"""Loops survive the database and the broker, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from django.db import OperationalError

from carrot import loops
from carrot.exceptions import BrokerUnreachable
from carrot.loops import Loop
from tests.servers.process import wait_until


class Counting(Loop):
    def __init__(self, step: Callable[[int], float]) -> None:
        super().__init__("counting")
        self.count = 0
        self._step = step

    def step(self) -> float:
        self.count += 1
        return self._step(self.count)

    def end(self) -> None:
        self.stop()
        self.join(5.0)
        assert not self.is_alive()


@pytest.mark.parametrize("error", [OperationalError("away"), BrokerUnreachable("away")])
def test_a_database_or_a_broker_that_fails_is_waited_for_ever_longer(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loops, "FIRST_RETRY", 0.01)
    done = threading.Event()

    def step(count: int) -> float:
        if count <= 3:
            raise error
        done.set()
        return 60.0

    loop = Counting(step)
    loop.start()
    assert done.wait(5.0)
    loop.end()
    assert caplog.text.count("carrot-counting waits: away") == 1  # the same outage


def test_any_other_error_is_logged_and_the_loop_goes_on_as_it_would_come_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The other threads of the process are well; a new process would run into the same error."""
    monkeypatch.setattr(loops, "FIRST_RETRY", 0.01)
    done = threading.Event()

    def step(count: int) -> float:
        if count == 1:
            raise RuntimeError("a bug")
        done.set()
        return 60.0

    loop = Counting(step)
    loop.start()
    assert done.wait(5.0)
    loop.end()
    assert "carrot-counting failed; it goes on." in caplog.text
    assert "RuntimeError: a bug" in caplog.text


def test_a_poke_ends_the_wait_and_a_stop_the_loop() -> None:
    loop = Counting(lambda _count: 60.0)
    loop.start()
    assert wait_until(lambda: loop.count == 1, 5.0)
    loop.poke()
    assert wait_until(lambda: loop.count == 2, 5.0)
    loop.end()
    assert loop.count == 2


def test_it_ticks_as_long_as_it_moves() -> None:
    loop = Counting(lambda _count: 0.01)
    before = loop.ticked_at
    loop.start()
    assert wait_until(lambda: loop.ticked_at > before, 5.0)
    loop.end()
