"""Claims tasks and feeds the executors: one thread a worker process.

Receives claims from the subscriptions; hands them on to the executors of their queues, and gives back what cannot soon
run. Claims only what can soon run: nobody holds a task behind a long one while another worker is idle.
"""

from __future__ import annotations

import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Sequence

from django.db import Error as DatabaseFailure

from carrot import clock, database, publisher
from carrot.board import Slot
from carrot.brokers import Broker, Subscription
from carrot.conf import CarrotSettings
from carrot.executor import Executor
from carrot.models import MessageLog
from carrot.models.claim import Claim, Held
from carrot.services import messages_of

logger = logging.getLogger(__name__)

#: Seconds of work that may lie ready behind the running tasks.
AHEAD = 0.05
#: Tasks that may lie ready behind the running ones, however short they are.
MAX_AHEAD = 250
#: Seconds without one task ending, all threads busy, after which ready tasks go back.
STUCK = 0.2
#: Seconds until a task that does not fit the code of this process is rung again, more or less by half: at regular times
#: RabbitMQ, which serves consumers in turn, could give each of several such tasks to the wrong one again, for ever.
MISFIT_DELAY = 5.0
#: Reasons for that which are remembered, so that each is said once a minute.
MISFITS = 100
#: Seconds to wait after a failure.
RETRY = 0.5
#: Seconds between two log lines about failures that are not the database's.
REPEAT = 60.0
#: Seconds a suspect waits for the other tasks of its process to end, doubled with each of so many hand-backs.
PATIENCE = 1.0
MAX_HAND_BACKS = 6


class Lane:
    """One queue in one worker process: where its tasks come from and where they run."""

    def __init__(self, name: str, broker: Broker, subscription: Subscription, executor: Executor) -> None:
        self.name = name
        self.broker = broker
        self.subscription = subscription
        self.executor = executor
        self._ended = 0
        self._ended_at = clock.monotonic()

    def ahead(self) -> int:
        """How many tasks may lie ready: many while they are tiny, none while they are long or unknown."""
        mean = self.executor.mean
        return 0 if mean < 0 else min(MAX_AHEAD, int(self.executor.threads * AHEAD / max(mean, 1e-5)))

    def stuck(self) -> bool:
        """All threads have been busy for a while and not one task has ended."""
        ended, now = self.executor.ended(), clock.monotonic()
        if ended != self._ended or self.executor.load() < self.executor.threads:
            self._ended, self._ended_at = ended, now
        return now - self._ended_at > STUCK

    def room(self) -> int:
        """How many tasks to claim now. 0 until half of what may lie ready has run, so that claims come in batches."""
        ahead, load = self.ahead(), self.executor.load()
        return 0 if load > self.executor.threads + ahead // 2 else self.executor.threads + ahead - load

    def hungry(self) -> bool:
        return self.executor.load() <= self.executor.threads + self.ahead() // 2


