"""RabbitMQ. This folder is the only place that imports pika; pika's errors and milliseconds stay inside it.

``connection`` is a thread with a connection that comes back; ``publisher`` and ``subscription`` are what runs on it;
``topology`` says how queues and exchanges are declared.
"""

from carrot.brokers.amqp.broker import AmqpBroker

__all__ = ["AmqpBroker"]
