"""What every broker promises: the contract of ``carrot/brokers/base.py`` as tests.

A module of this folder subclasses :class:`BrokerContract` and provides the fixture ``broker_url``.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence

import pytest
from django.db import OperationalError, transaction

from carrot import publisher
from carrot.brokers import Broker
from carrot.conf import get_queue, get_settings
from carrot.database import closing
from carrot.exceptions import BrokerRefused
from carrot.models import MessageLog, Status, WorkerProcess
from carrot.models.transitions import MessageLogQuerySet
from carrot.relay import Relay
from carrot.services import create_message, publish_many, publish_message
from tests.brokers.conftest import Receivers
from tests.brokers.receiver import MANY, Receiver
from tests.marks import committing
from tests.rows import ADD
from tests.servers.process import wait_until


def publish_numbers(count: int) -> list[MessageLog]:
    """Publishes ``add(0, 0)``, ``add(1, 0)``…, and waits until the broker has them."""
    rows = publish_many(create_message(ADD, "default", task_args=(number, 0)) for number in range(count))
    assert publisher.flush(10.0)
    return rows


def all_consume(broker: Broker, receivers: Sequence[Receiver]) -> bool:
    """Whether messages would go to all of them. Where the rows are the messages, they need nothing for it."""
    try:
        depth = broker.depth(get_queue("default"), 5.0)
    except BrokerRefused:
        return False  # there is no such queue yet
    return depth is None or depth.consumers == len(receivers)


@committing
class BrokerContract:
    """Subclassed once for every broker."""

    def test_a_published_task_is_claimed_with_everything_its_row_holds(
        self, broker: Broker, receiver: Receivers
    ) -> None:
        row = publish_message(ADD, 1, b="é", priority=3)
        here = receiver()
        (claim,) = here.collect(1)
        assert (claim.id, claim.uuid, claim.task) == (row.pk, row.uuid, ADD)
        assert (claim.args, claim.kwargs, claim.queue, claim.priority) == ([1], {"b": "é"}, "default", 3)
        assert (claim.fence, claim.tries, claim.crashes, claim.hand_backs) == (1, 1, 0, 0)
        row.refresh_from_db()
        assert (row.status, row.worker_id, row.ring_at) == (Status.IN_PROGRESS, here.worker.pk, None)

    def test_of_a_hundred_waiting_tasks_the_highest_priorities_come_first(
        self, broker: Broker, receiver: Receivers
    ) -> None:
        priorities = [number % 11 for number in range(100)]
        random.Random(1).shuffle(priorities)
        publish_many(create_message(ADD, "default", priority=each, task_args=(each, 0)) for each in priorities)
        assert publisher.flush(10.0)
        here = receiver()
        here.subscription.demand(MANY)
        here.collect(100, limit=7)
        assert here.arguments() == sorted(priorities, reverse=True)

    def test_tasks_of_one_priority_come_in_the_order_they_were_published(
        self, broker: Broker, receiver: Receivers
    ) -> None:
        publish_numbers(20)
        here = receiver()
        here.collect(20, limit=3)
        assert here.arguments() == list(range(20))

    def test_a_task_whose_worker_was_lost_does_not_wait_behind_a_backlog_again(
        self, broker: Broker, receiver: Receivers
    ) -> None:
        publish_numbers(1)
        here = receiver()
        (claim,) = here.collect(1)
        here.subscription.demand(0)
        publish_numbers(20)
        MessageLog.objects.release([(claim.id, claim.fence)])
        Relay(get_settings()).step()
        assert publisher.flush(10.0)
        there = receiver()
        there.subscription.demand(MANY)
        there.collect(21, limit=1)
        assert (there.claims[0].id, there.claims[0].priority) == (claim.id, 0)

    def test_a_claim_takes_no_more_than_its_limit(self, broker: Broker, receiver: Receivers) -> None:
        publish_numbers(10)
        here = receiver()
        here.subscription.demand(MANY)
        sizes = []
        while len(here.claims) < 10:
            here.until(lambda: len(here.claims) > sum(sizes), "further claim", limit=3)
            sizes.append(len(here.claims) - sum(sizes))
            assert MessageLog.objects.filter(status=Status.IN_PROGRESS).count() == len(here.claims)
        assert max(sizes) == 3

    def test_who_needs_nothing_hands_back_all_he_has_not_claimed(self, broker: Broker, receiver: Receivers) -> None:
        here = receiver()
        here.subscription.demand(MANY)
        publish_numbers(30)
        here.collect(4, limit=4)
        here.subscription.demand(0)
        there = receiver()
        there.subscription.demand(MANY)
        there.collect(26)
        assert sorted(here.arguments() + there.arguments()) == list(range(30))
        assert here.claim() == []

    def test_who_needs_tasks_again_gets_them_again(self, broker: Broker, receiver: Receivers) -> None:
        here = receiver()
        here.subscription.demand(0)
        publish_numbers(3)
        here.subscription.demand(0)
        here.subscription.demand(MANY)
        here.collect(3)
        assert here.arguments() == [0, 1, 2]

    def test_closing_hands_back_what_was_not_claimed_and_may_be_repeated(
        self, broker: Broker, receiver: Receivers
    ) -> None:
        here = receiver()
        here.subscription.demand(MANY)
        publish_numbers(10)
        here.collect(2, limit=2)
        here.subscription.close(1.0)
        here.subscription.close(1.0)
        assert not here.subscription.has_work()
        there = receiver()
        there.collect(8)
        assert sorted(here.arguments() + there.arguments()) == list(range(10))

    def test_a_publish_that_is_rolled_back_gives_nothing(self, broker: Broker, receiver: Receivers) -> None:
        def publish_and_fail() -> None:
            with transaction.atomic():
                publish_message(ADD, "rolled back", 0)
                raise RuntimeError

        with pytest.raises(RuntimeError):
            publish_and_fail()
        publish_message(ADD, "committed", 0)
        here = receiver()
        here.collect(1)
        assert here.arguments() == ["committed"]
        assert MessageLog.objects.count() == 1

    def test_nothing_is_to_be_had_before_the_commit(self, broker: Broker, receiver: Receivers) -> None:
        here = receiver()
        with transaction.atomic():
            publish_message(ADD, "late", 0)
            assert publisher.flush(5.0)
            assert not here.woken.wait(0.2)
        here.collect(1)
        assert here.arguments() == ["late"]

    def test_a_bell_rung_twice_is_one_task(self, broker: Broker, receiver: Receivers) -> None:
        message = publish_message(ADD, "doubled", 0).to_message()
        broker.ring([message, message])
        here = receiver()
        here.collect(1)
        broker.ring([message])
        publish_message(ADD, "next", 0)
        here.until(lambda: "next" in here.arguments())
        assert here.arguments() == ["doubled", "next"]
        assert MessageLog.objects.get(pk=here.claims[0].id).fence == 1

    def test_two_who_race_for_500_tasks_get_each_of_them_once(self, broker: Broker, receiver: Receivers) -> None:
        receivers = [receiver(), receiver()]
        for each in receivers:
            each.subscription.demand(MANY)
        assert wait_until(lambda: all_consume(broker, receivers), 15.0), "else one of them would be sent all"
        publish_numbers(500)
        ends, start = threading.Event(), threading.Barrier(len(receivers))

        def race(here: Receiver) -> None:
            with closing():
                here.until(lambda: here.claims, "first claim", limit=20)
                start.wait(30.0)  # else one of them could be through before the other has begun
                while not ends.is_set():
                    here.claim(limit=20)

        threads = [threading.Thread(target=race, args=(each,)) for each in receivers]
        for thread in threads:
            thread.start()
        try:
            assert wait_until(lambda: sum(len(each.claims) for each in receivers) >= 500, 30.0)
        finally:
            ends.set()
            for thread in threads:
                thread.join()
        claims = [claim for each in receivers for claim in each.claims]
        assert sorted(claim.args[0] for claim in claims) == list(range(500))
        assert {claim.fence for claim in claims} == {1}

    def test_a_worker_declared_lost_gets_nothing_and_keeps_nothing_from_the_others(
        self, broker: Broker, receiver: Receivers
    ) -> None:
        lost = receiver()
        (row,) = publish_numbers(1)
        MessageLog.objects.confirmed([row.uuid], 0)  # as the publisher notes after a second
        WorkerProcess.objects.end(lost.worker.pk, "lost")
        assert wait_until(lost.subscription.has_work, 10.0)
        assert lost.claim() == []
        lost.subscription.demand(0)
        there = receiver()
        relay = Relay(get_settings())  # every service has one

        def has_come() -> bool:
            relay.step()
            return bool(there.claims)

        there.until(has_come, "task for the one that lives")

    def test_a_claim_that_the_database_refused_is_made_later(
        self, broker: Broker, receiver: Receivers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        here = receiver()
        publish_numbers(1)
        with monkeypatch.context() as away:

            def refuse(*_: object, **__: object) -> None:
                raise OperationalError("the database is away")

            away.setattr(MessageLogQuerySet, "_take", refuse)
            with pytest.raises(OperationalError):
                here.collect(1)
        assert here.collect(1)[0].fence == 1

    def test_it_wakes_its_worker_when_something_comes(self, broker: Broker, receiver: Receivers) -> None:
        here = receiver()
        publish_numbers(1)
        assert here.woken.wait(10.0)
        here.collect(1)

    def test_it_can_be_rung_and_says_what_it_is(self, broker: Broker, receiver: Receivers) -> None:
        here = receiver()
        assert wait_until(broker.can_ring, 10.0)
        assert wait_until(lambda: not here.subscription.problem(), 10.0)
        assert broker.healthy()
        assert broker.describe()

    def test_it_may_be_closed_twice_and_used_again(self, broker: Broker, receiver: Receivers) -> None:
        publish_numbers(1)
        broker.close(2.0)
        broker.close(2.0)
        publish_numbers(1)
        here = receiver()
        here.collect(1, limit=1)
        here.broker.close(2.0)
        here.subscription = here.broker.subscribe(get_queue("default"), here.woken.set)
        here.collect(2)

    def test_a_subscription_may_be_closed_after_its_broker(self, broker: Broker, receiver: Receivers) -> None:
        here = receiver()
        publish_numbers(1)
        assert wait_until(here.subscription.has_work, 10.0)
        here.broker.close(2.0)
        here.subscription.demand(0)
        here.subscription.close(1.0)
        receiver().collect(1)
