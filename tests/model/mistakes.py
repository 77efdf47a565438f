"""Mistakes that the search has to find: real verbs, changed as somebody might change them.

Each is a function that puts the mistake in; its docstring is the idea that would lead there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F

from carrot import clock
from carrot.brokers.amqp import intake
from carrot.claimer import Claimer
from carrot.models import MessageLog, WorkerProcess, recording, returning, transitions
from carrot.models.transitions import MessageLogQuerySet
from carrot.models.worker_process import WorkerProcessQuerySet

Patch = pytest.MonkeyPatch


def _all() -> Any:
    return MessageLog.objects.all()


def _after(patch: Patch, verb: str, **changes: Any) -> None:
    """Has ``verb`` change the rows that it changes once more."""
    real = getattr(MessageLogQuerySet, verb)
    seen = ("pk", "status", "ring_at", "worker")

    def wrong(self: Any, *args: Any, **kwargs: Any) -> Any:
        before = set(_all().values_list(*seen))
        answer = real(self, *args, **kwargs)
        changed = set(_all().values_list(*seen)) - before
        _all().filter(pk__in=[pk for pk, *_rest in changed]).update(**changes)
        return answer

    patch.setattr(MessageLogQuerySet, verb, wrong)


# -- bells ------------------------------------------------------------------------------------------------------------


def a_confirm_disarms_any_bell(patch: Patch) -> None:
    """The uuid says which row is meant."""

    def confirmed(self: Any, uuids: Sequence[Any], fence: int, *, handed_over: bool = False) -> int:
        return int(self.filter(uuid__in=uuids, status="PUBLISHED").update(ring_at=None))

    patch.setattr(MessageLogQuerySet, "confirmed", confirmed)


def a_release_arms_no_bell(patch: Patch) -> None:
    """There is a message already."""
    _after(patch, "release", ring_at=None)


def a_hand_back_arms_no_bell(patch: Patch) -> None:
    """Its caller rings at once."""
    _after(patch, "hand_back", ring_at=None)


def a_blamed_task_gets_no_bell(patch: Patch) -> None:
    """The relay rings what waits."""
    _after(patch, "blame", ring_at=None)


def a_requeued_task_gets_no_bell(patch: Patch) -> None:
    """Its message follows on commit."""
    _after(patch, "requeue", ring_at=None)


def requeue_keeps_the_fence(patch: Patch) -> None:
    """Nobody claims anything there."""
    real = MessageLogQuerySet.requeue

    def requeue(self: Any, ids: Iterable[int], queues: Any) -> list[MessageLog]:
        fences = dict(_all().values_list("pk", "fence"))
        rows = real(self, ids, queues)
        for row in rows:
            row.fence = fences[row.pk]
            _all().filter(pk=row.pk).update(fence=row.fence)
        return rows

    patch.setattr(MessageLogQuerySet, "requeue", requeue)


def the_relay_disarms_what_it_rings(patch: Patch) -> None:
    """Rung is rung."""
    _after(patch, "ring", ring_at=None)


def the_relay_pushes_no_bell_forward(patch: Patch) -> None:
    """The confirm will disarm it."""
    _after(patch, "ring", ring_at=F("ring_at") - timedelta(days=2))


def the_relay_reads_what_it_has_rung(patch: Patch) -> None:
    """The rows are in the database."""

    def changed(self: Any, rows: Any, changes: Any, *, skip_locked: bool = False) -> list[MessageLog]:
        found = transitions.update_returning(rows, changes, ("id",), skip_locked=skip_locked)
        return list(_all().filter(pk__in=[pk for (pk,) in found]))

    patch.setattr(MessageLogQuerySet, "_changed", changed)


def the_reconciler_arms_nothing(patch: Patch) -> None:
    """RabbitMQ loses nothing that it has confirmed."""
    patch.setattr(MessageLogQuerySet, "arm", lambda self, ring_in: 0)


def bells_of_a_wrong_clock_stay(patch: Patch) -> None:
    """Hosts have the right time."""
    patch.setattr(MessageLogQuerySet, "rewind", lambda self, latest: 0)


def every_message_is_acknowledged(patch: Patch) -> None:
    """What was not claimed is final, or runs."""
    patch.setattr(intake, "CLAIMABLE", ())


# -- claims -----------------------------------------------------------------------------------------------------------


def a_claim_keeps_the_fence(patch: Patch) -> None:
    """The worker's id tells claims apart."""
    real = MessageLogQuerySet._take

    def take(self: Any, *args: Any, **kwargs: Any) -> Any:
        claims = real(self, *args, **kwargs)
        _all().filter(pk__in=[claim.id for claim in claims]).update(fence=F("fence") - 1)
        return [claim._replace(fence=claim.fence - 1) for claim in claims]

    patch.setattr(MessageLogQuerySet, "_take", take)


def the_lost_may_claim(patch: Patch) -> None:
    """A worker would not ask if it did not live."""
    real = returning.update_returning

    def update_returning(*args: Any, only_if: Any = None, **kwargs: Any) -> Any:
        return real(*args, **kwargs)

    patch.setattr("carrot.models.transitions.update_returning", update_returning)


