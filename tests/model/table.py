"""The real table under the model: rows are put as a world says, one real verb is called, and the rows are read again.

What a verb does follows from the rows, the workers' rows and its arguments alone. So each combination is tried once and
remembered: a search through a hundred thousand worlds calls a thousand verbs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

import pytest

from carrot import clock, publisher
from carrot.brokers import Broker, Depth
from carrot.conf import QueueSettings
from carrot.message import Message
from carrot.models import MessageLog, WorkerProcess
from tests.model.world import ABSURD, DUE, GONE, LATER, NEW, NOBODY, OLD, SILENT, Row, World, counts_as_alive
from tests.rows import new_row, new_worker

NOW = datetime(2024, 2, 29, 12, 0, tzinfo=timezone.utc)

#: What every row has before a verb: claims that were tried, and claims that were handed back.
FENCE, TRIES, HAND_BACKS = 7, 4, 3

FINAL = ("COMPLETED", "FAILED", "CANCELLED")

#: Verbs that raise the fences of rows that wait, so that no confirm of an earlier message disarms the new bell.
RINGING_ANEW = ("requeue", "requeue_all", "purge", "reconcile", "take_marker")

#: The times that stand for the states of a bell. What is set later than SANE was set by a wrong clock.
BELLS = {
    SILENT: None,
    DUE: NOW - timedelta(seconds=1),
    LATER: NOW + timedelta(seconds=5),
    ABSURD: NOW + timedelta(days=1),
}
SANE = NOW + timedelta(seconds=600)


class Violation(Exception):
    """Something happened that must never happen; its text says what."""


class Effect(NamedTuple):
    """What one call of a verb did."""

    rows: tuple[Row, ...]
    #: By task: whether its fence was raised.
    raised: tuple[bool, ...]
    #: Tasks whose messages were handed to the publisher, and the age of the fence that these have.
    rung: tuple[tuple[int, int], ...]
    #: What the caller was told, in terms of the model.
    answer: Any


class Clock:
    """Both clocks of carrot. They stand still unless moved."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)
        self.seconds = 1000.0

    def now(self) -> datetime:
        return NOW + self.ahead

    def monotonic(self) -> float:
        return self.seconds


class Bells(Broker):
    """The broker as the verbs see it: takes messages, and says of the queue what the world says."""

    def __init__(self, *, rows_are_messages: bool) -> None:
        self.rows_are_messages = rows_are_messages  # type: ignore[misc]
        self.rung: list[Message] = []
        self.ready = 0
        self.markers = 0

    def ring(self, messages: Sequence[Message]) -> None:
        self.rung += messages

    def can_ring(self) -> bool:
        return True

    def flush(self, timeout: float) -> bool:
        return True

    def subscribe(self, queue: QueueSettings, wake: Callable[[], None], adopt: Any = None) -> Any:
        raise NotImplementedError("the model delivers by itself")

    def depth(self, queue: QueueSettings, timeout: float) -> Depth | None:
        return None if self.rows_are_messages else Depth(ready=self.ready, consumers=1)

    def purge(self, queue: QueueSettings, timeout: float) -> int:
        return self.ready

    def send_marker(self, queue: QueueSettings, before: datetime) -> None:
        self.markers += 1

    def describe(self) -> str:
        return "a model"

    def close(self, timeout: float) -> None:
        """Nothing is held."""


