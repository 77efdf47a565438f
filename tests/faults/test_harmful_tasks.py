"""Tasks that do harm to the process they run in: it is theirs, not that of their neighbours."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest

from tests.faults import invariants
from tests.faults.combinations import corners, on_postgresql_and_rabbitmq
from tests.faults.form import Form
from tests.faults.load import Journal, publish_all
from tests.faults.report import Record
from tests.faults.workload import UNFLUSHED, Workload
from tests.project import Broker, Database, ProjectFactory
from tests.servers.process import session_members

HOLD = "tests.faults.fault_tasks.hold"
EFFECT = "tests.app.tasks.record_effect"
KILL_SELF = "tests.app.tasks.kill_self"
HOG = "tests.faults.fault_tasks.take_all_memory"
FOUR_THREADS: list[dict[str, Any]] = [{"name": "default", "concurrency": 4}]
#: Workers that a task may take with it.
MAX_CRASHES = 3
#: What the lack of memory is called: by Python, by SQLite and PostgreSQL's library, and where threads are begun.
NO_MEMORY = ("MemoryError", "out of memory", "can't start new thread")
#: Bytes of address space that a process may have beside what it has, once it has worked for a while.
ROOM = 150 << 20


@pytest.mark.scenario("F06")
@corners
def test_a_task_that_kills_its_worker_fails_after_three_and_its_neighbours_complete(
    project: ProjectFactory, scenario: Record, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, queues=FOUR_THREADS)
    journal, gate = Journal(site), site.directory / "gate"
    site.service().wait_ready()
    publish_all(site, [(HOLD, str(journal.path), "neighbour", str(gate))])
    journal.wait_begun("neighbour")
    names = [f"n{n}" for n in range(40)]
    publish_all(
        site,
        [
            *((EFFECT, name) for name in names[:20]),
            ("tests.app.tasks.kill_self",),
            *((EFFECT, name) for name in names[20:]),
        ],
    )
    journal.wait_begun("neighbour", times=2)
    gate.touch()
    invariants.wait_for_rest(site)
    scenario.fault(MAX_CRASHES)
    (killer,) = site.sql("SELECT * FROM carrot_messagelog WHERE task = 'tests.app.tasks.kill_self'")
    assert (killer["status"], killer["crashes"], killer["tries"]) == ("FAILED", 3, 3)
    assert killer["exception"].startswith("worker lost: its worker process was ended by SIGKILL")
    attempts = site.sql("SELECT number FROM carrot_attempt WHERE message_log_id = %s ORDER BY number", [killer["id"]])
    assert attempts == [{"number": 1}, {"number": 2}]
    invariants.check_completed_once(site, journal.runs(), ["neighbour"])
    # It was running at the first death. Afterwards suspects run alone, so the second and third cost it nothing.
    assert invariants.row_of(site, "neighbour")["crashes"] == 1
    runs = invariants.effects(site)
    for name in names:
        row = invariants.row_of(site, name)
        assert row["status"] == "COMPLETED"
        assert row["crashes"] <= 1
        assert 1 <= runs[name] <= row["tries"]


@pytest.mark.scenario("F06")
@on_postgresql_and_rabbitmq
def test_several_tasks_that_kill_their_workers_under_load_fail_and_all_others_complete(
    project: ProjectFactory, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, **form.settings)
    killers = form.times(2, 10)
    with Workload(site, form, scenario) as load:
        load.work_goes_on(20)
        publish_all(site, [(KILL_SELF,)] * killers)
        scenario.fault(MAX_CRASHES * killers)
        load.finish()
        site.wait_until(
            f"SELECT count(*) = {killers} FROM carrot_messagelog WHERE task = '{KILL_SELF}' AND status = 'FAILED'",
            timeout=60.0 + 10.0 * killers,
        )
    load.check(extra_runs=MAX_CRASHES * killers * (load.threads + UNFLUSHED))
    counts = site.sql(
        f"SELECT task = '{KILL_SELF}' AS kills, status, max(crashes) AS crashes FROM carrot_messagelog GROUP BY 1, 2"
    )
    # Who was running at a first death ran alone from then on, and was blamed for no other.
    assert {(bool(row["kills"]), row["status"]): row["crashes"] for row in counts} in (
        {(True, "FAILED"): MAX_CRASHES, (False, "COMPLETED"): 0},
        {(True, "FAILED"): MAX_CRASHES, (False, "COMPLETED"): 1},
    )


@pytest.mark.scenario("F07")
@corners
def test_a_task_that_takes_all_memory_fails_or_costs_three_processes_at_most(
    project: ProjectFactory, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, **form.settings)
    hogs = form.times(2, 10)
    with Workload(site, form, scenario) as load:
        limit_memory(load)
        load.work_goes_on(20)
        publish_all(site, [(HOG, str(load.journal.path), f"hog{n}", form.seconds(4.0, 10.0)) for n in range(hogs)])
        scenario.fault(hogs)
        site.wait_until(
            f"SELECT count(*) = {hogs} FROM carrot_messagelog WHERE task = '{HOG}' AND status = 'FAILED'",
            timeout=60.0 + 30.0 * hogs,
        )
        load.work_goes_on(20)
        load.finish()
    load.settle()
    for row in site.sql(f"SELECT exception FROM carrot_messagelog WHERE task = '{HOG}'"):
        assert row["exception"].startswith(("MemoryError", "worker lost"))
    runs = sum(name.startswith("hog") for name, _pid in load.journal.lines("begin"))
    deaths = sum(service.output().count("another takes its place") for service in load.services)
    scenario.remark(f"{runs} runs of {hogs} tasks that take all memory, {deaths} processes replaced")
    assert runs <= MAX_CRASHES * hogs
    assert deaths <= runs, "no process died but by such a task: none dies again and again for want of memory"
    # In the same process there was no memory for the code of its neighbours either.
    failed = site.sql("SELECT args, exception FROM carrot_messagelog WHERE status = 'FAILED'")
    starved = [invariants.name_of(row) for row in failed if any(word in row["exception"] for word in NO_MEMORY)]
    load.check(extra_runs=deaths * (load.threads + UNFLUSHED), planned_failures=starved, settle=False)


def limit_memory(load: Workload) -> None:
    """From now on, the processes of the services get no more address space than they have, and some room."""
    members = [member for service in load.services for member in session_members(service.pid)]
    most = max(int(Path(f"/proc/{member.pid}/statm").read_text().split()[0]) for member in members)
    soft = most * resource.getpagesize() + ROOM
    for member in members:  # a master hands it on to the processes that it starts
        resource.prlimit(member.pid, resource.RLIMIT_AS, (soft, resource.RLIM_INFINITY))
