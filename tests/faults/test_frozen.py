"""Processes that freeze for longer than their lease, and go on as if nothing had happened."""

from __future__ import annotations

import time

import pytest

from tests.faults import invariants
from tests.faults.combinations import on_postgresql, on_postgresql_and_rabbitmq
from tests.faults.form import Form
from tests.faults.freezing import claims_of, freeze, maintenance_of, thaw, worker_pids
from tests.faults.load import publish_all
from tests.faults.report import Record
from tests.faults.workload import Workload
from tests.project import Broker, Database, ProjectFactory
from tests.servers.process import Process, session_members
from tests.service import Service

HOLD = "tests.faults.fault_tasks.hold"
HOLD_EFFECT = "tests.faults.fault_tasks.hold_effect"
#: Seconds between two looks of a reaper, at most; and after which the master kills a child that does not move.
REAPER_LOOK, STALLED = 1.0, 60.0


@pytest.mark.scenario("F05")
@on_postgresql
def test_tasks_of_a_service_frozen_for_longer_than_its_lease_run_elsewhere_and_its_late_outcomes_are_dropped(
    project: ProjectFactory, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, **form.settings)
    gate = site.directory / "gate"
    with Workload(site, form, scenario) as load:
        frozen, _worker = hold_one(load, "held", str(gate))
        before = worker_pids(site, frozen)
        members = session_members(frozen.pid)
        freeze(site, members)
        frozen_at = time.monotonic()
        scenario.fault()
        claimed = claims_of(site, frozen)
        assert "held" in claimed
        load.journal.wait_begun("held", times=2)
        recovered = time.monotonic() - frozen_at
        scenario.recovered(recovered)
        assert recovered < form.lease + form.limit(2 * REAPER_LOOK)
        gate.touch()  # runs to its end elsewhere, and then a second time where it stood still
        site.wait_until(lambda: invariants.row_of(site, "held")["status"] == "COMPLETED")
        final = invariants.row_of(site, "held")
        assert (final["tries"], final["fence"]) == (2, 2)
        load.work_goes_on(20)
        thaw(members)
        # Its workers learn that they were taken for lost, and go; others take their places.
        wait_for_other_workers(load, frozen, before)
        assert frozen.output().count("was taken for lost") == load.processes
        load.finish()
    balance = load.check(extra_runs=len(claimed))
    assert set(balance.doubled_plain) <= claimed
    assert invariants.row_of(site, "held") == final
    check_runs_are_tries(load)


@pytest.mark.scenario("F05")
@on_postgresql_and_rabbitmq
def test_workers_whose_leases_end_under_their_tasks_are_too_late_with_their_outcomes(
    project: ProjectFactory, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    """Nobody beats for them while the maintenance process is frozen; they themselves are well, and run tasks."""
    site = project(database=database, broker=broker, **form.settings)
    gate = site.directory / "gate"
    with Workload(site, form, scenario) as load:
        lost, _worker = hold_one(load, "held", str(gate), task=HOLD_EFFECT)
        before = worker_pids(site, lost)
        maintenance = [maintenance_of(site, lost)]
        freeze(site, maintenance)
        scenario.fault()
        other = Process.of(load.journal.wait_begun("held", times=2))
        assert other is not None
        freeze(site, [other])  # so that the first of the two ends first
        gate.touch()
        site.wait_until(lambda: "its outcome (FAILED) came late" in lost.output(), message="its outcome is refused")
        held = invariants.row_of(site, "held")
        assert (held["status"], held["fence"]) == ("IN_PROGRESS", 2)
        # With no lease it starts nothing: what it has, it gives back.
        assert claims_of(site, lost) == set()
        thaw([other])
        site.wait_until(lambda: invariants.row_of(site, "held")["status"] == "COMPLETED")
        load.work_goes_on(20)
        thaw(maintenance)
        wait_for_other_workers(load, lost, before)
        load.finish()
    load.check(extra_runs=load.processes * load.threads)
    assert len(load.journal.lines("written", "held")) == 2
    assert invariants.effects(site)["held"] == 1
    held = invariants.row_of(site, "held")
    assert (held["status"], held["tries"], held["fence"]) == ("COMPLETED", 2, 2)
    check_runs_are_tries(load)


@pytest.mark.scenario("F05")
@on_postgresql_and_rabbitmq
def test_a_worker_process_frozen_for_longer_than_the_lease_goes_on_where_it_stood(
    project: ProjectFactory, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    """Its service lives, knows that the process is there, and beats for it: nothing of it runs twice. A process that
    stays frozen is killed after a minute."""
    site = project(database=database, broker=broker, **form.settings)
    gate = site.directory / "gate"
    with Workload(site, form, scenario) as load:
        service, worker = hold_one(load, "held", str(gate))
        before = worker_pids(site, service)
        freeze(site, [worker])
        scenario.fault()
        time.sleep(form.lease + 2 * REAPER_LOOK)  # the fault itself
        load.work_goes_on(20)
        assert worker_pids(site, service) == before
        thaw([worker])
        gate.touch()
        site.wait_until(lambda: invariants.row_of(site, "held")["status"] == "COMPLETED")
        assert worker_pids(site, service) == before
        if form.full:
            replaced_when_it_stays_frozen(load, scenario)
        load.finish()
    balance = load.check(extra_runs=load.threads if form.full else 0)
    assert invariants.row_of(site, "held")["tries"] == 1
    assert form.full or balance.doubled_plain == {}
    check_runs_are_tries(load)


def replaced_when_it_stays_frozen(load: Workload, scenario: Record) -> None:
    gate = load.site.directory / "later"
    service, worker = hold_one(load, "stuck", str(gate))
    freeze(load.site, [worker])
    scenario.fault()
    frozen_at = time.monotonic()
    load.site.wait_until(lambda: not worker.alive, timeout=STALLED + 20.0, message="the frozen process is killed")
    load.journal.wait_begun("stuck", times=2)
    scenario.recovered(time.monotonic() - frozen_at)
    assert f"Process {worker.pid} does not move" in service.output()
    gate.touch()


def hold_one(load: Workload, name: str, gate: str, task: str = HOLD) -> tuple[Service, Process]:
    """Publish a task that runs until the gate is open; return the service and the process in which it runs."""
    publish_all(load.site, [(task, str(load.journal.path), name, gate)])
    pid = load.journal.wait_begun(name)
    process = Process.of(pid)
    assert process is not None
    return next(service for service in load.running_services() if pid in service.children()), process


def wait_for_other_workers(load: Workload, service: Service, before: set[int]) -> None:
    """Wait until none of the processes of before is left, and as many others do their work."""
    load.site.wait_until(
        lambda: len(now := worker_pids(load.site, service)) == load.processes and not now & before,
        timeout=60.0,
        message="other workers have taken the places of the lost ones",
    )


def check_runs_are_tries(load: Workload) -> None:
    """Each attempt has run once at most."""
    runs = load.journal.runs()
    rows = load.site.sql("SELECT args, tries FROM carrot_messagelog")
    tries = {invariants.name_of(row): row["tries"] for row in rows}
    assert {name: (runs[name], tries[name]) for name in tries if runs[name] > tries[name]} == {}
