"""What a worker holds of a task: its claim on the row, and what came of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID


class Claim(NamedTuple):
    """A row that is ours to run until its outcome is recorded: the columns a claim returns, in this order."""

    id: int
    uuid: UUID
    fence: int
    task: str
    args: list[Any]
    kwargs: dict[str, Any]
    queue: str
    origin: str
    priority: int
    tries: int
    crashes: int
    hand_backs: int


#: A worker's memory of its claims, by id and fence: the row may be claimed again before the end of a claim is noted.
Held: TypeAlias = dict[tuple[int, int], Claim]


class Outcome(NamedTuple):
    """What came of one attempt. Everything is storable text already: the recorder decides nothing."""

    claim: Claim
    status: str
    start_time: datetime
    end_time: datetime
    output: str | None
    log: str
    exception: str
    traceback: str
