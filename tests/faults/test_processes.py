"""Processes that are killed while they have work."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from tests.faults import invariants
from tests.faults.combinations import (
    corners,
    on_postgresql,
    on_postgresql_and_rabbitmq,
    on_postgresql_or_without_servers,
)
from tests.faults.form import Form
from tests.faults.load import Journal, completed, publish_all
from tests.faults.report import Record, quantile
from tests.faults.workload import Workload
from tests.project import Broker, Database, ProjectFactory

pytestmark = pytest.mark.acceptance

HOLD = "tests.faults.fault_tasks.hold"
EFFECT = "tests.app.tasks.record_effect"
FOUR_THREADS: list[dict[str, Any]] = [{"name": "default", "concurrency": 4}]
ONE_THREAD: list[dict[str, Any]] = [{"name": "default", "concurrency": 1}]
SHORT_LEASE: dict[str, Any] = {"lease": 4.0, "heartbeat": 0.5}
#: Seconds between two looks of a reaper, at most.
REAPER_LOOK = 1.0
WAITING_CLAIM = (
    "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database()"
    " AND application_name = 'carrot worker' AND wait_event_type = 'Lock'"
)


@corners
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


@on_postgresql_and_rabbitmq
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


@pytest.mark.alone
@pytest.mark.scenario("F01")
@on_postgresql_or_without_servers
def test_worker_children_killed_again_and_again_cost_attempts_and_no_task(
    project: ProjectFactory, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    with Workload(project(database=database, broker=broker, **form.settings), form, scenario) as load:
        for _ in range(form.times(4, 20)):
            killed_at = time.monotonic()
            load.kill_worker()
            load.work_goes_on(20)
            time.sleep(max(0.0, killed_at + form.seconds(1.0, 2.0) - time.monotonic()))  # so often it dies
        load.finish()
    load.check()
    assert quantile(scenario.recoveries, 0.95) < form.limit(2.0)


@pytest.mark.timed
@pytest.mark.scenario("F02")
@corners
def test_a_service_killed_under_load_costs_a_lease_and_no_task(
    project: ProjectFactory, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, **form.settings)
    gate = site.directory / "gate"
    with Workload(site, form, scenario) as load:
        for n in range(form.times(1, 3)):
            publish_all(site, [(HOLD, str(load.journal.path), f"held{n}", str(gate))])
            worker = load.journal.wait_begun(f"held{n}")
            killed = next(service for service in load.running_services() if worker in service.children())
            load.kill_service(killed)
            killed_at = time.monotonic()
            time.sleep(form.seconds(1.0, 5.0))  # so long its host is away
            load.start_service()
            site.wait_until(
                "SELECT count(*) = 0 FROM carrot_messagelog m JOIN carrot_workerprocess w ON m.worker_id = w.id"
                f" WHERE m.status = 'IN_PROGRESS' AND w.service_pid = {killed.pid}",
                timeout=form.lease + 60.0,
                message="the tasks of the killed service are released",
            )
            reaped = time.monotonic() - killed_at
            scenario.remark(f"reaped after {reaped:.1f} s, the lease is {form.lease:g} s")
            # A reaper sees the last beat late, by a look at most, and the end of the lease, by another.
            assert reaped < form.lease + form.limit(2 * REAPER_LOOK)
            load.journal.wait_begun(f"held{n}", times=2)
        gate.touch()
        load.finish()
    load.check()
    assert max(scenario.recoveries) < form.lease + form.limit(10.0)
    # Nobody saw it die in the middle of a task, so nobody is blamed.
    assert site.sql("SELECT DISTINCT crashes FROM carrot_messagelog") == [{"crashes": 0}]
