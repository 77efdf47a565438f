"""Messages that stay in the queue, as every thread of the workload's services is busy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.faults import invariants
from tests.faults.load import publish_all
from tests.faults.workload import Workload

HOLD = "tests.faults.fault_tasks.hold"


@contextmanager
def backlog(load: Workload, count: int = 30) -> Iterator[None]:
    """Occupy all threads, and go on when so many messages are ready in the queue. The block's end frees the threads."""
    site = load.site
    number = len(load.journal.lines("begin"))  # which no other block of this test has
    gate = site.directory / f"gate-{number}"
    slots = len(load.running_services()) * load.processes * load.threads
    names = [f"held-{number}-{n}" for n in range(slots)]
    publish_all(site, [(HOLD, str(load.journal.path), name, str(gate)) for name in names])
    for name in names:
        load.journal.wait_begun(name)
    site.wait_until(lambda: invariants.depth(site)[0] >= count, 60.0, f"{count} messages are in the queue")
    yield
    gate.touch()
