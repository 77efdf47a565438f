"""RabbitMQ that goes away, closes connections, or loses messages."""

from __future__ import annotations

import time
from collections.abc import Callable

import pika
import pytest

from tests.acceptance import invariants
from tests.acceptance.combinations import on_postgresql_and_rabbitmq, on_rabbitmq
from tests.acceptance.load import Journal, Latencies, Load, publish_all
from tests.project import Broker, Database, Project, ProjectFactory
from tests.servers import RabbitMQ

pytestmark = pytest.mark.acceptance

HOLD = "tests.acceptance.fault_tasks.hold"
NOTE = "tests.acceptance.fault_tasks.note"
#: Seconds that 99 of 100 calls of publish_message may take, and the longest, while the broker is away: a few ms on an
#: idle machine, but the calls wait for the database and for a processor, which the tests share with much else. A call
#: that waited for the broker would take as long as a connection attempt, or as the outage.
USUAL = 0.25
LONGEST = 2.0


def check_never_waited(latencies: Latencies) -> None:
    assert latencies.p99 < USUAL, latencies
    assert latencies.longest < LONGEST, latencies


def check_all_ran_once(site: Project, journal: Journal, load: Load) -> None:
    invariants.wait_for_rest(site)
    assert load.unknown() == []
    invariants.check_completed_once(site, journal.runs(), load.committed())


def run_with_an_outage(
    project: ProjectFactory, database: Database, end: Callable[[], None], begin: Callable[[], None], seconds: float
) -> None:
    """Publish and work while RabbitMQ is away for at least ``seconds``."""
    site = project(database=database, broker="amqp")
    journal = Journal(site)
    site.service("--processes", "2").wait_ready()
    with Load(site, journal) as load:
        load.work_goes_on(100)
        away_at = time.monotonic()
        end()
        load.go_on(100)
        while time.monotonic() < away_at + seconds:  # how long it is away is the fault, not a wait for something
            load.go_on(10)
        begin()
        load.work_goes_on(100)
        load.go_on(50)
        check_never_waited(load.finish())
    check_all_ran_once(site, journal, load)


@on_rabbitmq
def test_publishing_goes_on_while_rabbitmq_is_away_and_every_task_runs_once_when_it_is_back(
    project: ProjectFactory, rabbitmq: RabbitMQ, database: Database, broker: Broker
) -> None:
    # Longer than a publisher keeps what it could not send: after that it is the relay's to send.
    run_with_an_outage(project, database, rabbitmq.suspend, rabbitmq.resume, 6.0)


@pytest.mark.slow
@on_postgresql_and_rabbitmq
def test_rabbitmq_stopped_for_twenty_seconds_delays_tasks_and_nothing_else(
    project: ProjectFactory, rabbitmq: RabbitMQ, database: Database, broker: Broker
) -> None:
    run_with_an_outage(project, database, rabbitmq.stop, rabbitmq.start, 20.0)


@pytest.mark.slow
@on_postgresql_and_rabbitmq
def test_no_task_is_lost_when_rabbitmq_crashes(
    project: ProjectFactory, rabbitmq: RabbitMQ, database: Database, broker: Broker
) -> None:
    run_with_an_outage(project, database, rabbitmq.kill, rabbitmq.start, 0.0)


@on_rabbitmq
def test_closing_all_connections_again_and_again_loses_nothing_and_runs_nothing_twice(
    project: ProjectFactory, rabbitmq: RabbitMQ, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker)
    journal = Journal(site)
    service = site.service("--processes", "2")
    service.wait_ready()
    with Load(site, journal) as load:
        load.work_goes_on(50)
        for _ in range(3):
            rabbitmq.close_all_connections("a test", vhost_of(site))
            load.work_goes_on(50)
        check_never_waited(load.finish())
    check_all_ran_once(site, journal, load)
    invariants.check_reconciler_idle(service)


def vhost_of(site: Project) -> str:
    return str(site.settings["default_broker"]).rpartition("/")[2]


@on_rabbitmq
def test_a_task_that_runs_while_its_connection_is_closed_runs_once(
    project: ProjectFactory, rabbitmq: RabbitMQ, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker)
    journal, gate = Journal(site), site.directory / "gate"
    service = site.service()
    service.wait_ready()
    publish_all(site, [(HOLD, str(journal.path), "held", str(gate))])
    journal.wait_begun("held")
    rabbitmq.close_all_connections("a test", vhost_of(site))
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
