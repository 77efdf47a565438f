"""Processes that die or freeze while they have work."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from tests.acceptance import invariants
from tests.acceptance.combinations import corners, everywhere, on_postgresql, on_postgresql_and_rabbitmq
from tests.acceptance.load import Journal, Load, completed, publish_all
from tests.project import Broker, Database, Project, ProjectFactory
from tests.servers.process import Process, session_members, wait_until
from tests.service import Service

pytestmark = pytest.mark.acceptance

HOLD = "tests.acceptance.fault_tasks.hold"
NOTE = "tests.acceptance.fault_tasks.note"
EFFECT = "tests.app.tasks.record_effect"
FOUR_THREADS: list[dict[str, Any]] = [{"name": "default", "concurrency": 4}]
ONE_THREAD: list[dict[str, Any]] = [{"name": "default", "concurrency": 1}]
SHORT_LEASE: dict[str, Any] = {"lease": 4.0, "heartbeat": 0.5}
WAITING_CLAIM = (
    "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database()"
    " AND application_name = 'carrot worker' AND wait_event_type = 'Lock'"
)


@everywhere
def test_a_worker_killed_in_the_middle_of_a_task_costs_one_attempt_and_no_task(
    project: ProjectFactory, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, queues=FOUR_THREADS)
    journal, gate = Journal(site), site.directory / "gate"
    site.service().wait_ready()
    before = [f"before{n}" for n in range(20)]
    publish_all(site, [(HOLD, str(journal.path), "held", str(gate)), *((EFFECT, name) for name in before)])
    pid = journal.wait_begun("held")
    site.wait_until(lambda: completed(site) == len(before))
    begun = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    # Long before the lease of 30 s is over: the master has seen it die.
    again = journal.wait_begun("held", times=2)
    assert time.monotonic() - begun < 15.0
    assert again != pid
    after = [f"after{n}" for n in range(20)]
    publish_all(site, [(EFFECT, name) for name in after])
    gate.touch()
    invariants.wait_for_rest(site)
    invariants.check_completed_once(site, invariants.effects(site), before + after)
    invariants.check_completed_once(site, journal.runs(), ["held"])
    held = invariants.row_of(site, "held")
    assert (held["tries"], held["crashes"]) == (2, 1)
    history = site.sql("SELECT number FROM carrot_attempt WHERE message_log_id = %s", [held["id"]])
    assert history == [{"number": 1}]


@on_postgresql
def test_a_worker_killed_while_its_claim_waits_for_a_lock_claims_nothing(
    project: ProjectFactory, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, queues=FOUR_THREADS)
    names = [f"n{n}" for n in range(10)]
    publish_all(site, [(EFFECT, name) for name in names], confirmed=broker == "amqp")
    with site.connect() as connection:
        connection.execute("BEGIN")
        if broker == "amqp":
            connection.execute("SELECT id FROM carrot_messagelog ORDER BY id LIMIT 1 FOR UPDATE")
        else:  # whose claims pass over locked rows
            connection.execute("LOCK TABLE carrot_messagelog IN EXCLUSIVE MODE")
        site.service().wait_ready()
        site.wait_until(WAITING_CLAIM)
        killed = invariants.living_workers(site)
        assert len(killed) == 1
        os.kill(killed[0], signal.SIGKILL)
        site.wait_until(
            lambda: len(new := invariants.living_workers(site)) == 1 and new != killed,
            message="another worker has taken the place of the dead one",
        )
        connection.execute("ROLLBACK")
    invariants.wait_for_rest(site)
    invariants.check_completed_once(site, invariants.effects(site), names)
    # The dead worker's transaction never came to its COMMIT: no task was claimed in its name.
    counts = site.sql("SELECT DISTINCT tries, crashes FROM carrot_messagelog")
    assert counts == [{"tries": 1, "crashes": 0}]


@everywhere
def test_a_service_killed_as_a_whole_loses_nothing_and_its_next_start_ends_the_work(
    project: ProjectFactory, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, queues=FOUR_THREADS, **SHORT_LEASE)
    journal, gate = Journal(site), site.directory / "gate"
    service = site.service("--processes", "2")
    service.wait_ready()
    names = [f"n{n}" for n in range(400)]
    publish_all(site, [(HOLD, str(journal.path), "held", str(gate)), *((EFFECT, name) for name in names)])
    journal.wait_begun("held")
    site.wait_until(lambda: completed(site) >= 100)
    service.kill()
    rows = site.sql("SELECT args FROM carrot_messagelog WHERE status = 'IN_PROGRESS'")
    claimed = {invariants.name_of(row) for row in rows}
    assert "held" in claimed
    invariants.check_always(site)
    gate.touch()
    site.service("--processes", "2").wait_ready()
    invariants.wait_for_rest(site)
    runs = invariants.effects(site)
    # Only what was claimed at that moment may have run a second time.
    invariants.check_completed_once(site, runs, sorted(set(names) - claimed))
    assert {runs[name] for name in claimed - {"held"}} <= {1, 2}
    invariants.check_completed_once(site, journal.runs(), ["held"])
    assert len(journal.lines("begin", "held")) == 2
    # Nobody saw it die in the middle of a task, so nobody is blamed.
    assert site.sql("SELECT DISTINCT crashes FROM carrot_messagelog") == [{"crashes": 0}]


@corners
def test_workers_killed_again_and_again_under_load_lose_nothing(
    project: ProjectFactory, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, queues=FOUR_THREADS)
    journal = Journal(site)
    service = site.service("--processes", "2")
    service.wait_ready()
    with Load(site, journal) as load:
        load.work_goes_on(50)
        for _ in range(4):
            os.kill(invariants.living_workers(site)[0], signal.SIGKILL)
            load.work_goes_on(50)
        load.finish()
    invariants.wait_for_rest(site)
    rows = site.sql("SELECT args, status, tries FROM carrot_messagelog")
    tries = {invariants.name_of(row): row["tries"] for row in rows}
    assert {row["status"] for row in rows} == {"COMPLETED"}
    invariants.check_reconciler_idle(service)
    runs = journal.runs()
    # Each claim runs a task once at most, and only what was claimed by a worker that died is claimed again.
    assert set(load.committed()) == set(tries)
    assert [name for name in tries if not 1 <= runs[name] <= tries[name]] == []


@everywhere
def test_a_task_that_kills_its_worker_fails_after_three_and_its_neighbours_complete(
    project: ProjectFactory, database: Database, broker: Broker
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


@on_postgresql
def test_tasks_of_a_service_frozen_for_longer_than_its_lease_run_elsewhere_and_its_late_outcomes_are_dropped(
    project: ProjectFactory, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, queues=[{"name": "default", "concurrency": 2}], **SHORT_LEASE)
    journal = Journal(site)
    gates = {name: site.directory / f"gate-{name}" for name in ("one", "two")}
    frozen = site.service()
    frozen.wait_ready()
    publish_all(site, [(HOLD, str(journal.path), name, str(gate)) for name, gate in gates.items()])
    for name in gates:
        journal.wait_begun(name)
    if broker == "amqp":  # no message is on its way to it: with all threads busy it stops consuming
        site.wait_until(lambda: invariants.depth(site)[1] == 0, message="the queue has no consumer")
    members = freeze(site, frozen)
    other = site.service()
    other.wait_ready()
    for name in gates:
        journal.wait_begun(name, times=2)
    gates["one"].touch()  # runs to its end elsewhere before the frozen service goes on, the other one after
    site.wait_until(lambda: invariants.row_of(site, "one")["status"] == "COMPLETED")
    final = invariants.row_of(site, "one")
    for member in members:
        member.signal(signal.SIGCONT)
    # Of the two, one ran to its end there as well; its worker learns that it was taken for lost, and goes.
    site.wait_until(lambda: len(journal.lines("end", "one")) == 2 or "taken for lost" in frozen.output())
    site.wait_until(lambda: "taken for lost" in frozen.output(), message="the frozen worker has given itself up")
    assert invariants.row_of(site, "one") == final
    gates["two"].touch()
    invariants.wait_for_rest(site)
    two = invariants.row_of(site, "two")
    assert (final["status"], final["tries"], final["fence"]) == ("COMPLETED", 2, 2)
    assert (two["status"], two["tries"], two["fence"]) == ("COMPLETED", 2, 2)
    names = {row["service_pid"]: row["id"] for row in site.sql("SELECT id, service_pid FROM carrot_workerprocess")}
    assert final["worker_id"] == two["worker_id"] == names[other.pid]
    # Both services are of use again.
    publish_all(site, [(EFFECT, f"n{n}") for n in range(20)])
    invariants.wait_for_rest(site)
    invariants.check_completed_once(site, invariants.effects(site), [f"n{n}" for n in range(20)])


def freeze(site: Project, service: Service) -> list[Process]:
    """SIGSTOP every process of a service at a moment when none of them is within a transaction."""
    within = (
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND state IN ('active', 'idle in transaction')"
    )
    deadline = time.monotonic() + 30.0
    while time.monotonic() < deadline:
        members = session_members(service.pid)
        for member in members:
            member.signal(signal.SIGSTOP)
        if wait_until(lambda: not site.sql(within), 0.3):
            return members
        for member in members:
            member.signal(signal.SIGCONT)
    raise AssertionError("The service was within a transaction at every look.")


@pytest.mark.slow
@on_postgresql_and_rabbitmq
def test_workers_whose_master_was_killed_end_by_themselves_and_their_tasks_run_again(
    project: ProjectFactory, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, queues=ONE_THREAD, **SHORT_LEASE)
    journal, gate = Journal(site), site.directory / "gate"
    service = site.service()
    service.wait_ready()
    publish_all(site, [(HOLD, str(journal.path), "held", str(gate))])
    journal.wait_begun("held")
    service.send(signal.SIGKILL)
    site.wait_until(lambda: site.processes() == [], message="no process is left")
    gate.touch()
    site.service().wait_ready()
    invariants.wait_for_rest(site)
    invariants.check_completed_once(site, journal.runs(), ["held"])


@on_postgresql_and_rabbitmq
def test_a_maintenance_process_that_is_killed_is_replaced_and_no_task_notices(
    project: ProjectFactory, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, queues=FOUR_THREADS, **SHORT_LEASE)
    journal, gate = Journal(site), site.directory / "gate"
    service = site.service()
    service.wait_ready()
    publish_all(site, [(HOLD, str(journal.path), "held", str(gate))])
    worker = journal.wait_begun("held")
    (maintenance,) = set(service.children()) - {worker}
    os.kill(maintenance, signal.SIGKILL)
    site.wait_until(lambda: len(set(service.children()) - {worker, maintenance}) == 1, message="it is replaced")
    (row,) = site.sql("SELECT id, beat FROM carrot_workerprocess WHERE alive")
    # Beats come from the new one: more of them than fit into the lease.
    site.wait_until(f"SELECT beat > {row['beat'] + 10} FROM carrot_workerprocess WHERE id = {row['id']} AND alive")
    gate.touch()
    invariants.wait_for_rest(site)
    assert journal.lines("begin", "held") == [("held", worker)]
    assert invariants.living_workers(site) == [worker]
