"""RabbitMQ that takes no more messages, as its memory or its disk is short of space.

It stops reading from connections that have published since, and from these alone: what is in the queues is delivered,
and acknowledged.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import pytest

from tests.faults import invariants
from tests.faults.backlog import backlog
from tests.faults.calls import never_waited
from tests.faults.combinations import on_postgresql_and_rabbitmq
from tests.faults.form import Form
from tests.faults.report import Record
from tests.faults.workload import Workload
from tests.project import Broker, Database, Project, ProjectFactory
from tests.servers import RabbitMQ
from tests.service import Service

#: Of a service with two workers, each of which may publish.
PROCESSES = 3
#: Workers of which the monitor says why their services cannot send messages.
TOLD = "FROM carrot_workerprocess WHERE alive AND unsent LIKE '%takes no messages: low on memory%'"
#: Seconds: the default of the setting.
GRACE = 25.0


def memory_alarm(rabbitmq: RabbitMQ) -> AbstractContextManager[None]:
    """RabbitMQ may use no memory to speak of, until the block ends."""
    return limited(rabbitmq, "vm_memory_monitor", "vm_memory_high_watermark", "0.00001")


def disk_alarm(rabbitmq: RabbitMQ) -> AbstractContextManager[None]:
    """RabbitMQ wants more of its disk to be free than there is, until the block ends."""
    return limited(rabbitmq, "rabbit_disk_monitor", "disk_free_limit", "1000000000000000")


@contextmanager
def limited(rabbitmq: RabbitMQ, monitor: str, limit: str, to: str) -> Iterator[None]:
    before = rabbitmq.evaluate(f"{monitor}:get_{limit}()")
    rabbitmq.evaluate(f"{monitor}:set_{limit}({to})")
    try:
        yield
    finally:
        rabbitmq.evaluate(f"{monitor}:set_{limit}({before})")


def messages(rabbitmq: RabbitMQ, site: Project) -> int:
    """How many messages the queue has, those on their way to a worker included."""
    vhost = site.broker_url.rpartition("/")[2]
    queue = f'rabbit_amqqueue:lookup(rabbit_misc:r(<<"{vhost}">>, queue, <<"default">>))'
    return int(rabbitmq.evaluate(f"{{ok, Q}} = {queue}, [{{messages, N}}] = rabbit_amqqueue:info(Q, [messages]), N"))


def stays_away(load: Workload, reason: str) -> None:
    """Wait until every service has noticed that RabbitMQ takes no messages."""
    load.site.wait_until(
        lambda: all(f"takes no messages: {reason}" in service.output() for service in load.running_services()),
        60.0,
        f"every service says {reason!r}",
    )


def said_once(service: Service, reason: str) -> None:
    """Check that the log says in one line for each process and alarm what is going on, and in one that it is over."""
    begins = service.output().count(f"takes no messages: {reason} (publisher). Tasks wait in the database")
    assert 1 <= begins <= PROCESSES, service.output()
    assert service.output().count("takes messages again (publisher)") == begins
    assert "No connection to" not in service.output()


@pytest.mark.timed
@pytest.mark.scenario("F14")
@on_postgresql_and_rabbitmq
def test_a_memory_alarm_parks_the_publishers_and_lets_the_consumers_drain_the_queue(
    project: ProjectFactory, rabbitmq: RabbitMQ, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, **form.settings)
    with Workload(site, form, scenario) as load:
        load.work_goes_on(50)
        workers = invariants.living_workers(site)
        with ExitStack() as until_over:
            with backlog(load):
                until_over.enter_context(memory_alarm(rabbitmq))
                scenario.fault()
                begun = time.monotonic()
            site.wait_until(lambda: messages(rabbitmq, site) == 0, 60.0, "the queue is drained, all acknowledged")
            stays_away(load, "low on memory")
            site.wait_until(f"SELECT count(*) = {len(workers)} {TOLD}", message="the monitor tells it of every worker")
            site.wait_until("SELECT count(*) = 0 FROM carrot_messagelog WHERE status = 'IN_PROGRESS'", 60.0)
            quiet = time.monotonic()
            load.go_on(50)
            while time.monotonic() < begun + form.seconds(4.0, 60.0):  # how long it lasts is the fault
                load.go_on(10)
            assert not [mark for mark in load.journal.marks() if mark.at > quiet], "the publishers are parked"
        over = time.monotonic()
        assert load.resumed(after=over) < form.limit(5.0)
        load.work_goes_on(50)
        load.finish()
        load.settle()
        site.wait_until(f"SELECT count(*) = 0 {TOLD}", message="the monitor knows that it is over")
        assert invariants.living_workers(site) == workers, "no process was replaced for a thread that is stuck"
    load.check(settle=False)
    never_waited(load, form, begun, over)
    for service in load.services:
        said_once(service, "low on memory")


@pytest.mark.timed
@pytest.mark.scenario("F15")
@on_postgresql_and_rabbitmq
def test_services_stop_and_start_during_a_disk_alarm(
    project: ProjectFactory, rabbitmq: RabbitMQ, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, **form.settings)
    with Workload(site, form, scenario) as load:
        load.work_goes_on(50)
        stopped = load.services[0]
        with ExitStack() as until_over:
            with backlog(load):
                until_over.enter_context(disk_alarm(rabbitmq))
                scenario.fault()
                begun = time.monotonic()
                stays_away(load, "low on disk")
                stopped.send(signal.SIGTERM)
                site.wait_until(lambda: "Stopping" in stopped.output())
            freed = time.monotonic()
            assert stopped.wait(GRACE) == 0, stopped.output()
            scenario.remark(f"stopped after {time.monotonic() - freed:.1f} s")
            load.start_service()
            site.wait_until(lambda: messages(rabbitmq, site) == 0, 60.0, "the queue is drained, all acknowledged")
            while time.monotonic() < begun + form.seconds(4.0, 60.0):  # how long it lasts is the fault
                load.go_on(10)
        over = time.monotonic()
        assert load.resumed(after=over) < form.limit(5.0)
        load.work_goes_on(50)
        load.finish()
    load.check()
    never_waited(load, form, begun, over)
    said_once(load.services[1], "low on disk")
