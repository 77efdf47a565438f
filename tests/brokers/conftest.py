"""One virtual host, and receivers on it, as the worker processes of a service would be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from carrot import publisher
from carrot.brokers import Broker
from carrot.conf import get_queue
from tests.brokers.probe import Probe, opened
from tests.brokers.receiver import Receiver

Receivers = Callable[..., Receiver]


@pytest.fixture
def broker(broker_url: str, carrot_settings: dict[str, Any], settings: Any, transactional_db: None) -> Iterator[Broker]:
    """The broker this process publishes to. Each module says which by a fixture ``broker_url``."""
    settings.CARROT = {"default_broker": broker_url, **carrot_settings}
    yield publisher.broker_of(get_queue("default").host)
    publisher.close(2.0)


@pytest.fixture
def carrot_settings() -> dict[str, Any]:
    """Further keys of the setting CARROT; a test or a class overrides this."""
    return {}


@pytest.fixture
def receiver(broker: Broker) -> Iterator[Receivers]:
    """Makes receivers, each with a connection of its own, as if it were another process."""
    made: list[Receiver] = []

    def make(queue: str = "default") -> Receiver:
        made.append(Receiver(get_queue(queue)))
        return made[-1]

    yield make
    for each in made:
        each.end()


@pytest.fixture
def probe(broker_url: str) -> Iterator[Probe]:
    """Another program on the same virtual host; for RabbitMQ only."""
    with opened(broker_url) as probe:
        yield probe
