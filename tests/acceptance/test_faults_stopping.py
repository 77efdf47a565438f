"""A service that is told to stop while it has work."""

from __future__ import annotations

import signal
import time

import pytest

from tests.acceptance import invariants
from tests.acceptance.combinations import corners, everywhere, on_postgresql
from tests.acceptance.load import Journal, Load, publish_all
from tests.project import Broker, Database, ProjectFactory

pytestmark = pytest.mark.acceptance

HOLD = "tests.acceptance.fault_tasks.hold"
NOTE = "tests.acceptance.fault_tasks.note"
FOUR_THREADS = [{"name": "default", "concurrency": 4}]


@everywhere
def test_a_service_stopped_under_load_loses_nothing_and_runs_nothing_twice(
    project: ProjectFactory, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, queues=FOUR_THREADS)
    journal = Journal(site)
    with Load(site, journal) as load:
        for _ in range(2):
            service = site.service("--processes", "2")
            service.wait_ready()
            load.work_goes_on(100)
            assert service.stop() == 0, service.output()
            assert site.sql("SELECT id FROM carrot_messagelog WHERE status = 'IN_PROGRESS'") == []
            assert invariants.living_workers(site) == []
        load.finish()
    if broker == "amqp":
        invariants.check_bells(site)
    names = load.committed()
    service = site.service("--processes", "2")
    service.wait_ready()
    invariants.wait_for_rest(site)
    invariants.check_reconciler_idle(service)
    invariants.check_completed_once(site, journal.runs(), names)
    assert site.sql("SELECT DISTINCT tries FROM carrot_messagelog") == [{"tries": 1}]


@corners
def test_a_task_finishes_within_the_grace_of_a_stop_and_one_that_does_not_runs_again(
    project: ProjectFactory, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, queues=FOUR_THREADS, grace=4.0)
    journal = Journal(site)
    gates = {name: site.directory / f"gate-{name}" for name in ("in-time", "too-long")}
    service = site.service()
    service.wait_ready()
    publish_all(site, [(HOLD, str(journal.path), name, str(gate)) for name, gate in gates.items()])
    for name in gates:
        journal.wait_begun(name)
    service.send(signal.SIGTERM)
    site.wait_until(lambda: "Stopping" in service.output())
    gates["in-time"].touch()
    assert service.wait(40.0) == 0
    assert invariants.row_of(site, "in-time")["status"] == "COMPLETED"
    assert invariants.row_of(site, "too-long")["status"] == "PUBLISHED"
    invariants.check_stopped(site)
    gates["too-long"].touch()
    site.service().wait_ready()
    invariants.wait_for_rest(site)
    invariants.check_completed_once(site, journal.runs(), list(gates))
    assert (invariants.row_of(site, "in-time")["tries"], invariants.row_of(site, "too-long")["tries"]) == (1, 2)


@on_postgresql
def test_a_service_that_is_stopped_waits_for_outcomes_that_the_database_is_slow_to_take(
    project: ProjectFactory, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, queues=FOUR_THREADS)
    journal = Journal(site)
    names = [f"n{n}" for n in range(4)]
    with site.connect() as connection:
        connection.execute(
            "CREATE FUNCTION wait_a_while() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END $$"
        )
        connection.execute(
            "CREATE TRIGGER outcome BEFORE UPDATE ON carrot_messagelog FOR EACH ROW"
            " WHEN (NEW.status = 'COMPLETED') EXECUTE FUNCTION wait_a_while()"
        )
        connection.execute("SELECT pg_advisory_lock(1)")
        service = site.service()
        service.wait_ready()
        publish_all(site, [(NOTE, str(journal.path), name) for name in names])
        site.wait_until(lambda: len(journal.runs()) == len(names))
        service.send(signal.SIGTERM)
        site.wait_until(lambda: "Stopping" in service.output())
        time.sleep(3.0)  # the fault itself: for so long no outcome can be written
    assert service.wait(40.0) == 0
    invariants.wait_for_rest(site)
    invariants.check_completed_once(site, journal.runs(), names)
    assert site.sql("SELECT DISTINCT tries FROM carrot_messagelog") == [{"tries": 1}]
