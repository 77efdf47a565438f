"""Every change of status of a task, and who else may touch the row at that moment.

Two invariants hold after each of them (``docs/architecture.md``):

W  a PUBLISHED or WAITING row has exactly one armed wake-up: a message in the broker (``ring_at`` NULL) or a
``ring_at``;
O  an IN_PROGRESS row is in the memory of a live worker, or somebody will release it.

Each verb is one statement (or one transaction) that tests the state it starts from, so that of two that race one wins
and the other changes nothing. A claim's own verbs compare the fence as well.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import connections, models, router, transaction
from django.db.models import Case, F, Q, Value, When

from carrot import clock
from carrot.arguments import clean_text
from carrot.models.claim import Claim, Outcome
from carrot.models.returning import update_returning

if TYPE_CHECKING:
    from carrot.models.message_log import MessageLog

#: A task that took its worker process with it so often is FAILED.
MAX_CRASHES = 3
WORKER_LOST = "worker lost"


class MessageLogQuerySet(models.QuerySet["MessageLog"]):
    """Queries and transitions of tasks."""

    # -- claims ---------------------------------------------------------------------------------------------------

    def claim(self, uuids: Sequence[UUID], worker_id: int) -> dict[UUID, Claim]:
        """Takes the tasks whose messages arrived: PUBLISHED -> IN_PROGRESS, fence + 1.

        Who else may touch the row: other claimers of a doubled message, Withdraw, the reconciler. Plain row locks,
        taken in id order, never SKIP LOCKED: a skipped row would have its message acknowledged unclaimed. What is not
        returned is final, running, unknown, or has its own wake-up, so its message may be acknowledged as well.
        """
        rows = self.filter(uuid__in=uuids, status__in=("PUBLISHED", "HANDED_OVER"))
        return {claim.uuid: claim for claim in self._take(rows.order_by("pk"), worker_id, skip_locked=False)}

    def claim_next(self, queue: str, limit: int, worker_id: int) -> list[Claim]:
        """Takes up to ``limit`` waiting tasks of ``queue``, highest priority first, then oldest: the embedded broker.

        SKIP LOCKED where the database has it, as here a skipped row stays waiting for the next look.
        """
        awake = Q(ring_at__isnull=True) | Q(ring_at__lte=clock.now())
        rows = self.filter(awake, queue=queue, status="PUBLISHED").order_by("-priority", "pk")[:limit]
        claims = self._take(rows, worker_id, skip_locked=True)
        return sorted(claims, key=lambda claim: (-claim.priority, claim.id))

    def _take(self, rows: MessageLogQuerySet, worker_id: int, *, skip_locked: bool) -> list[Claim]:
        from carrot.models.worker_process import WorkerProcess

        alive = WorkerProcess.objects.using(self.db).filter(pk=worker_id, alive=True)
        return [
            Claim(*values)
            for values in update_returning(
                rows,
                {
                    "status": "IN_PROGRESS",
                    "worker": worker_id,
                    "fence": F("fence") + 1,
                    "tries": F("tries") + 1,
                    "ring_at": None,
                    "start_time": None,
                    "note": "",
                    "state_at": clock.now(),
                },
                Claim._fields,
                only_if=models.Exists(alive),
                skip_locked=skip_locked,
            )
        ]

    # -- the end of a claim ---------------------------------------------------------------------------------------

    def record(self, outcomes: Sequence[Outcome]) -> set[int]:
        """Writes ``outcomes`` in one transaction; returns the ids written.

        Who else may touch the row: the reaper, if this worker was declared lost. Compares id, fence and status: an
        outcome whose claim was released meanwhile changes nothing and is missing in the answer.
        """
        from carrot.models.recording import write_outcomes

        return write_outcomes(self.db_for_change(), self.model, outcomes)

    def complete(self, outcome: Outcome) -> bool:
        """Writes ``outcome`` as the last statement of the transaction in which its task did its work; whether it may be
        committed. Who else may touch the row: as for :meth:`record`.
        """
        from carrot.models.recording import write_outcomes

        return bool(write_outcomes(self.db_for_change(), self.model, [outcome], first_try=True))

    def write_progress(self, claim: Claim, ran: float, log: str) -> bool:
        """Shows the log of a task that has run for ``ran`` seconds; False where the claim is no longer ours."""
        own = self.filter(pk=claim.id, fence=claim.fence, status="IN_PROGRESS")
        return bool(own.update(start_time=clock.now() - timedelta(seconds=ran), log=log))

    def hand_back(self, claims: Iterable[Claim], *, ring_in: float = 0.0, note: str = "") -> list[MessageLog]:
        """Returns claimed tasks that were not started: IN_PROGRESS -> PUBLISHED, their bells armed ``ring_in`` seconds
        from now (a caller that rings them itself leaves it the grace). Not counted as a try.

        Answers with the rows that were ours to return, as they were returned.
        """
        now = clock.now()
        changes = {
            "status": "PUBLISHED",
            "worker": None,
            "tries": F("tries") - 1,
            "hand_backs": F("hand_backs") + 1,
            "ring_at": now + timedelta(seconds=ring_in),
            "note": _note(note),
            "state_at": now,
        }
        rows: list[MessageLog] = []
        for own in _own((claim.id, claim.fence) for claim in claims):
            rows += self._changed(self.filter(own, status="IN_PROGRESS").order_by("pk"), changes)
        return rows

    def release(
        self, pairs: Iterable[tuple[int, int]], *, ring_in: float = 0.0, note: str = "", skip_locked: bool = False
    ) -> int:
        """Gives up claims, given as (id, fence), whose outcome is unknown: they run again, rung ``ring_in`` seconds
        from now. The try counts. ``skip_locked`` leaves rows that another transaction holds to a later call.

        Who else may touch the row: the worker that lost its lease and lives on. Its outcome then meets a higher fence,
        or a status that is not IN_PROGRESS, and is dropped.
        """
        now = clock.now()
        changes: dict[str, Any] = {
            "status": "PUBLISHED",
            "worker": None,
            "ring_at": now + timedelta(seconds=ring_in),
            "note": _note(note),
            "state_at": now,
        }
        claims = (self.filter(own, status="IN_PROGRESS") for own in _own(pairs))
        if skip_locked:
            return sum(len(update_returning(rows, changes, ["id"], skip_locked=True)) for rows in claims)
        return sum(rows.update(**changes) for rows in claims)

    # -- lost workers ---------------------------------------------------------------------------------------------

    def orphans(self, limit: int = 500, *, but: Collection[int] = ()) -> list[tuple[int, int, int | None]]:
        """IN_PROGRESS rows without a live worker, as (id, fence, worker id): what O's "somebody" has to release.

        Without those whose ids are in ``but``.
        """
        from carrot.models.worker_process import WorkerProcess

        alive = WorkerProcess.objects.using(self.db).filter(pk=models.OuterRef("worker_id"), alive=True)
        found = self.filter(status="IN_PROGRESS").exclude(models.Exists(alive))
        if but:
            found = found.exclude(pk__in=but)
        # In no order: one by the key makes SQLite read the whole table.
        return list(found.order_by().values_list("pk", "fence", "worker_id")[:limit])

    def blame(self, ids: Iterable[int], worker_id: int, how: str) -> list[int]:
        """Counts a worker's death against the tasks that were running in it; returns those that are FAILED now.

        Only for deaths the master witnessed. The others are released by :meth:`release`. One transaction: the history
        entry, the count and the new status are seen together.
        """
        from carrot.models.attempt import Attempt

        now = clock.now()
        alias = self.db_for_change()
        with transaction.atomic(using=alias):
            rows = list(
                self.filter(pk__in=list(ids), worker=worker_id, status="IN_PROGRESS").select_for_update().order_by("pk")
            )
            failed = []
            shown = ("start_time", "log", "exception", "traceback")
            for row in rows:
                row.crashes += 1
                row.state_at = now
                row.exception = (
                    f"{WORKER_LOST}: {how} while this task was running (time {row.crashes} of {MAX_CRASHES})"
                )
                if row.crashes >= MAX_CRASHES:
                    row.status, row.failure_time = "FAILED", now
                    failed.append(row.pk)
                else:
                    Attempt.of(row, end_time=now, worker=row.worker_name).save(using=alias)
                    row.status, row.worker, row.ring_at = "PUBLISHED", None, now
                    # The attempt is in the history now; what the row shows is the next one, which has not begun.
                    row.start_time, row.log, row.exception, row.traceback = None, "", "", ""
                row.save(
                    using=alias,
                    update_fields=["crashes", "status", "failure_time", "worker", "ring_at", "state_at", *shown],
                )
        return failed

    # -- wake-ups -------------------------------------------------------------------------------------------------

    def due(self, now: datetime) -> MessageLogQuerySet:
        """Rows whose bell has to be rung, earliest first."""
        # By exclusion: SQLite, asked for two statuses, would read every waiting row by the index of statuses.
        over = ("IN_PROGRESS", "COMPLETED", "FAILED", "CANCELLED", "HANDED_OVER")
        return self.filter(ring_at__lte=now).exclude(status__in=over).order_by("ring_at")

    def ring(self, queues: Sequence[str], *, again_in: float | None, broker: str, limit: int) -> list[MessageLog]:
        """Takes up to ``limit`` due rows of ``queues`` for ringing: -> PUBLISHED, the next bell ``again_in`` seconds
        on.

        Pushed forward and committed *before* the message is sent: a crash in between costs a delay, never a bell. None:
        the embedded broker, where being PUBLISHED is the bell. Two relays share the work by SKIP LOCKED. Answers with
        the rows as they were rung.
        """
        now = clock.now()
        return self._changed(
            self.due(now).filter(queue__in=queues)[:limit],
            {
                # First: MySQL assigns from left to right, and this reads the status.
                "state_at": Case(When(status="WAITING", then=Value(now)), default=F("state_at")),
                "status": "PUBLISHED",
                "broker": broker,
                "ring_at": None if again_in is None else now + timedelta(seconds=again_in),
                "note": "",
            },
            skip_locked=True,
        )

    def rewind(self, latest: float) -> int:
        """Bells of waiting rows that are set later than ``latest`` seconds from now, as nothing of ours sets them: by a
        host whose clock ran ahead, or before the clock was set back. They ring now."""
        now = clock.now()
        absurd = self.filter(status="PUBLISHED", ring_at__gt=now + timedelta(seconds=latest))
        return absurd.update(ring_at=now)

    def confirmed(self, uuids: Sequence[UUID], fence: int, *, handed_over: bool = False) -> int:
        """The broker has these messages: their bells are disarmed, where nobody claimed them since they were sent.

        ``fence`` is that of their sending: a row claimed and released meanwhile has a new bell, which an old confirm
        must not disarm. ``handed_over``: the queue is not ours to consume, so the confirm ends our duty.
        """
        waiting = self.filter(uuid__in=uuids, fence=fence, status="PUBLISHED", ring_at__isnull=False)
        if handed_over:
            return waiting.update(status="HANDED_OVER", ring_at=None, state_at=clock.now(), note="")
        return waiting.update(ring_at=None, note="")

    def undeliverable(self, uuids: Sequence[UUID], why: str, again_in: float) -> int:
        """The broker would not take these messages; they wait, visibly, and are tried again after ``again_in`` s."""
        ring_at = clock.now() + timedelta(seconds=again_in)
        return self.filter(uuid__in=uuids, status="PUBLISHED").update(ring_at=ring_at, note=_note(why))

    def believed_in(self, queue: str) -> MessageLogQuerySet:
        """Rows whose message is believed to be in ``queue``. Only what is routed into the queue of its own name: where
        another routing key or exchange leads, this service cannot count."""
        return self.routed_into(queue).filter(status="PUBLISHED", ring_at__isnull=True)

    def routed_into(self, queue: str) -> MessageLogQuerySet:
        """Rows whose messages go into the queue of their name by the default exchange, or one of that name."""
        return self.filter(queue=queue, exchange__in=("", queue), routing_key=queue)

    def arm(self, ring_in: float) -> int:
        """Arms the bells of waiting rows whose messages may be lost. A claim in between wins: it has left PUBLISHED.

        Raises their fences: a message that was lost may have been confirmed, and a confirm not written yet must not
        disarm the new bell.
        """
        when = clock.now() + timedelta(seconds=ring_in)
        return self.filter(status="PUBLISHED").update(ring_at=when, fence=F("fence") + 1)

    def moved(self, queue: str, broker: str) -> int:
        """Waiting rows of a queue whose broker changed in the settings follow it: they are rung on the new one. Raises
        their fences, as :meth:`arm` does."""
        rows = self.filter(queue=queue, status="PUBLISHED").exclude(broker=broker)
        return rows.update(broker=broker, ring_at=clock.now(), fence=F("fence") + 1)

    # -- by an operator, or by age --------------------------------------------------------------------------------

    def lock(self, ids: Iterable[int], statuses: Iterable[str]) -> set[int]:
        """Those of ``ids`` that have one of ``statuses``, and keep it until the caller's transaction ends."""
        alias = self.db_for_change()
        rows = self.using(alias).filter(pk__in=list(ids), status__in=list(statuses))
        if not connections[alias].features.has_select_for_update:
            # SQLite has one lock, which a transaction gets with its first write: before it reads, or it may be refused.
            self.using(alias).filter(pk=-1).update(note="")
        return set(rows.select_for_update().order_by("pk").values_list("pk", flat=True))

    def requeue(self, ids: Iterable[int], queues: Mapping[str, tuple[str, float]]) -> list[MessageLog]:
        """FAILED or CANCELLED -> PUBLISHED, in one transaction; the finished attempt moves to the history.

        ``queues`` gives, for each queue there is, its broker's address and the seconds until the relay rings its rows;
        rows of other queues stay as they are. Returns the rows requeued. Of two operators who press at once, the
        second finds nothing left to requeue.
        """
        from carrot.models.attempt import Attempt
        from carrot.models.worker_process import WorkerProcess

        now = clock.now()
        changes: dict[str, Any] = {
            "status": "PUBLISHED",
            "state_at": now,
            **dict.fromkeys(("worker", "start_time", "completion_time", "failure_time")),
            **dict.fromkeys(("exception", "traceback", "log", "note"), ""),
            **dict.fromkeys(("crashes", "hand_backs"), 0),
        }
        alias = self.db_for_change()
        with transaction.atomic(using=alias):
            final = self.using(alias).lock(ids, ("FAILED", "CANCELLED"))
            rows = list(self.using(alias).filter(pk__in=final, queue__in=list(queues)).order_by("pk"))
            workers = WorkerProcess.objects.using(alias).in_bulk({row.worker_id for row in rows if row.worker_id})
            # Of a task whose worker died the attempt moved there at once; it may have been withdrawn before the next.
            moved = set(Attempt.objects.using(alias).filter(message_log__in=rows).values_list("message_log", "number"))
            Attempt.objects.using(alias).bulk_create(
                Attempt.of(row, end_time=row.failure_time, worker=str(workers.get(row.worker_id, "")))
                for row in rows
                if row.tries and (row.pk, row.tries) not in moved
            )
            for queue in {row.queue for row in rows}:
                address, ring_in = queues[queue]
                own = {**changes, "broker": address, "ring_at": now + timedelta(seconds=ring_in)}
                some = [row for row in rows if row.queue == queue]
                # The fence, too: a confirm of a message from before the row was withdrawn must not disarm the new bell.
                self.using(alias).filter(pk__in=[row.pk for row in some]).update(**own, fence=F("fence") + 1)
                for row in some:
                    row.fence += 1
                    for name, value in own.items():
                        setattr(row, name, value)
        return rows

    # -- the end of waiting ---------------------------------------------------------------------------------------

    def withdraw(self) -> int:
        """PUBLISHED or WAITING -> CANCELLED. A claim that came first wins."""
        now = clock.now()
        return self.filter(status__in=("PUBLISHED", "WAITING")).update(status="CANCELLED", ring_at=None, state_at=now)

    def db_for_change(self) -> str:
        """The alias this queryset writes to."""
        return self._db or router.db_for_write(self.model)  # type: ignore[attr-defined]

    def _changed(
        self, rows: MessageLogQuerySet, changes: Mapping[str, Any], *, skip_locked: bool = False
    ) -> list[MessageLog]:
        """Makes ``changes`` in ``rows`` and answers with what that statement left, in the order of their ids.

        Read a moment later, a row may have been claimed by an earlier message. Rung with the fence of that claim, the
        message is acknowledged as the row runs, and its late confirm disarms the bell with which the claim ends.
        """
        names = [column.attname for column in self.model._meta.concrete_fields]
        changed = update_returning(rows, changes, names, skip_locked=skip_locked)
        found = [self.model.from_db(self.db_for_change(), names, values) for values in changed]
        return sorted(found, key=lambda row: row.pk)


def _note(text: str) -> str:
    """The beginning of ``text``, as every database can store it."""
    return clean_text(text[:255], 4096)[:255]


def _own(pairs: Iterable[tuple[int, int]]) -> Iterator[Q]:
    """Conditions that together pick exactly these claims; SQLite takes no larger ones."""
    source = iter(pairs)
    while some := list(islice(source, 400)):
        own = Q()
        for pk, fence in some:
            own |= Q(pk=pk, fence=fence)
        yield own
