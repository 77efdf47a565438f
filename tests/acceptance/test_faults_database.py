"""A database that ends sessions, crashes, or fails in the middle of a worker's bookkeeping."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from tests.acceptance import invariants
from tests.acceptance.combinations import on_postgresql, on_postgresql_and_rabbitmq
from tests.acceptance.load import Journal, Load, publish_all
from tests.project import Broker, Database, Project, ProjectFactory
from tests.servers import PostgreSQL

pytestmark = pytest.mark.acceptance

HOLD = "tests.acceptance.fault_tasks.hold"
NOTE = "tests.acceptance.fault_tasks.note"


def check_all_ran_once(site: Project, journal: Journal, load: Load) -> None:
    """Committed tasks ran exactly once; those whose commit got no answer ran once if they are there, and else never."""
    invariants.wait_for_rest(site)
    runs = journal.runs()
    invariants.check_completed_once(site, runs, load.committed())
    rows = Counter(invariants.name_of(row) for row in site.sql("SELECT args FROM carrot_messagelog"))
    assert {name: runs[name] for name in load.unknown()} == {name: rows[name] for name in load.unknown()}
    assert site.sql("SELECT id FROM carrot_messagelog WHERE status <> 'COMPLETED' OR crashes > 0") == []


@on_postgresql
def test_ending_all_database_sessions_again_and_again_loses_no_task_and_no_outcome(
    project: ProjectFactory, postgresql: PostgreSQL, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, queues=[{"name": "default", "concurrency": 4}])
    journal = Journal(site)
    service = site.service("--processes", "2")
    service.wait_ready()
    children = set(service.children())
    with Load(site, journal) as load:
        load.work_goes_on(50)
        for _ in range(3):
            assert postgresql.terminate_sessions(site.database_name) > 0
            load.work_goes_on(50)
        load.finish()
    check_all_ran_once(site, journal, load)
    invariants.check_reconciler_idle(service)
    assert set(service.children()) == children, "no process had to be replaced"


@on_postgresql
def test_a_crash_of_the_database_under_load_loses_no_task_and_no_outcome(
    project: ProjectFactory, postgresql: PostgreSQL, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, queues=[{"name": "default", "concurrency": 4}])
    journal, gate = Journal(site), site.directory / "gate"
    service = site.service("--processes", "2")
    service.wait_ready()
    publish_all(site, [(HOLD, str(journal.path), "held", str(gate))])
    journal.wait_begun("held")
    with Load(site, journal) as load:
        load.work_goes_on(50)
        postgresql.kill()
        gate.touch()
        site.wait_until(lambda: journal.runs()["held"] == 1, message="the running task has ended, without a database")
        site.wait_until(lambda: "wait for the database" in service.output(), message="its outcome is kept")
        postgresql.start()
        load.work_goes_on(50)
        load.finish()
    check_all_ran_once(site, journal, load)
    invariants.check_completed_once(site, journal.runs(), ["held"])
    assert len(journal.lines("begin", "held")) == 1
    invariants.check_reconciler_idle(service)


@pytest.mark.slow
@on_postgresql_and_rabbitmq
def test_nobody_is_declared_lost_over_an_outage_of_the_database_longer_than_the_lease(
    project: ProjectFactory, postgresql: PostgreSQL, database: Database, broker: Broker
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
    time.sleep(10.0)  # the fault itself
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
