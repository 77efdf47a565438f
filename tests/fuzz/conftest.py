"""The fuzz tests work with the fixtures of the brokers' tests."""

from __future__ import annotations

import pytest

from tests.brokers.conftest import broker, carrot_settings, probe, receiver

__all__ = ["broker", "carrot_settings", "probe", "receiver"]


def pytest_itemcollected(item: pytest.Item) -> None:
    """Each of them is a hundred tests."""
    item.add_marker("slow")
