"""A service that is told to stop while it has work."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Sequence

import pytest

from tests.faults import invariants
from tests.faults.combinations import corners, on_postgresql
from tests.faults.form import Form
from tests.faults.load import Journal, Load, publish_all
from tests.faults.proxy import FaultProxy
from tests.faults.report import Record
from tests.faults.workload import Workload
from tests.project import Broker, Database, Project, ProjectFactory
from tests.servers import PostgreSQL
from tests.service import Service

pytestmark = pytest.mark.acceptance

HOLD = "tests.faults.fault_tasks.hold"
NOTE = "tests.faults.fault_tasks.note"
NAP = "tests.faults.fault_tasks.nap"
EFFECT = "tests.faults.fault_tasks.effect"
FOUR_THREADS = [{"name": "default", "concurrency": 4}]
#: What a service may be told before it has stopped.
SIGNALS = [
    (signal.SIGTERM,),
    (signal.SIGTERM, signal.SIGTERM),
    (signal.SIGINT, signal.SIGINT),
    (signal.SIGQUIT,),
    (signal.SIGTERM, signal.SIGQUIT),
    (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT),
]


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


@pytest.mark.scenario("F03")
@corners
def test_services_stopped_in_turn_under_load_lose_nothing_and_run_nothing_twice(
    project: ProjectFactory, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, **form.calm_settings)
    with Workload(site, form, scenario) as load:
        for _ in range(form.times(3, 20)):
            load.work_goes_on(20)
            scenario.fault()
            oldest = load.running_services()[0]
            assert oldest.stop() == 0, oldest.output()
            check_nothing_left(site, oldest)
            load.start_service()
        load.finish()
    balance = load.check()
    assert balance.doubled_plain == {}
    assert site.sql("SELECT DISTINCT tries FROM carrot_messagelog") == [{"tries": 1}]
    for service in load.services:
        invariants.check_reconciler_idle(service)


@pytest.mark.scenario("F04")
@on_postgresql
def test_services_stopped_at_any_moment_before_a_slow_database_leave_no_task_in_progress(
    project: ProjectFactory,
    postgresql: PostgreSQL,
    database_proxy: FaultProxy,
    form: Form,
    scenario: Record,
    database: Database,
    broker: Broker,
) -> None:
    # The lease is the long one: nobody but the services themselves releases what they leave.
    site = project(database=database, broker=broker, queues=FOUR_THREADS)
    journal, through_proxy = Journal(site), postgresql.url.replace(f":{postgresql.port}", f":{database_proxy.port}")
    long: list[str] = []
    with Load(site, journal) as load:
        for wave in range(form.times(1, 9)):
            database_proxy.pass_on()
            services = [site.service(env={"CARROT_TEST_POSTGRES": through_proxy}) for _ in SIGNALS]
            for service in services:
                service.wait_ready(60.0)
            database_proxy.delay(0.3)
            names = [f"{kind}{wave}-{n}" for n in range(4 * len(services)) for kind in ("nap", "effect")]
            long += names
            publish_all(site, [task_for(name, journal, form.random.uniform(0.0, 1.5)) for name in names])
            load.work_goes_on(20)
            send_all(services, form.random, scenario)
            for service in services:
                assert service.wait(60.0) == 0, service.output()
            assert site.sql("SELECT id FROM carrot_messagelog WHERE status = 'IN_PROGRESS'") == []
            assert invariants.living_workers(site) == []
        load.finish()
    invariants.check_stopped(site)
    site.service().wait_ready()
    invariants.wait_for_rest(site, 120.0)
    rows = site.sql("SELECT args, status, tries, crashes FROM carrot_messagelog")
    assert {(row["status"], row["crashes"]) for row in rows} == {("COMPLETED", 0)}
    tries = {invariants.name_of(row): row["tries"] for row in rows}
    runs, effects = journal.runs(), invariants.effects(site)
    scenario.sent, scenario.lost = len(tries), len(set(load.committed() + long) - tries.keys())
    assert scenario.lost == 0
    # What was over in a moment was written by the worker that ran it; the rest, by the last that was left the time.
    invariants.check_completed_once(site, runs, load.committed())
    assert [name for name in long if name.startswith("nap") and not 1 <= runs[name] <= tries[name]] == []
    assert [name for name in long if name.startswith("effect") and effects[name] != 1] == []


def task_for(name: str, journal: Journal, seconds: float) -> tuple[object, ...]:
    return (NAP if name.startswith("nap") else EFFECT, str(journal.path), name, seconds)


def send_all(services: Sequence[Service], chance: random.Random, scenario: Record) -> None:
    """Send each service the signals of its place in ``SIGNALS``, all of them at random moments within a second."""
    moments = sorted((chance.random(), index, number) for index, numbers in enumerate(SIGNALS) for number in numbers)
    begun = time.monotonic()
    for moment, index, number in moments:
        time.sleep(max(0.0, begun + moment - time.monotonic()))
        if services[index].returncode is None:
            services[index].send(number)
    scenario.fault(len(services))


def check_nothing_left(site: Project, service: Service) -> None:
    """A service that ended in order leaves no running task and no living worker."""
    own = f"(SELECT id FROM carrot_workerprocess WHERE service_pid = {service.pid})"
    assert site.sql(f"SELECT id FROM carrot_messagelog WHERE status = 'IN_PROGRESS' AND worker_id IN {own}") == []
    assert site.sql(f"SELECT id FROM carrot_workerprocess WHERE alive AND id IN {own}") == []
