"""A database that ends sessions, crashes, or fails in the middle of a worker's bookkeeping."""

from __future__ import annotations

import time

import pytest

from tests.faults import invariants
from tests.faults.combinations import on_postgresql, on_postgresql_and_rabbitmq
from tests.faults.form import Form
from tests.faults.load import Journal, publish_all
from tests.faults.report import Record
from tests.faults.workload import Workload
from tests.project import Broker, Database, ProjectFactory
from tests.servers import PostgreSQL
from tests.service import Service

HOLD = "tests.faults.fault_tasks.hold"
NOTE = "tests.faults.fault_tasks.note"
#: Seconds in which what was claimed before a fault has begun.
CLAIMED = 3.0
#: Seconds of the lease in the short form: it has to end in a test, and no busy machine lets a process stand still so
#: long. Seconds after its end in which it is noticed, and more.
LEASE, NOTICED = 6.0, 2.0


def check_nobody_was_replaced(services: list[Service], children: list[set[int]]) -> None:
    """No process ended over it, and no message was lost on the way, which only the reconciler would have found."""
    assert [set(service.children()) for service in services] == children
    for service in services:
        invariants.check_reconciler_idle(service)
        assert "gave no sign" not in service.output()


@pytest.mark.scenario("F26")
@on_postgresql
def test_sessions_ended_again_and_again_lose_no_task_and_no_outcome(
    project: ProjectFactory, postgresql: PostgreSQL, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    lease = form.seconds(LEASE, form.lease)
    site = project(database=database, broker=broker, **form.settings | {"lease": lease})
    with Workload(site, form, scenario) as load:
        children = [set(service.children()) for service in load.services]
        for _ in range(form.times(4, 60)):
            ended_at = time.monotonic()
            assert postgresql.terminate_sessions(site.database_name) > 0
            scenario.fault()
            load.go_on(10)
            time.sleep(max(0.0, ended_at + 1.0 - time.monotonic()))  # so often they are ended
        assert load.resumed(after=ended_at) < form.limit(5.0)
        load.work_goes_on(20)
        site.wait_until(lambda: time.monotonic() > ended_at + lease + NOTICED, 90.0, "time enough to be taken for lost")
        load.finish()
    load.check(stop=False)
    check_nobody_was_replaced(load.services, children)
    load.stop()


@pytest.mark.scenario("F27")
@on_postgresql
def test_a_crash_of_the_database_pauses_the_work_and_neither_tasks_nor_workers_are_lost_over_it(
    project: ProjectFactory, postgresql: PostgreSQL, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    lease = form.seconds(LEASE, form.lease)
    site = project(database=database, broker=broker, **form.settings | {"lease": lease})
    gate = site.directory / "gate"
    with Workload(site, form, scenario) as load:
        children, workers = [set(service.children()) for service in load.services], invariants.living_workers(site)
        publish_all(site, [(HOLD, str(load.journal.path), "held", str(gate))])
        load.journal.wait_begun("held")
        postgresql.kill()
        scenario.fault()
        away = time.monotonic()
        gate.touch()
        site.wait_until(lambda: load.journal.runs()["held"] == 1, message="the task has ended, without a database")
        time.sleep(form.seconds(lease + NOTICED, 20.0) - (time.monotonic() - away))  # the fault itself
        begun = [mark for mark in load.journal.marks() if mark.what == "begin" and mark.at > away + CLAIMED]
        postgresql.start()
        back = time.monotonic()
        assert load.resumed(after=back) < form.limit(5.0)
        load.work_goes_on(50)
        site.wait_until(lambda: time.monotonic() > back + lease + NOTICED, 90.0, "time enough to be taken for lost")
        load.finish()
    load.check(stop=False)
    assert begun == [], "the work pauses: nothing can be claimed"
    invariants.check_completed_once(site, load.journal.runs(), ["held"])
    assert len(load.journal.lines("begin", "held")) == 1
    assert invariants.living_workers(site) == workers
    check_nobody_was_replaced(load.services, children)
    load.stop()


@pytest.mark.scenario("F27")
@on_postgresql_and_rabbitmq
def test_nobody_is_declared_lost_where_the_first_beats_after_an_outage_come_late(
    project: ProjectFactory, postgresql: PostgreSQL, scenario: Record, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, lease=4.0, heartbeat=0.5)
    journal, gate = Journal(site), site.directory / "gate"
    services = [site.service(), site.service()]
    for service in services:
        service.wait_ready()
    names = ["one", "two"]
    publish_all(site, [(HOLD, str(journal.path), name, str(gate)) for name in names])
    for name in names:
        journal.wait_begun(name)
    workers = invariants.living_workers(site)
    # Heartbeats take a second from now on: after the outage every service reads the old ones before the first new one.
    site.sql(
        "CREATE FUNCTION take_a_second() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_sleep(1); RETURN NEW; END $$"
    )
    site.sql("CREATE TRIGGER slow BEFORE UPDATE ON carrot_workerprocess FOR EACH ROW EXECUTE FUNCTION take_a_second()")
    postgresql.kill()
    scenario.fault()
    time.sleep(6.0)  # the fault itself
    postgresql.start()
    beats = max(row["beat"] for row in site.sql("SELECT beat FROM carrot_workerprocess"))
    site.wait_until(f"SELECT count(*) = 2 FROM carrot_workerprocess WHERE alive AND beat > {beats + 3}")
    gate.touch()
    invariants.wait_for_rest(site)
    assert invariants.living_workers(site) == workers
    assert [name for name, _pid in sorted(journal.lines("begin"))] == names
    invariants.check_completed_once(site, journal.runs(), names)
    for service in services:
        assert "gave no sign" not in service.output()


WAITING = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    " AND application_name = 'carrot worker'"
)


@on_postgresql
def test_tasks_whose_hand_back_met_an_ended_session_are_released(
    project: ProjectFactory, postgresql: PostgreSQL, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker)
    journal, gate = Journal(site), site.directory / "gate"
    # While tasks are tiny many are claimed ahead; then one is long, and those ready behind it have to go back.
    tiny = [(NOTE, str(journal.path), f"tiny{n}") for n in range(300)]
    behind = [f"behind{n}" for n in range(40)]
    publish_all(
        site,
        [
            *tiny,
            (HOLD, str(journal.path), "long", str(gate)),
            *((NOTE, str(journal.path), name) for name in behind),
        ],
        confirmed=broker == "amqp",
    )
    with site.connect() as connection:
        # Seen from outside, a hand-back and a claim are both updates. A trigger lets nothing else wait for the lock.
        connection.execute(
            "CREATE FUNCTION wait_a_while() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END $$"
        )
        connection.execute(
            "CREATE TRIGGER hand_back BEFORE UPDATE ON carrot_messagelog FOR EACH ROW"
            " WHEN (NEW.hand_backs > OLD.hand_backs) EXECUTE FUNCTION wait_a_while()"
        )
        connection.execute("SELECT pg_advisory_lock(1)")
        service = site.service()
        service.wait_ready()
        site.wait_until(lambda: site.sql(WAITING), message="tasks are being handed back")
        connection.execute("SELECT pg_terminate_backend(pid) FROM (" + WAITING + ") AS waiting")
        connection.execute("DROP TRIGGER hand_back ON carrot_messagelog")
    only_one = "SELECT count(*) = 1 FROM carrot_messagelog WHERE status = 'IN_PROGRESS'"
    site.wait_until(only_one, message="no row but that of the long task is claimed")
    gate.touch()
    invariants.wait_for_rest(site)
    invariants.check_completed_once(site, journal.runs(), [*(str(call[2]) for call in tiny), "long", *behind])
    invariants.check_reconciler_idle(service)
