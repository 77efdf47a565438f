"""The embedded broker."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from carrot import clock
from carrot.brokers import Broker
from carrot.brokers.database import BUSY_LOOK, IDLE_LOOK
from carrot.models import MessageLog
from carrot.models.claim import Claim
from carrot.models.transitions import MessageLogQuerySet
from carrot.services import publish_message
from tests.brokers.conftest import Receivers
from tests.brokers.contract import BrokerContract
from tests.marks import committing
from tests.rows import ADD
from tests.servers.process import wait_until

pytestmark = committing


@pytest.fixture
def broker_url() -> str:
    return "database://"


class TestContract(BrokerContract):
    """The contract, on rows alone."""


@pytest.fixture
def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time passes: the seconds until the next look are those that were chosen, however slow the machine."""
    monkeypatch.setattr(clock, "monotonic", lambda: 1000.0)


@pytest.mark.usefixtures("stopped_clock")
def test_an_idle_queue_is_looked_at_ever_more_rarely_up_to_twice_a_second(broker: Broker, receiver: Receivers) -> None:
    here = receiver()
    pauses = []
    for _ in range(20):
        assert here.subscription.claim(1, here.worker.pk) == []
        pauses.append(here.subscription.next_look())
    assert pauses[0] < 2 * BUSY_LOOK
    assert pauses[0] < pauses[6] < pauses[19]
    assert 0.79 * IDLE_LOOK < pauses[19] < 1.21 * IDLE_LOOK


@pytest.mark.usefixtures("stopped_clock")
def test_a_queue_that_filled_the_whole_claim_is_looked_at_again_at_once(broker: Broker, receiver: Receivers) -> None:
    here = receiver()
    for number in range(3):
        publish_message(ADD, number, 0)
    here.subscription.claim(2, here.worker.pk)
    assert here.subscription.has_work()
    assert here.subscription.next_look() == 0.0
    here.subscription.claim(2, here.worker.pk)
    assert 0.0 < here.subscription.next_look() < 2 * BUSY_LOOK


def test_a_publish_during_the_look_is_looked_for_at_once(
    broker: Broker, receiver: Receivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = receiver()
    look = MessageLogQuerySet.claim_next

    def look_and_publish(self: MessageLogQuerySet, *args: Any) -> list[Claim]:
        found = look(self, *args)
        publish_message(ADD, 1, 0)
        return found

    monkeypatch.setattr(MessageLogQuerySet, "claim_next", look_and_publish)
    assert here.subscription.claim(1, here.worker.pk) == []
    assert here.subscription.next_look() == 0.0


def test_a_publish_in_the_same_process_ends_the_wait(broker: Broker, receiver: Receivers) -> None:
    here = receiver()
    for _ in range(20):
        here.subscription.claim(1, here.worker.pk)
    assert not here.subscription.has_work()
    publish_message(ADD, 1, 0)
    assert here.woken.is_set()
    assert here.subscription.has_work()


def test_a_publish_into_another_queue_does_not(broker: Broker, receiver: Receivers) -> None:
    here = receiver()
    here.subscription.claim(1, here.worker.pk)
    broker.ring([MessageLog(task=ADD, uuid="0" * 32, queue="other", routing_key="other")])
    assert not here.woken.is_set()


def test_a_row_whose_bell_is_set_for_later_is_not_claimed_before(broker: Broker, receiver: Receivers) -> None:
    here = receiver()
    row = publish_message(ADD, 1, 0)
    MessageLog.objects.update(ring_at=clock.now() + timedelta(seconds=60))
    assert here.subscription.claim(1, here.worker.pk) == []
    MessageLog.objects.update(ring_at=clock.now() - timedelta(seconds=1))
    assert [claim.id for claim in here.subscription.claim(1, here.worker.pk)] == [row.pk]


def test_it_holds_no_messages_to_count_and_starts_no_thread(broker: Broker, receiver: Receivers) -> None:
    import threading

    before = threading.active_count()
    here = receiver()
    publish_message(ADD, 1, 0)
    assert broker.depth(here.subscription.queue, 1.0) is None
    broker.send_marker(here.subscription.queue, clock.now())
    assert wait_until(here.subscription.has_work, 10.0)
    assert threading.active_count() == before
    assert broker.describe() == "embedded broker"
