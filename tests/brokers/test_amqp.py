"""RabbitMQ."""

from __future__ import annotations

import pytest

from tests.brokers.contract import BrokerContract


@pytest.fixture
def broker_url(amqp_url: str) -> str:
    return amqp_url


class TestContract(BrokerContract):
    """The contract, over a real server."""
