"""A queue that somebody deletes while it is published to."""

from __future__ import annotations

import pytest

from carrot import publisher
from carrot.brokers import Broker
from carrot.brokers.amqp.publisher import AmqpPublisher
from carrot.message import Message
from carrot.models import MessageLog
from carrot.services import create_message, publish_many, publish_message
from tests.brokers.probe import Probe
from tests.marks import committing
from tests.rows import ADD
from tests.servers.process import wait_until

pytestmark = committing


@pytest.fixture
def broker_url(amqp_url: str) -> str:
    return amqp_url


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Message]:
    """Every message that is handed to RabbitMQ, each time."""
    messages: list[Message] = []
    publish = AmqpPublisher._publish

    def watched(self: AmqpPublisher, message: Message) -> None:
        messages.append(message)
        publish(self, message)

    monkeypatch.setattr(AmqpPublisher, "_publish", watched)
    return messages


def test_it_is_made_again_by_whoever_publishes_to_it(broker: Broker, probe: Probe, sent: list[Message]) -> None:
    publish_message(ADD, 0, 0)
    assert publisher.flush(10.0)
    for number in (1, 2):
        probe.channel.queue_delete("default")
        publish_many(create_message(ADD, "default", task_args=(number, other)) for other in range(20))
        assert publisher.flush(10.0)
        assert probe.ready() == 20
    assert len(sent) == 81, "each once more"
    assert not MessageLog.objects.exclude(note="").exists()
    assert wait_until(lambda: not MessageLog.objects.filter(ring_at__isnull=False).exists(), 10.0), "all are confirmed"


def test_a_message_that_no_queue_takes_is_sent_twice_before_its_row_says_so(
    broker: Broker, probe: Probe, sent: list[Message]
) -> None:
    row = publish_message(ADD, 0, 0, routing_key="nothing")
    assert publisher.flush(10.0)
    row.refresh_from_db()
    assert "nothing" in row.note
    assert len(sent) == 2