class Claimer(threading.Thread):
    """``held`` is the worker's memory of its claims: entered here, left when an outcome is recorded."""

    def __init__(
        self, worker_id: int, held: Held, slot: Slot, full: Callable[[], bool], settings: CarrotSettings
    ) -> None:
        super().__init__(name="carrot-claimer", daemon=True)
        self._worker_id = worker_id
        self._lanes: dict[str, Lane] = {}
        self._held = held
        self._slot = slot
        self._full = full
        self._wake = threading.Event()
        self._ending = False
        self._waiting = False
        self._complain = database.Complaint(logger)
        self._failure_told_at = -REPEAT
        self._misfits: dict[str, database.Complaint] = {}
        self._solo: deque[tuple[Lane, Claim]] = deque()
        self._solo_since = 0.0
        self._strangers: set[tuple[int, int]] = set()
        self._confirm_timeout = settings.confirm_timeout
        self._audit_interval = settings.reconcile_interval
        self._audit_at = clock.monotonic() + self._audit_interval
        #: When the thread was last seen to be well, by the monotonic clock.
        self.ticked_at = clock.monotonic()

    def add(self, lane: Lane) -> None:
        """Before the thread starts. A subscription may call :meth:`wake` even before."""
        self._lanes[lane.name] = lane

    # -- any thread -----------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Something came. Cheap while the thread is awake."""
        if self._waiting:
            self._wake.set()

    def ended(self, lane: Lane) -> None:
        """A task of ``lane`` ended: there may be room again."""
        if self._waiting and (lane.hungry() or self._solo):
            self._wake.set()

    def stop(self) -> None:
        """Claims nothing more, gives back what was not started, and ends."""
        self._ending = True
        self._wake.set()

    # -- this thread ----------------------------------------------------------------------------------------------

    def run(self) -> None:
        with database.closing():
            while not self._ending:
                self.ticked_at = clock.monotonic()
                try:
                    self._step()
                except DatabaseFailure as error:
                    # Nothing was acknowledged. Where the fate of a commit is unknown, the audit finds the rows.
                    self._complain("Claiming waits for the database: %s", str(error).strip())
                    self._recover()
                except Exception:
                    # A mistake of ours: the end of this thread would be that of the process, and of the tasks that run
                    # in it.
                    if clock.monotonic() - self._failure_told_at >= REPEAT:
                        self._failure_told_at = clock.monotonic()
                        logger.exception("Claiming failed; it is tried again, and told once a minute.")
                    self._recover()
            self._leave()

    def _recover(self) -> None:
        database.drop_broken()
        self._audit_at = min(self._audit_at, clock.monotonic() + RETRY * 2)
        self._wake.wait(RETRY)  # whatever there is to claim: only a stop ends it
        self._wake.clear()

    def _step(self) -> None:
        if clock.monotonic() >= self._audit_at:
            self._audit()
        for lane in self._lanes.values():
            self._serve(lane)
        if self._solo:
            self._run_solo()
        busy = any(lane.executor.waiting() for lane in self._lanes.values()) or self._solo
        pause = min((lane.subscription.next_look() for lane in self._lanes.values()), default=1.0)
        if not any(self._may_claim(lane) for lane in self._lanes.values()):
            pause = max(pause, 0.02)
        # Awake often while anything lies ready, to notice that it does not get its turn.
        self._wait(min(pause, STUCK / 4 if busy else 0.25))

    def _wait(self, seconds: float) -> None:
        """Sleeps until woken. ``_waiting`` is raised before the last look, so that no wake-up falls in between."""
        self._waiting = True
        if not self._ending and not any(self._may_claim(lane) for lane in self._lanes.values()):
            self._wake.wait(seconds)
        self._waiting = False
        self._wake.clear()

    def _may_claim(self, lane: Lane) -> bool:
        return not self._solo and lane.room() > 0 and lane.subscription.has_work() and self._slot.may_start()

    def _serve(self, lane: Lane) -> None:
        if refused := lane.executor.refused():  # the lease may hold again by now; their turn is over
            self._hand_back(refused, 0.0)
        misfits: dict[str, list[Claim]] = {}
        for claim, why in lane.executor.misfits():
            misfits.setdefault(why, []).append(claim)
        for why, claims in misfits.items():
            # Each comes back every few seconds. Reasons may be without number, as they name what was published.
            if len(self._misfits) >= MISFITS:
                self._misfits.clear()
            complain = self._misfits.setdefault(why, database.Complaint(logger))
            complain("Tasks wait for a worker that can start them: %s", why)
            self._hand_back(claims, MISFIT_DELAY * random.uniform(0.5, 1.5), why)  # noqa: S311
        if lane.stuck() or self._full() or self._solo or not self._slot.may_start():
            hold_none = self._solo or self._full() or not self._slot.may_start()
            free = 0 if hold_none else lane.executor.threads - lane.executor.load()
            lane.subscription.demand(max(0, free))
            if lane.executor.waiting():
                self._hand_back(lane.executor.take_back(), 0.0)
            return
        lane.subscription.demand(lane.executor.threads + lane.ahead())
        if self._may_claim(lane):
            claims = lane.subscription.claim(lane.room(), self._worker_id)
            self._complain.over()
            for claim in claims:
                self._held[claim.id, claim.fence] = claim
                if claim.crashes:
                    if not self._solo:
                        self._solo_since = clock.monotonic()
                    self._solo.append((lane, claim))
                else:
                    lane.executor.put(claim)

    def _run_solo(self) -> None:
        """A task that was running when a worker died runs alone: if it is the culprit, no neighbour is blamed again."""
        if any(lane.executor.load() for lane in self._lanes.values()):
            hand_backs = self._solo[0][1].hand_backs
            patience = PATIENCE * 2 ** min(hand_backs, MAX_HAND_BACKS)
            # After a few rounds it waits here until the process is empty, which it becomes, as nothing is claimed.
            if hand_backs < MAX_HAND_BACKS and clock.monotonic() - self._solo_since > patience:
                claims, self._solo = [claim for _lane, claim in self._solo], deque()
                self._hand_back(claims, patience)
            return
        for each in self._lanes.values():
            each.subscription.demand(0)  # nothing else is claimed meanwhile: others shall have the messages
        lane, claim = self._solo.popleft()
        self._solo_since = clock.monotonic()
        executor = lane.executor
        executor.put(claim)
        while executor.load() and not self._ending:
            self.ticked_at = clock.monotonic()
            if clock.monotonic() >= self._audit_at:
                self._audit()
            self._waiting = True
            self._wake.wait(0.05)
            self._waiting = False
            self._wake.clear()

    def _hand_back(self, claims: Sequence[Claim], ring_in: float, note: str = "") -> None:
        """Gives unstarted claims back; their bells are rung from here at once, or by the relay after ``ring_in`` s."""
        if not claims:
            return
        for claim in claims:
            # First: should a statement below fail, the audit finds them as strangers, and releases them.
            self._held.pop((claim.id, claim.fence), None)
        at_once = ring_in == 0.0
        # By the queue of the row, which a routing key may have brought into another one.
        embedded = {name for name, lane in self._lanes.items() if lane.broker.rows_are_messages}
        rows = MessageLog.objects.hand_back(
            [claim for claim in claims if claim.queue not in embedded],
            ring_in=self._confirm_timeout if at_once else ring_in,
            note=note,
        )
        MessageLog.objects.hand_back([claim for claim in claims if claim.queue in embedded], ring_in=ring_in, note=note)
        if at_once:
            publisher.ring(messages_of(rows, self._confirm_timeout))

    def _audit(self) -> None:
        """Releases rows that are claimed in this worker's name and are not in its memory: a commit whose answer was
        lost.

        Only what two looks in a row have found: a claim may be committed and not yet entered in ``held``… not in this
        thread, but an outcome may be recorded between our query and our look into ``held``.
        """
        self._audit_at = clock.monotonic() + self._audit_interval
        mine = MessageLog.objects.filter(status="IN_PROGRESS", worker=self._worker_id)
        strangers = {pair for pair in mine.values_list("pk", "fence") if pair not in self._held}
        self._complain.over()
        lost = strangers & self._strangers
        if lost:
            logger.warning("%d task(s) were claimed without this worker knowing; they are released.", len(lost))
            MessageLog.objects.release(lost)
        self._strangers = strangers - lost
        if self._strangers:
            self._audit_at = clock.monotonic() + 1.0

    def _leave(self) -> None:
        """Gives back what was not started. The subscriptions are closed first, so that the bells go to others."""
        for lane in self._lanes.values():
            lane.subscription.close(1.0)
        claims = [claim for lane in self._lanes.values() for claim in lane.executor.take_back()]
        claims += [claim for _lane, claim in self._solo]
        try:
            self._hand_back(claims, 0.0)
        except DatabaseFailure as error:
            logger.warning(
                "%d unstarted task(s) could not be handed back (%s); another service will.", len(claims), error
            )
