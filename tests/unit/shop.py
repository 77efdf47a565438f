"""A claimer with a queue and an executor, without the worker process around them."""

from __future__ import annotations

from queue import SimpleQueue

from carrot.board import Board, Slot
from carrot.brokers.database import DatabaseBroker, DatabaseSubscription
from carrot.claimer import Claimer, Lane
from carrot.conf import get_queue, get_settings
from carrot.executor import Ended, Executor
from carrot.models.claim import Held, Outcome
from tests.rows import new_worker
from tests.servers.process import wait_until

TIMEOUT = 10.0


class Shop:
    """A claimer with one queue, ``default`` on the embedded broker, and its executor."""

    def __init__(self, threads: int = 1, patience: float = 0.0) -> None:
        self.worker = new_worker()
        self.held: Held = {}
        self.full = False
        self.slot: Slot = Board(1, threads).slots[0]
        self.slot.prolong(float("inf"), 30.0)
        self.outcomes: SimpleQueue[Outcome] = SimpleQueue()
        queue = get_queue("default")
        broker = DatabaseBroker(queue.host)
        self.executor = Executor(
            "default",
            threads,
            self.slot,
            0,
            self._finished,
            self._ended,
            log_limit=4096,
            output_limit=4096,
            patience=patience,
        )
        self.subscription = DatabaseSubscription(queue, lambda: self.claimer.wake())
        self.lane = Lane("default", broker, self.subscription, self.executor)
        self.claimer = Claimer(self.worker.pk, self.held, self.slot, lambda: self.full, get_settings())
        self.claimer.add(self.lane)

    def _finished(self, ended: Ended) -> None:
        outcome = ended.outcome
        self.held.pop((outcome.claim.id, outcome.claim.fence), None)
        self.outcomes.put(outcome)

    def _ended(self) -> None:
        self.claimer.ended(self.lane)

    def end(self) -> None:
        if self.claimer.is_alive():
            self.claimer.stop()
            self.claimer.join(TIMEOUT)
            assert not self.claimer.is_alive()
        self.executor.stop()
        assert wait_until(lambda: not self.executor.alive(), TIMEOUT)
        for thread in self.executor._threads:
            thread.join(TIMEOUT)
