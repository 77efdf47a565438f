"""Rows, claims and outcomes as tests need them."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from carrot import clock
from carrot.message import uuid7
from carrot.models import MessageLog, Status, WorkerProcess
from carrot.models.claim import Claim, Outcome

ADD = "tests.app.tasks.add"


def new_worker(**changes: Any) -> WorkerProcess:
    """A live worker's row."""
    now = clock.now()
    values = {"host": "host", "pid": os.getpid(), "service_pid": 1, "concurrency": 1, "started_at": now, "beat_at": now}
    return WorkerProcess.objects.create(**{**values, **changes})


def new_row(**changes: Any) -> MessageLog:
    """A row that waits in the queue ``default``, without a bell, as on the embedded broker or once confirmed."""
    row = unsaved_row(**changes)
    row.save(force_insert=True)
    return row


def unsaved_row(**changes: Any) -> MessageLog:
    """The same, not saved yet."""
    now = clock.now()
    values = {
        "uuid": uuid7(),
        "task": ADD,
        "args": [1, 2],
        "broker": "database://",
        "queue": "default",
        "routing_key": "default",
        "publish_time": now,
        "state_at": now,
    }
    return MessageLog(**{**values, **changes})


def in_seconds(seconds: float) -> Any:
    return clock.now() + timedelta(seconds=seconds)


def claim_of(row: MessageLog, worker: WorkerProcess | None = None) -> Claim:
    """Claims the row for the worker, or for a new one."""
    return MessageLog.objects.claim([row.uuid], (worker or new_worker()).pk)[row.uuid]


def unsaved_claim(task: str = ADD, *args: Any, **changes: Any) -> Claim:
    """A claim without a row, for what never looks at the table."""
    claim = Claim(1, uuid7(), 1, task, list(args), {}, "default", "code", 0, 1, 0, 0)
    return claim._replace(**changes)


def outcome_of(claim: Claim, status: str = "COMPLETED", **changes: Any) -> Outcome:
    """What came of a claim that ran for half a second."""
    now = clock.now()
    failed = status == "FAILED"
    outcome = Outcome(
        claim,
        status,
        now - timedelta(seconds=0.5),
        now,
        None if failed else "3",
        "a log",
        "ValueError: no" if failed else "",
        "Traceback…" if failed else "",
    )
    return outcome._replace(**changes)


def status_of(row: MessageLog) -> Status:
    """The row's status now; the row is read again."""
    row.refresh_from_db()
    return Status(row.status)
