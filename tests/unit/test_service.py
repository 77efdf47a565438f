"""The master: what it does about children that die. The rest is in tests/acceptance/test_service.py."""

from __future__ import annotations

import pytest

from carrot import clock
from carrot.conf import CarrotSettings
from carrot.service import LAST_DELAY, Child, Service


@pytest.mark.parametrize(("lease", "longest"), [(30.0, LAST_DELAY), (2.0, 0.5)])
def test_a_maintenance_process_that_dies_again_and_again_is_there_before_the_leases_end(
    lease: float, longest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "monotonic", lambda: 1000.0)
    service = Service(CarrotSettings(lease=lease, heartbeat=lease / 6), [])
    delays = []
    for pid in range(10):
        child = service._children[pid] = Child(pid, None, 999.0)
        service._ended(child, 9)
        delays.append(service._start_at[False] - 1000.0)
    assert delays == sorted(delays)
    assert delays[0] < 0.5
    assert delays[-1] == pytest.approx(longest)
