"""How long to look."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from tests.brokers.conftest import broker, carrot_settings, probe, receiver
from tests.fuzz.strategies import LONG

__all__ = ["broker", "carrot_settings", "probe", "receiver"]

# Loaded here, as each test takes the profile of the moment in which its module is imported.
settings.register_profile(
    "carrot",
    derandomize=not LONG,
    deadline=None,
    # The fixtures here are made once for all examples of a test, and do not mind.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("carrot")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Each of them is a hundred tests."""
    item.add_marker("slow")
