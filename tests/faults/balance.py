"""The ledgers of the producers against the rows and the traces: what was promised, counted.

    I1  every committed task is COMPLETED, or FAILED as planned, and has run
    I2  what was rolled back has no row and has left no trace; no trace is without a row
    I3  every atomic task has exactly one effect, if it is COMPLETED, else none
    I4  plain tasks ran once; again only where a worker was killed, as often as tasks and outcomes were in its hands
    I7  every final row is the last of its attempts

I5 (nothing is left behind) and I6 (nothing grows) need the services as well: see ``tests/faults/workload.py``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from tests.faults import invariants
from tests.faults.load import Journal
from tests.faults.producers import Call, Ledger
from tests.faults.report import Record, quantile
from tests.project import Project

#: I7, and what else may not be in the history.
HISTORY = (
    "SELECT m.id, m.tries, a.number FROM carrot_attempt a JOIN carrot_messagelog m ON m.id = a.message_log_id"
    " WHERE a.number >= m.tries LIMIT 3"
)


@dataclass(frozen=True, kw_only=True)
class Balance:
    """Numbers of tasks; of the names that are wrong, lists. ``unknown`` ones may be there or not, but not twice."""

    committed: int
    unknown: int
    rolled_back: int
    completed: int
    failed: int
    lost: list[str] = field(default_factory=list)
    phantom: list[str] = field(default_factory=list)
    #: Name -> runs beyond the first.
    doubled_plain: dict[str, int] = field(default_factory=dict)
    doubled_atomic: dict[str, int] = field(default_factory=dict)
    publish_p50: float
    publish_p99: float
    publish_max: float

    @property
    def sent(self) -> int:
        return self.committed + self.unknown

    @property
    def extra_runs(self) -> int:
        """I4: runs of plain tasks beyond the first."""
        return sum(self.doubled_plain.values())

    def tell(self, record: Record) -> None:
        """Enter the figures into the report of a scenario, added to what another workload of it has entered."""
        record.sent = (record.sent or 0) + self.sent
        record.lost = (record.lost or 0) + len(self.lost)
        record.phantom = (record.phantom or 0) + len(self.phantom)
        record.doubled_plain = (record.doubled_plain or 0) + self.extra_runs
        record.doubled_atomic = (record.doubled_atomic or 0) + sum(self.doubled_atomic.values())
        record.publish_p50 = max(record.publish_p50 or 0.0, self.publish_p50)
        record.publish_p99 = max(record.publish_p99 or 0.0, self.publish_p99)
        record.publish_max = max(record.publish_max or 0.0, self.publish_max)


def balance(
    site: Project,
    journal: Journal,
    ledgers: Sequence[Ledger],
    *,
    planned_failures: Collection[str] = (),
    producer_killed: bool = False,
) -> Balance:
    """Count, when all is at rest. ``producer_killed``: what it committed last may be missing in its ledger."""
    calls = [call for ledger in ledgers for call in ledger.calls()]
    never = {name for ledger in ledgers for name in ledger.never()}
    committed = {call.name for call in calls if call.committed}
    unknown = {call.name for call in calls if not call.committed}
    statuses = _statuses(site)
    runs, effects = journal.runs(), invariants.effects(site)
    begun = {name for name, _pid in journal.lines("begin")}
    ours = {name for name in {*statuses, *effects, *begun} if is_of_workload(name)}
    if producer_killed:
        unknown |= ours - committed - never
    states = {name: found[0] for name, found in statuses.items()}
    done = {name for name in ours if states.get(name) == "COMPLETED"}
    ran = {name for name in done if (effects if name.endswith("atomic") else runs)[name]}
    return Balance(
        committed=len(committed),
        unknown=len(unknown),
        rolled_back=len(never),
        completed=len(done),
        failed=sum(states.get(name) == "FAILED" for name in ours),
        lost=sorted((committed - ran - _failed(states, planned_failures)) | (done - ran)),
        phantom=sorted(
            (ours - committed - unknown)
            | (ours - statuses.keys())
            | {name for name in ours if len(statuses.get(name, ())) > 1}
        ),
        doubled_plain={name: n - 1 for name, n in runs.items() if n > 1 and is_of_workload(name)},
        doubled_atomic={
            name: n - (name in done) for name, n in effects.items() if is_of_workload(name) and n != (name in done)
        },
        **_latencies(calls),
    )


def is_of_workload(name: str) -> bool:
    """Is it the name of a task that a producer published, not one of the test's own?"""
    return name.rpartition("-")[2] in ("plain", "atomic", "never")


def check_history(site: Project) -> None:
    """I7: the row shows the last attempt, and the history the earlier ones. The fence agrees, see ``NEVER``."""
    found = site.sql(HISTORY)
    assert not found, f"I7: attempts in the history that are not earlier than the row's: {found}"


def _statuses(site: Project) -> dict[str, list[str]]:
    """The statuses of the rows of each name: one, or something is wrong."""
    found: dict[str, list[str]] = {}
    for row in site.sql("SELECT args, status FROM carrot_messagelog"):
        found.setdefault(invariants.name_of(row), []).append(row["status"])
    return found


def _failed(states: dict[str, str], planned: Collection[str]) -> set[str]:
    return {name for name in planned if states.get(name) == "FAILED"}


def _latencies(calls: Sequence[Call]) -> dict[str, float]:
    took = [call.took for call in calls] or [0.0]
    return {"publish_p50": quantile(took, 0.5), "publish_p99": quantile(took, 0.99), "publish_max": max(took)}
