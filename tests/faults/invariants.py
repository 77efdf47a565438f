"""What must be true of the rows whatever happened: the invariants W and O, and that every claim is accounted for.

W   every PUBLISHED or WAITING row has exactly one armed wake-up
O   every IN_PROGRESS row is in the memory of a live worker, or somebody will release it
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pika

from tests.project import Project
from tests.service import Service

UNFINISHED = "('WAITING', 'PUBLISHED', 'IN_PROGRESS')"

#: What no row may look like at any moment: name -> condition.
NEVER = {
    "W: a delayed row without a bell": "status = 'WAITING' AND ring_at IS NULL",
    "W: a claimed or final row with a bell": "status NOT IN ('WAITING', 'PUBLISHED') AND ring_at IS NOT NULL",
    "O: a running row of nobody": "status = 'IN_PROGRESS' AND worker_id IS NULL",
    "a waiting row with a worker": "status IN ('WAITING', 'PUBLISHED') AND worker_id IS NOT NULL",
    "a claim that is not accounted for": "fence < tries + hand_backs",  # requeues and new bells raise it, too
    "a completed row without its times": "status = 'COMPLETED' AND (start_time IS NULL OR completion_time IS NULL"
    " OR failure_time IS NOT NULL OR start_time > completion_time OR worker_id IS NULL OR exception <> '')",
    "a failed row without its reason": "status = 'FAILED' AND (failure_time IS NULL OR completion_time IS NOT NULL"
    " OR exception = '')",
}


def check_always(site: Project) -> None:
    """Fail unless every row is in a state it may have at any moment."""
    for name, condition in NEVER.items():
        found = site.sql(f"SELECT * FROM carrot_messagelog WHERE {condition} LIMIT 3")
        assert not found, f"{name}: {found}"


def wait_for_rest(site: Project, timeout: float = 60.0) -> None:
    """Wait until nothing waits or runs any more, then check the invariants and that only living workers are "alive"."""
    site.wait_until(
        f"SELECT count(*) = 0 FROM carrot_messagelog WHERE status IN {UNFINISHED}", timeout, "every task has ended"
    )
    check_always(site)
    # A worker that just ended is buried within a second; what stays "alive" without a process would never be released.
    # The processes are looked up again each time, and after the rows: one that takes a place now has both.
    site.wait_until(
        lambda: set(living_workers(site)) <= set(site.processes()),
        timeout=20.0,
        message="no dead worker counts as alive",
    )


def check_stopped(site: Project) -> None:
    """With no service running and its workers gone in order: O without exception, and W against the broker's queue.

    Every row that believes in a message must have it in the queue. Surplus messages are harmless: bells of final rows.
    """
    check_always(site)
    assert site.sql("SELECT id FROM carrot_messagelog WHERE status = 'IN_PROGRESS'") == []
    if is_amqp(site):
        check_bells(site)


def check_reconciler_idle(service: Service) -> None:
    """W held all the time: no row was ever found to wait without a message.

    The reconciler would have saved it, some ten seconds late, so its end alone does not show that a bell was lost.
    """
    output = service.output()
    assert "they are rung again" not in output
    assert "they ring again" not in output


def check_bells(site: Project, queue: str = "default") -> None:
    """W: the message of every row without a bell of its own is in the broker. Only while nobody consumes."""
    ready = set(message_ids(site, queue))
    rows = site.sql(
        "SELECT uuid FROM carrot_messagelog WHERE status = 'PUBLISHED' AND ring_at IS NULL AND queue = %s", [queue]
    )
    silent = {plain(row["uuid"]) for row in rows} - ready
    assert not silent, f"W: {len(silent)} of {len(rows)} waiting rows have neither a message nor a bell"


def check_completed_once(site: Project, runs: Counter[str], names: list[str]) -> None:
    """Every task of ``names`` has exactly one completed row and ran exactly once."""
    rows = Counter(name_of(row) for row in site.sql("SELECT args FROM carrot_messagelog WHERE status = 'COMPLETED'"))
    wrong = {name: (rows[name], runs[name]) for name in names if (rows[name], runs[name]) != (1, 1)}
    assert not wrong, f"{len(wrong)} of {len(names)} tasks; (completed rows, runs): {dict(list(wrong.items())[:5])}"


def name_of(row: dict[str, Any]) -> str:
    """The name a test has given to a task: its last text argument that is no path."""
    args = json.loads(row["args"])
    texts = [arg for arg in args if isinstance(arg, str) and "/" not in arg]
    return texts[-1] if texts else ""


def row_of(site: Project, name: str) -> dict[str, Any]:
    """The row of the task that a test has named so."""
    return next(row for row in site.sql("SELECT * FROM carrot_messagelog ORDER BY id") if name_of(row) == name)


def living_workers(site: Project) -> list[int]:
    """The pids of the worker processes that count as alive."""
    return [row["pid"] for row in site.sql("SELECT pid FROM carrot_workerprocess WHERE alive ORDER BY id")]


def effects(site: Project) -> Counter[str]:
    """How often ``tests.app.tasks.record_effect`` ran, by name."""
    return Counter(row["message_id"] for row in site.sql("SELECT message_id FROM app_effect"))


def is_amqp(site: Project) -> bool:
    return site.broker_url.startswith("amqp")


def plain(uuid: object) -> str:
    """A uuid without hyphens, as SQLite stores it."""
    return str(uuid).replace("-", "")


def message_ids(site: Project, queue: str = "default") -> list[str]:
    """The ids of the messages that are ready in a queue. All are put back in their places."""
    found = []
    with pika.BlockingConnection(pika.URLParameters(site.broker_url)) as connection:
        channel = connection.channel()
        while True:
            method, properties, _body = channel.basic_get(queue)
            if method is None:
                break
            found.append(plain(properties.message_id))
    return found


def depth(site: Project, queue: str = "default") -> tuple[int, int]:
    """The number of ready messages and of consumers of a queue."""
    with pika.BlockingConnection(pika.URLParameters(site.broker_url)) as connection:
        answer = connection.channel().queue_declare(queue, passive=True).method
        return answer.message_count, answer.consumer_count
