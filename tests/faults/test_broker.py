"""RabbitMQ that goes away, closes connections, or loses messages."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence

import pika
import pytest

from tests.faults import invariants
from tests.faults.broker_log import BrokerLog, Connected
from tests.faults.calls import never_waited
from tests.faults.combinations import on_postgresql_and_rabbitmq, on_rabbitmq
from tests.faults.form import Form
from tests.faults.load import Journal, publish_all
from tests.faults.report import Record, quantile
from tests.faults.workload import Workload
from tests.project import Broker, Database, Project, ProjectFactory
from tests.servers import RabbitMQ

HOLD = "tests.faults.fault_tasks.hold"
NOTE = "tests.faults.fault_tasks.note"


def no_bell_was_lost(load: Workload) -> None:
    for service in load.services:
        invariants.check_reconciler_idle(service)


def go_through_an_outage(
    site: Project,
    rabbitmq: RabbitMQ,
    form: Form,
    scenario: Record,
    *,
    end: Callable[[], None],
    begin: Callable[[], None],
    seconds: float,
) -> None:
    """The workload goes on while RabbitMQ is away for at least ``seconds``."""
    log = BrokerLog(rabbitmq)
    with Workload(site, form, scenario) as load:
        load.work_goes_on(50)
        away = time.monotonic()
        end()
        scenario.fault()
        gone = time.monotonic()
        load.go_on(50)
        while time.monotonic() < gone + seconds:  # how long it is away is the fault, not a wait for something
            load.go_on(10)
        begin()
        back = log.listening(after=gone)
        assert load.resumed(after=back) < form.limit(5.0)
        load.work_goes_on(50)
        load.finish()
    load.check()
    never_waited(load, form, away, back)
    no_bell_was_lost(load)


@pytest.mark.timed
@pytest.mark.scenario("F11")
@on_rabbitmq
def test_rabbitmq_stopped_for_a_while_delays_tasks_and_nothing_else(
    project: ProjectFactory, rabbitmq: RabbitMQ, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    # Longer than a publisher keeps what it could not send: after that it is the relay's to send.
    settings = form.settings | {"confirm_timeout": form.seconds(3.0, 5.0)}
    site = project(database=database, broker=broker, **settings)
    go_through_an_outage(
        site,
        rabbitmq,
        form,
        scenario,
        end=rabbitmq.suspend,
        begin=rabbitmq.resume,
        seconds=form.seconds(4.0, 30.0),
    )


@pytest.mark.timed
@pytest.mark.scenario("F11")
@on_postgresql_and_rabbitmq
def test_no_task_is_lost_when_rabbitmq_crashes(
    project: ProjectFactory, rabbitmq: RabbitMQ, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, **form.settings)
    go_through_an_outage(
        site, rabbitmq, form, scenario, end=rabbitmq.kill, begin=rabbitmq.start, seconds=form.seconds(0.0, 10.0)
    )


@pytest.mark.timed
@pytest.mark.scenario("F13")
@on_rabbitmq
def test_connections_closed_again_and_again_come_back_and_nothing_runs_twice(
    project: ProjectFactory, rabbitmq: RabbitMQ, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, **form.settings)
    log, times = BrokerLog(rabbitmq), form.times(3, 30)
    with Workload(site, form, scenario) as load:
        load.work_goes_on(50)
        begun, consumers = time.monotonic(), len(load.services) * load.processes
        for _ in range(times):
            closed = time.monotonic()
            rabbitmq.close_all_connections("a test", vhost_of(site))
            scenario.fault()
            site.wait_until(lambda: invariants.depth(site)[1] == consumers, 30.0, "every worker consumes again")
            scenario.recovered(time.monotonic() - closed)
            load.work_goes_on(20)
            time.sleep(max(0.0, closed + 2.0 - time.monotonic()))  # so often they are closed
        ended = time.monotonic()
        load.finish()
    load.check()  # nothing may have run twice
    assert quantile(scenario.recoveries, 0.95) < form.limit(5.0)
    never_waited(load, form, begun, ended)
    no_bell_was_lost(load)
    assert "unknown delivery tag" not in log.text()
    check_reconnects(log.connected(), times)


def check_reconnects(connected: Sequence[Connected], times: int) -> None:
    """Check that nobody knocked more often than connections were closed."""
    found = Counter((each.purpose, each.pid) for each in connected)
    assert sum(purpose == "consumer" for purpose, _pid in found) == 4, found
    assert max(found.values()) <= times + 1, found


@pytest.mark.scenario("F13")
@on_postgresql_and_rabbitmq
def test_a_claim_that_outlives_its_connection_is_not_acknowledged_on_the_next_one(
    project: ProjectFactory, rabbitmq: RabbitMQ, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, queues=[{"name": "default", "concurrency": 4}], **form.settings)
    journal, log = Journal(site), BrokerLog(rabbitmq)
    names = [f"n{n}" for n in range(20)]
    publish_all(site, [(NOTE, str(journal.path), name) for name in names], confirmed=True)
    with site.connect() as connection:
        connection.execute(
            "CREATE FUNCTION wait_a_while() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NEW; END $$"
        )
        connection.execute(
            "CREATE TRIGGER claim BEFORE UPDATE ON carrot_messagelog FOR EACH ROW"
            " WHEN (NEW.status = 'IN_PROGRESS') EXECUTE FUNCTION wait_a_while()"
        )
        connection.execute("SELECT pg_advisory_lock(1)")
        service = site.service()
        service.wait_ready()
        site.wait_until("SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        rabbitmq.close_all_connections("a test", vhost_of(site))
        scenario.fault()
        site.wait_until(lambda: [each.purpose for each in log.connected()].count("consumer") == 2)
        # Four of the twenty, that is; a reconciler may have sent a marker.
        site.wait_until(lambda: invariants.depth(site)[0] <= 17, message="messages came over the new connection")
    invariants.wait_for_rest(site)
    invariants.check_completed_once(site, journal.runs(), names)
    assert "unknown delivery tag" not in log.text()
    invariants.check_reconciler_idle(service)
    assert invariants.depth(site) == (0, 1)


def vhost_of(site: Project) -> str:
    return str(site.settings["default_broker"]).rpartition("/")[2]


@pytest.mark.scenario("F13")
@on_rabbitmq
def test_a_task_that_runs_while_its_connection_is_closed_runs_once(
    project: ProjectFactory, rabbitmq: RabbitMQ, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, **form.settings)
    journal, gate = Journal(site), site.directory / "gate"
    service = site.service()
    service.wait_ready()
    publish_all(site, [(HOLD, str(journal.path), "held", str(gate))])
    journal.wait_begun("held")
    rabbitmq.close_all_connections("a test", vhost_of(site))
    scenario.fault()
    # The only thread is busy, so nothing is consumed; the connection itself is back.
    site.wait_until(lambda: "Connected to" in service.output() and "again (consumer)" in service.output())
    gate.touch()
    publish_all(site, [(NOTE, str(journal.path), "after")])
    invariants.wait_for_rest(site)
    invariants.check_completed_once(site, journal.runs(), ["held", "after"])
    assert len(journal.lines("begin", "held")) == 1


@pytest.mark.slow
@on_postgresql_and_rabbitmq
def test_messages_that_vanish_from_an_empty_queue_are_sent_again(
    project: ProjectFactory, rabbitmq: RabbitMQ, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, queues=[{"name": "default", "concurrency": 4}])
    journal = Journal(site)
    names = [f"n{n}" for n in range(20)]
    publish_all(site, [(NOTE, str(journal.path), name) for name in names], confirmed=True)
    invariants.check_bells(site)
    rabbitmq.ctl("purge_queue", "default", "--vhost", vhost_of(site))
    assert invariants.depth(site)[0] == 0
    service = site.service()
    service.wait_ready()
    invariants.wait_for_rest(site)
    assert "20 task(s) wait in it: they are rung again" in service.output()
    invariants.check_completed_once(site, journal.runs(), names)


@pytest.mark.slow
@on_postgresql_and_rabbitmq
def test_messages_that_vanish_from_a_queue_with_others_in_it_are_sent_again(
    project: ProjectFactory, rabbitmq: RabbitMQ, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker)
    journal, gate = Journal(site), site.directory / "gate"
    service = site.service()
    service.wait_ready()
    publish_all(site, [(HOLD, str(journal.path), "held", str(gate))])
    journal.wait_begun("held")
    names = [f"n{n}" for n in range(20)]
    publish_all(site, [(NOTE, str(journal.path), name) for name in names], confirmed=True)
    site.wait_until(lambda: invariants.depth(site) == (20, 0), message="nobody holds a message behind the long task")
    assert len(steal(site, 5)) == 5
    site.wait_until(lambda: invariants.depth(site)[0] == 16, message="the marker is in the queue")
    gate.touch()
    invariants.wait_for_rest(site)
    assert "The messages of 5 task(s) in queue default may be lost" in service.output()
    invariants.check_completed_once(site, journal.runs(), ["held", *names])


def steal(site: Project, count: int) -> list[str]:
    """Take messages out of the queue; return their ids."""
    with pika.BlockingConnection(pika.URLParameters(site.settings["default_broker"])) as connection:
        channel = connection.channel()
        return [channel.basic_get("default", auto_ack=True)[1].message_id for _ in range(count)]
