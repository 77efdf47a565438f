"""Child processes of the service."""

from __future__ import annotations

import signal
import time

from carrot.forking import WakeUp


def test_a_ring_ends_the_wait_even_if_it_came_before() -> None:
    woken = WakeUp()
    woken.ring()
    begun = time.monotonic()
    woken.wait(10.0)
    assert time.monotonic() - begun < 5.0
    woken.wait(0.01)


def test_a_signal_that_comes_while_the_thread_waits_or_begins_to_ends_the_wait() -> None:
    woken = WakeUp()
    rung = 0

    def ring(_number: int, _frame: object) -> None:
        nonlocal rung
        rung += 1
        woken.ring()

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0003)  # at any moment of the loop below
        ends = time.monotonic() + 1.0
        while time.monotonic() < ends:
            woken.wait(10.0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
    assert rung > 100
