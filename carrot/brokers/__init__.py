"""Ways to move a message: a family of brokers, one for each kind of virtual host."""

from __future__ import annotations

from carrot.brokers.base import Broker, Depth, Subscription
from carrot.virtual_host import VirtualHost


def make_broker(host: VirtualHost) -> Broker:
    """The broker for ``host``, by its URL's scheme. Opens nothing; pika is imported only where it is needed."""
    if host.is_database:
        from carrot.brokers.database import DatabaseBroker

        return DatabaseBroker(host)
    from carrot.brokers.amqp import AmqpBroker

    return AmqpBroker(host)


__all__ = ["Broker", "Depth", "Subscription", "make_broker"]
