"""A database that does not answer, or takes no connection: the network swallows everything, or others have them all."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from tests.faults import invariants
from tests.faults.changed_settings import lead_services_through
from tests.faults.combinations import on_postgresql, on_postgresql_and_rabbitmq
from tests.faults.crowd import Crowd
from tests.faults.form import Form
from tests.faults.load import Journal, publish_all
from tests.faults.packet_loss import LossyProxy
from tests.faults.proxy import FaultProxy
from tests.faults.report import Record
from tests.faults.workload import Workload
from tests.project import Broker, Database, Project, ProjectFactory
from tests.servers import PostgreSQL
from tests.service import Service

HOLD = "tests.faults.fault_tasks.hold"
#: Timeouts of the short form. Those of the full one are carrot's own: 10 s to connect, 20 s until an acknowledgement.
QUICK = {
    "connect_timeout": 2,
    "tcp_user_timeout": 3000,
    "keepalives_idle": 1,
    "keepalives_interval": 1,
    "keepalives_count": 3,
}
#: Ends the sessions of the project but the one that asks; returns what there was.
OTHERS_OF_SITE = (
    "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
#: Threads of two services that may want a connection: executors, claimer, recorder, publisher of two workers each, and
#: the loops of maintenance. Seconds between two tries of one.
THREADS, RETRY = 2 * (2 * (4 + 3) + 8), 0.5
#: Seconds over the grace after which a service that is stopped is gone, whatever its database does.
OVERTIME = 15.0


@pytest.fixture
def lossy_proxy(postgresql: PostgreSQL) -> Iterator[LossyProxy]:
    """A network before PostgreSQL that can lose packets."""
    with LossyProxy(postgresql.port) as proxy:
        yield proxy


@pytest.mark.scenario("F28")
@on_postgresql
def test_services_cut_off_by_a_network_that_loses_everything_connect_anew_when_it_is_over(
    project: ProjectFactory,
    lossy_proxy: LossyProxy,
    form: Form,
    scenario: Record,
    database: Database,
    broker: Broker,
) -> None:
    site = project(database=database, broker=broker, **form.settings)
    lead_services_through(site, lossy_proxy.port, **({} if form.full else QUICK))
    with Workload(site, form, scenario) as load:
        children, workers = [set(service.children()) for service in load.services], invariants.living_workers(site)
        before = lossy_proxy.accepted
        lossy_proxy.lose_packets()
        scenario.fault()
        load.go_on(50)  # by producers that are not concerned: what they publish is delivered and cannot be claimed
        for service in load.services:
            site.wait_until(
                lambda service=service: "time" in trouble(service) and "connection" in trouble(service),
                form.seconds(30.0, 60.0),
                "timeouts have ended its connections",
            )
        time.sleep(form.seconds(2.0, 90.0))  # the fault itself
        lossy_proxy.pass_on()
        back = time.monotonic()
        assert load.resumed(after=back) < form.limit(5.0)
        assert lossy_proxy.accepted > before
        load.work_goes_on(50)
        site.wait_until(lambda: time.monotonic() > back + 2 * form.lease, 90.0, "time enough to be taken for lost")
        load.finish()
    load.check(stop=False)
    assert [set(service.children()) for service in load.services] == children
    assert invariants.living_workers(site) == workers
    for service in load.services:
        invariants.check_reconciler_idle(service)
    load.stop()


@pytest.mark.scenario("F28")
@on_postgresql_and_rabbitmq
def test_a_service_whose_connections_are_half_open_is_replaced_by_another_and_can_be_stopped(
    project: ProjectFactory,
    database_proxy: FaultProxy,
    form: Form,
    scenario: Record,
    database: Database,
    broker: Broker,
) -> None:
    site = project(database=database, broker=broker, grace=form.seconds(2.0, 25.0), **form.settings)
    with Workload(site, form, scenario, services=1) as load:
        lead_services_through(site, database_proxy.port)
        cut_off = load.start_service()
        slots = load.processes * load.threads
        held = [f"held{n}" for n in range(2 * slots)]  # for all threads of both
        gate = site.directory / "gate"
        publish_all(site, [(HOLD, str(load.journal.path), name, str(gate)) for name in held])
        children = set(cut_off.children())
        site.wait_until(lambda: children & {pid for _name, pid in load.journal.lines("begin")}, message="it works")
        database_proxy.half_open()
        scenario.fault()
        gone = time.monotonic()
        site.wait_until(
            lambda: not children.intersection(invariants.living_workers(site)),
            form.limit(form.lease + 10.0),
            "it is taken for lost",
        )
        scenario.recovered(time.monotonic() - gone)
        gate.touch()
        load.work_goes_on(50)
        check_stops(site, cut_off, form, scenario)
        load.services.remove(cut_off)
        load.finish()
    load.check(extra_runs=slots * 3)  # what it ran, and could not write any more, has run again


@pytest.mark.scenario("F28")
@on_postgresql
def test_a_service_is_stopped_while_a_black_hole_swallows_what_it_asks_the_database(
    project: ProjectFactory,
    database_proxy: FaultProxy,
    form: Form,
    scenario: Record,
    database: Database,
    broker: Broker,
) -> None:
    site = project(database=database, broker=broker, grace=form.seconds(2.0, 25.0), **form.settings)
    lead_services_through(site, database_proxy.port)
    journal, gate = Journal(site), site.directory / "gate"
    service = site.service("--processes", "2")
    service.wait_ready()
    publish_all(site, [(HOLD, str(journal.path), "held", str(gate))])
    journal.wait_begun("held")
    database_proxy.black_hole()
    scenario.fault()
    time.sleep(2.0)  # the fault itself: by now every thread waits for an answer
    check_stops(site, service, form, scenario)
    database_proxy.pass_on()
    gate.touch()
    site.service().wait_ready()
    invariants.wait_for_rest(site)
    invariants.check_completed_once(site, journal.runs(), ["held"])


@pytest.mark.scenario("F32")
@on_postgresql
def test_services_that_others_leave_no_connection_say_so_and_come_back_when_there_is_one(
    project: ProjectFactory,
    postgresql: PostgreSQL,
    database_proxy: FaultProxy,
    form: Form,
    scenario: Record,
    database: Database,
    broker: Broker,
) -> None:
    lease = form.seconds(6.0, form.lease)  # short, and no busy machine lets a process stand still for so long
    site = project(database=database, broker=broker, **form.settings | {"lease": lease})
    lead_services_through(site, database_proxy.port)
    with Workload(site, form, scenario) as load:
        children = [set(service.children()) for service in load.services]
        with site.connect() as own, Crowd(postgresql) as crowd:
            assert crowd.full.wait(30.0)
            scenario.fault()

            def alone() -> bool:
                if own.execute(OTHERS_OF_SITE).fetchall():
                    return False
                time.sleep(1.0)  # in which all of them have tried again
                return own.execute(OTHERS_OF_SITE).fetchall() == []

            site.wait_until(alone, 60.0, "all sessions of the site are ended, and none comes back")
            away, knocked = time.monotonic(), database_proxy.accepted
            time.sleep(form.seconds(lease + 2.0, 60.0))  # the fault itself
            knocks = (database_proxy.accepted - knocked) / (time.monotonic() - away)
            for service in load.services:
                assert "too many clients" in trouble(service)
            crowd.leave()
        back = time.monotonic()
        assert load.resumed(after=back) < form.limit(5.0)
        load.work_goes_on(50)
        load.finish()
    load.check(stop=False)
    scenario.remark(f"{knocks:.0f} tries to connect a second")
    assert 0 < knocks < THREADS / RETRY, "a thread that waits tries again every half second, or more rarely"
    assert [set(service.children()) for service in load.services] == children
    for service in load.services:
        invariants.check_reconciler_idle(service)
        assert "gave no sign" not in service.output()
    load.stop()


def check_stops(site: Project, service: Service, form: Form, scenario: Record) -> None:
    """One SIGTERM ends it in time, as soon as its grace is over, and nothing of it is left."""
    grace = float(site.settings["grace"])
    members = set(service.children())
    stopped_at = time.monotonic()
    service.send(signal.SIGTERM)
    assert service.wait(grace + 10 * OVERTIME) == 0, service.output()
    took = time.monotonic() - stopped_at
    scenario.remark(f"stopped {took - grace:.1f} s over the grace")
    assert took < form.limit(grace + OVERTIME), service.output()
    assert not members.intersection(site.processes())


def trouble(service: Service) -> str:
    """What a service says of its database while it does not answer."""
    return "\n".join(line for line in service.output().splitlines() if " waits: " in line or "wait for the" in line)