def an_outcome_is_written_whatever_its_fence(patch: Patch) -> None:
    """The task has run: that is what counts."""
    real = recording.write_outcomes

    def write_outcomes(alias: str, model: Any, outcomes: Sequence[Any], **kwargs: Any) -> set[int]:
        fences = dict(_all().values_list("pk", "fence"))
        newest = [each._replace(claim=each.claim._replace(fence=fences[each.claim.id])) for each in outcomes]
        return real(alias, model, newest, **kwargs)

    patch.setattr(recording, "write_outcomes", write_outcomes)


def an_outcome_is_written_whatever_the_status(patch: Patch) -> None:
    """The fence says that the claim is the latest."""

    def write_outcomes(alias: str, model: Any, outcomes: Sequence[Any], **kwargs: Any) -> set[int]:
        now = clock.now()
        for outcome in outcomes:
            completed = outcome.status == "COMPLETED"
            _all().filter(pk=outcome.claim.id, fence=outcome.claim.fence).update(
                status=outcome.status,
                ring_at=None,
                start_time=now,
                completion_time=now if completed else None,
                failure_time=None if completed else now,
                exception=outcome.exception,
            )
        return {outcome.claim.id for outcome in outcomes}

    patch.setattr(recording, "write_outcomes", write_outcomes)


def a_hand_back_ignores_the_fence(patch: Patch) -> None:
    """Only who has the task hands it back."""
    real = MessageLogQuerySet.hand_back

    def hand_back(self: Any, claims: Iterable[Any], **kwargs: Any) -> Any:
        fences = dict(_all().values_list("pk", "fence"))
        return real(self, [claim._replace(fence=fences[claim.id]) for claim in claims], **kwargs)

    patch.setattr(MessageLogQuerySet, "hand_back", hand_back)


def a_release_ignores_the_fence(patch: Patch) -> None:
    """It has just been found to be an orphan."""
    real = MessageLogQuerySet.release

    def release(self: Any, pairs: Iterable[tuple[int, int]], **kwargs: Any) -> int:
        fences = dict(_all().values_list("pk", "fence"))
        return real(self, [(pk, fences[pk]) for pk, _fence in pairs], **kwargs)

    patch.setattr(MessageLogQuerySet, "release", release)


def a_hand_back_keeps_the_worker(patch: Patch) -> None:
    """It shows who had it."""
    _after(patch, "hand_back", worker=1)


def a_hand_back_counts_as_a_try(patch: Patch) -> None:
    """It was claimed once more."""
    _after(patch, "hand_back", tries=F("tries") + 1)


def a_release_begins_the_fence_anew(patch: Patch) -> None:
    """Nobody has the row any more."""
    _after(patch, "release", fence=0)


def withdraw_keeps_the_bell(patch: Patch) -> None:
    """The status says that it is over."""
    _after(patch, "withdraw", ring_at=clock.now())


def withdraw_takes_what_has_ended(patch: Patch) -> None:
    """It is to be seen no more."""
    real = MessageLogQuerySet.withdraw

    def withdraw(self: Any) -> int:
        over = _all().filter(status__in=("COMPLETED", "FAILED")).update(status="CANCELLED")
        return int(real(self) + over)

    patch.setattr(MessageLogQuerySet, "withdraw", withdraw)


def withdraw_takes_what_runs(patch: Patch) -> None:
    """The operator wants it gone."""
    real = MessageLogQuerySet.withdraw

    def withdraw(self: Any) -> int:
        running = _all().filter(status="IN_PROGRESS").update(status="CANCELLED", worker=None)
        return int(real(self) + running)

    patch.setattr(MessageLogQuerySet, "withdraw", withdraw)


# -- lost workers -----------------------------------------------------------------------------------------------------


def orphans_are_those_of_workers_without_a_row(patch: Patch) -> None:
    """A worker that ended has no row any more."""

    def orphans(self: Any, limit: int = 500) -> list[tuple[int, int, int | None]]:
        known = WorkerProcess.objects.values("pk")
        found = self.filter(status="IN_PROGRESS").exclude(worker__in=known)
        return list(found.values_list("pk", "fence", "worker_id")[:limit])

    patch.setattr(MessageLogQuerySet, "orphans", orphans)


def orphans_are_all_that_run(patch: Patch) -> None:
    """After a restart nothing runs."""

    def orphans(self: Any, limit: int = 500) -> list[tuple[int, int, int | None]]:
        return list(self.filter(status="IN_PROGRESS").values_list("pk", "fence", "worker_id")[:limit])

    patch.setattr(MessageLogQuerySet, "orphans", orphans)


def nobody_audits(patch: Patch) -> None:
    """A worker knows its claims."""
    patch.setattr(Claimer, "_audit", lambda self: None)


def a_beat_revives(patch: Patch) -> None:
    """Who beats, lives."""

    def beat(self: Any, ids: list[int]) -> set[int]:
        self.filter(pk__in=ids).update(beat=F("beat") + 1, alive=True)
        return set(ids)

    patch.setattr(WorkerProcessQuerySet, "beat", beat)