class Table:
    """The rows of the tasks, and of three workers: those of the two places, and one that is gone."""

    def __init__(self, tasks: int, monkeypatch: pytest.MonkeyPatch, *, rows_are_messages: bool) -> None:
        self.clock = Clock()
        self.bells = Bells(rows_are_messages=rows_are_messages)
        monkeypatch.setattr(clock, "now", self.clock.now)
        monkeypatch.setattr(clock, "monotonic", self.clock.monotonic)
        monkeypatch.setattr(publisher, "broker_of", lambda _host: self.bells)
        self.tasks = [new_row() for _ in range(tasks)]
        self.keys = [row.pk for row in self.tasks]
        self.workers = [new_worker().pk for _ in range(3)]
        self._known: dict[Any, Effect] = {}

    @property
    def calls(self) -> int:
        """How many different calls there were."""
        return len(self._known)

    def do(self, world: World, verb: Callable[..., Any], *arguments: Any) -> Effect:
        """Calls ``verb(*arguments)`` on the rows of ``world``, unless it is known what comes of that."""
        key = (world.rows, counts_as_alive(world), verb, arguments)
        effect = self._known.get(key)
        if effect is None:
            effect = self._known[key] = self._try(world, verb, arguments)
        return effect

    def _try(self, world: World, verb: Callable[..., Any], arguments: tuple[Any, ...]) -> Effect:
        for pk, row in zip(self.keys, world.rows, strict=True):
            MessageLog.objects.filter(pk=pk).update(**self._columns(row))
        alive = [pk for pk, lives in zip(self.workers, counts_as_alive(world), strict=False) if lives]
        WorkerProcess.objects.filter(pk__in=alive, alive=False).update(alive=True)
        WorkerProcess.objects.exclude(pk__in=alive).filter(alive=True).update(alive=False)
        self.bells.rung.clear()
        answer = verb(*arguments)
        found: list[Mapping[str, Any]] = list(MessageLog.objects.filter(pk__in=self.keys).order_by("pk").values())
        for task, (before, columns) in enumerate(zip(world.rows, found, strict=True)):
            check(f"task {'AB'[task]}", before, columns, verb.__name__)
        return Effect(
            tuple(self.row_of(columns) for columns in found),
            tuple(columns["fence"] > FENCE for columns in found),
            self._rung(found),
            answer,
        )

    # -- from the model to the table, and back --------------------------------------------------------------------

    def _columns(self, row: Row) -> dict[str, Any]:
        ended = NOW - timedelta(seconds=60)
        ran = row.status in ("COMPLETED", "FAILED")
        return {
            "status": row.status,
            "ring_at": BELLS[row.bell],
            "fence": FENCE,
            "tries": TRIES,
            "hand_backs": HAND_BACKS,
            "worker": None if row.worker == NOBODY else self.workers[row.worker],
            "crashes": row.crashes,
            "start_time": ended - timedelta(seconds=1) if ran else None,
            "completion_time": ended if row.status == "COMPLETED" else None,
            "failure_time": ended if row.status == "FAILED" else None,
            "exception": "ValueError: no" if row.status == "FAILED" else "",
            "state_at": ended,
            "note": "",
        }

    def row_of(self, columns: Mapping[str, Any]) -> Row:
        status, worker = str(columns["status"]), columns["worker_id"]
        if status in FINAL:
            # Who had it, and how often that one died, says nothing any more: Requeue begins anew.
            return Row(status, SILENT, NOBODY if status == "CANCELLED" else GONE, 0)
        number = NOBODY if worker is None else self.workers.index(worker)
        return Row(status, bell_of(columns["ring_at"]), number, columns["crashes"])

    def fence(self, age: int) -> int:
        return {NEW: FENCE, OLD: FENCE - 1}[age]

    def _rung(self, found: Sequence[Mapping[str, Any]]) -> tuple[tuple[int, int], ...]:
        rows = {columns["uuid"]: (task, columns) for task, columns in enumerate(found)}
        rung = {}
        for message in self.bells.rung:
            task, columns = rows[message.uuid]
            rung[task] = NEW if message.fence == columns["fence"] else OLD
            if rung[task] == OLD and columns["status"] != "IN_PROGRESS":  # nobody has claimed it meanwhile
                raise Violation("a message was made with another fence than its row has")
        return tuple(sorted(rung.items()))


def bell_of(ring_at: datetime | None) -> str:
    if ring_at is None:
        return SILENT
    if ring_at <= NOW:
        return DUE
    return LATER if ring_at <= SANE else ABSURD


def check(name: str, before: Row, columns: Mapping[str, Any], verb: str) -> None:
    """Raises :class:`Violation` where a row is as no verb may leave it, or not this one."""
    status, fence = columns["status"], columns["fence"]
    waits = status in ("WAITING", "PUBLISHED")
    forgotten = fence - columns["tries"] - columns["hand_backs"]
    anew = status == "PUBLISHED" and verb in RINGING_ANEW
    never = {
        "its fence was lowered": fence < FENCE,
        "its fence was raised twice": fence > FENCE + 1,
        # Requeue begins to count the hand-backs anew; nothing else may lose one.
        "a claim is not accounted for": forgotten < 0 or (forgotten > 0 and not anew),
        "it was final, and has changed": before.status in FINAL and status != before.status and verb != "requeue",
        "it has a bell, and does not wait": not waits and columns["ring_at"] is not None,
        "it runs, and is nobody's": status == "IN_PROGRESS" and columns["worker_id"] is None,
        "it waits, and has a worker": waits and columns["worker_id"] is not None,
        "it is completed, and lacks a time or has an exception": status == "COMPLETED"
        and (columns["start_time"] is None or columns["completion_time"] is None or bool(columns["exception"])),
        "it is failed, and lacks its time or its reason": status == "FAILED"
        and (columns["failure_time"] is None or not columns["exception"]),
    }
    for what, is_so in never.items():
        if is_so:
            raise Violation(f"{name}: {what}")
