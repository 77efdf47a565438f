"""The real verbs as the model calls them: with tasks and workers by number, and fences by age.

Each method is one thing that a process of carrot does. Where that is more than a verb of the model layer, the part of
carrot that does it is called: the intake, the relay, the reconciler, the claimer's audit, the operations.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pika
import pytest
from django.db import transaction

from carrot import operations
from carrot.brokers.amqp.inbox import MARKER_TYPE
from carrot.brokers.amqp.intake import Delivery, Intake
from carrot.brokers.amqp.settlement import RowSettlement
from carrot.claimer import Claimer
from carrot.conf import get_queue, get_settings
from carrot.message import Message
from carrot.models import Installation, MessageLog, WorkerProcess, transitions
from carrot.models.claim import Claim, Held, Outcome
from carrot.reconciler import Reconciler
from carrot.relay import HOPELESS, REWIND, Relay
from carrot.serializers import DefaultMessageSerializer
from tests.model.table import FENCE, NOW, Table, Violation
from tests.model.world import COMPLETED, GONE, NEW, Row
from tests.rows import outcome_of

ADDRESS = "amqp://host:5672/v"


class Verbs(Table):
    """Every answer is in terms of the model, and hashable."""

    def __init__(self, tasks: int, monkeypatch: pytest.MonkeyPatch, *, rows_are_messages: bool) -> None:
        super().__init__(tasks, monkeypatch, rows_are_messages=rows_are_messages)
        self._queue = get_queue("default")
        self._settings = get_settings()
        self._site = str(Installation.objects.site())
        self._intake = Intake(self._queue, None)

    # -- publish --------------------------------------------------------------------------------------------------

    def published(self, seconds: float | None) -> Row:
        """The row as its publisher commits it, to be run now or after ``seconds``."""
        run_after = None if seconds is None else NOW + timedelta(seconds=seconds)
        message = Message(task=self.tasks[0].task, queue="default", routing_key="default", run_after=run_after)
        row = MessageLog.from_message(message, broker=ADDRESS, row_is_message=self.bells.rows_are_messages, ring_in=5.0)
        return self.row_of({**row.__dict__, "worker_id": None, "crashes": 0})

    def confirm(self, task: int, age: int) -> None:
        """The publisher writes that the broker has taken a message."""
        settlement = RowSettlement(ADDRESS)
        settlement.confirmed([self._message(task, age)])
        self.clock.seconds += 10.0
        settlement.tick()

    def return_unroutable(self, task: int) -> None:
        RowSettlement(ADDRESS).undeliverable([self._message(task, NEW)], "no queue takes it")

    # -- claims ---------------------------------------------------------------------------------------------------

    def take(self, worker: int, tasks: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The worker claims what was delivered; the tasks claimed, and those whose message goes back to the broker."""
        batch = [Delivery(1, task, self._properties(task), b"") for task in tasks]
        taken = self._intake.take(batch, self.workers[worker])
        return self._claimed(taken.claims), tuple(sorted(taken.back))

    def take_marker(self, worker: int) -> None:
        sent_at = NOW - timedelta(seconds=30)
        properties = pika.BasicProperties(type=MARKER_TYPE, headers={"carrot": {"site": self._site}})
        self._intake.take([Delivery(1, 1, properties, sent_at.isoformat().encode())], self.workers[worker])

    def claim_next(self, worker: int, limit: int) -> tuple[int, ...]:
        return self._claimed(MessageLog.objects.claim_next("default", limit, self.workers[worker]))

    def claim_late(self, task: int) -> tuple[int, ...]:
        """A claim that has read that its worker lives and waits for the row's lock. The process is killed, its worker
        counts as gone, and only then the claim gets the lock and is committed."""
        gone = WorkerProcess.objects.filter(pk=self.workers[GONE])
        gone.update(alive=True)
        claims = MessageLog.objects.claim([self.tasks[task].uuid], self.workers[GONE])
        gone.update(alive=False)
        return self._claimed(list(claims.values()))

    def _claimed(self, claims: list[Claim]) -> tuple[int, ...]:
        for claim in claims:
            if claim.fence != FENCE + 1 or claim.fence != MessageLog.objects.get(pk=claim.id).fence:
                raise Violation("a claim has no fence of its own")
        return tuple(sorted(self.keys.index(claim.id) for claim in claims))

    # -- the end of claims ----------------------------------------------------------------------------------------

    def record(self, worker: int, outcomes: tuple[tuple[int, int, str], ...]) -> None:
        """The recorder writes outcomes, given as task, age of the claim's fence, status."""
        self._end(worker, outcomes, MessageLog.objects.record)

    def complete(self, worker: int, task: int, age: int) -> bool:
        """A task that is one transaction with its end comes to it; whether that could be committed."""

        def write(outcomes: list[Outcome]) -> set[int]:
            with transaction.atomic():
                return {outcome.claim.id for outcome in outcomes if MessageLog.objects.complete(outcome)}

        return bool(self._end(worker, ((task, age, COMPLETED),), write))

    def _end(
        self, worker: int, outcomes: tuple[tuple[int, int, str], ...], write: Callable[[list[Outcome]], set[int]]
    ) -> set[int]:
        before = {row.pk: row for row in MessageLog.objects.filter(pk__in=self.keys)}
        written = write([outcome_of(self._claim(task, age), status, end_time=NOW) for task, age, status in outcomes])
        for task, pk in enumerate(self.keys):
            was, now = before[pk], MessageLog.objects.get(pk=pk)
            if now.status == was.status:
                continue
            if (was.status, was.worker_id) != ("IN_PROGRESS", self.workers[worker]):
                raise Violation(f"task {'AB'[task]} was ended by an outcome of a worker that does not have it")
            if (task, NEW, now.status) not in outcomes:
                raise Violation(f"task {'AB'[task]} was ended by an outcome of an older claim")
            if pk not in written:
                raise Violation(f"task {'AB'[task]} was ended, and its worker was told that it came late")
        return written

    def hand_back(self, worker: int, task: int, age: int, ring_in: float) -> None:
        """The claimer gives back what was not started, and rings it at once (0) or has it rung ``ring_in`` s later."""
        claim = self._claim(task, age)
        claimer = self._claimer(worker, {(claim.id, claim.fence): claim})
        claimer._hand_back([claim], ring_in)

    def audit(self, worker: int, held: tuple[tuple[int, int], ...], strangers: tuple[int, ...]) -> tuple[int, ...]:
        """One audit, after one that has found ``strangers``; the strangers it remembers for the next."""
        claims = [self._claim(task, age) for task, age in held]
        claimer = self._claimer(worker, {(claim.id, claim.fence): claim for claim in claims})
        claimer._strangers = {(self.keys[task], FENCE) for task in strangers}
        claimer._audit()
        return tuple(sorted(self.keys.index(pk) for pk, fence in claimer._strangers if fence == FENCE))

    # -- lost workers ---------------------------------------------------------------------------------------------

    def beat(self, worker: int) -> bool:
        return self.workers[worker] in WorkerProcess.objects.beat([self.workers[worker]])

    def end(self, worker: int) -> bool:
        return WorkerProcess.objects.end(self.workers[worker], "the model says so")

    def blame(self, worker: int, tasks: tuple[int, ...]) -> None:
        MessageLog.objects.blame([self.keys[task] for task in tasks], self.workers[worker], "it was killed")

    def orphans(self) -> tuple[int, ...]:
        return tuple(sorted(self.keys.index(pk) for pk, _fence, _worker in MessageLog.objects.orphans()))

    def release(self, task: int, age: int, ring_in: float) -> None:
        MessageLog.objects.release([(self.keys[task], self.fence(age))], ring_in=ring_in, skip_locked=True)

    # -- bells ----------------------------------------------------------------------------------------------------

    def relay(self, ahead: bool) -> None:
        """One round of the relay; ``ahead``: of one whose host's clock is a day ahead."""
        relay = Relay(self._settings)
        relay._settings_checked, relay._rewound_at = True, self.clock.seconds
        self.clock.ahead = timedelta(days=1 if ahead else 0)
        relay.step()
        due = MessageLog.objects.due(self.clock.now()).exists()
        self.clock.ahead = timedelta(0)
        if due:
            raise Violation("a bell that was rung is still due: the relay rings it without a pause")

    def relay_overtaken(self, worker: int, tasks: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """One round of the relay; as soon as its statement is committed, the worker claims what was delivered to it."""
        real, taken = transitions.update_returning, []
        with pytest.MonkeyPatch.context() as patch:

            def change(*args: Any, **kwargs: Any) -> Any:
                patch.undo()
                changed = real(*args, **kwargs)
                taken.append(self.take(worker, tasks))
                return changed

            patch.setattr(transitions, "update_returning", change)
            self.relay(False)
        return taken[0]

    def rewind(self) -> None:
        MessageLog.objects.rewind(HOPELESS + REWIND)

    def reconcile(self, ready: int) -> int:
        """Two looks of the reconciler at a queue with ``ready`` messages; how many markers it sent."""
        self.bells.ready, self.bells.markers = ready, 0
        reconciler = Reconciler([self._queue], self._settings)
        reconciler.step()
        reconciler.step()
        return self.bells.markers

    # -- operators ------------------------------------------------------------------------------------------------

    def withdraw(self, task: int) -> None:
        operations.withdraw([self.keys[task]])

    def requeue(self, task: int) -> None:
        operations.requeue([self.keys[task]])

    def purge(self) -> None:
        operations.purge_queue("default")

    def requeue_all(self) -> None:
        operations.requeue_all()

    # -- what a process would have ----------------------------------------------------------------------------------

    def _message(self, task: int, age: int) -> Message:
        row = self.tasks[task]
        row.fence = self.fence(age)
        return row.to_message()

    def _properties(self, task: int) -> Any:
        kwargs = DefaultMessageSerializer(self._message(task, NEW), site=self._site).publish_kwargs()
        return pika.BasicProperties(**kwargs["properties"])

    def _claim(self, task: int, age: int) -> Claim:
        row = self.tasks[task]
        return Claim(row.pk, row.uuid, self.fence(age), row.task, [], {}, "default", "code", 0, 1, 0, 0)

    def _claimer(self, worker: int, held: Held) -> Claimer:
        slot: Any = SimpleNamespace(may_start=lambda: True)
        claimer = Claimer(self.workers[worker], held, slot, lambda: False, self._settings)
        lane: Any = SimpleNamespace(name="default", broker=self.bells)
        claimer._lanes["default"] = lane
        return claimer
