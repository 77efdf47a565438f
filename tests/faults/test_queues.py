"""Queues that an administrator deletes or purges, and queues that somebody has made otherwise than the settings say."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pika
import pytest
from pika import exceptions as pika_errors

from tests.faults import invariants
from tests.faults.backlog import backlog
from tests.faults.broker_log import BrokerLog
from tests.faults.combinations import on_postgresql_and_rabbitmq
from tests.faults.form import Form
from tests.faults.proxy import FaultProxy
from tests.faults.report import Record
from tests.faults.workload import Workload
from tests.project import Broker, Database, Project, ProjectFactory
from tests.servers import RabbitMQ

#: What a reconciler says when it misses messages: none is left in the queue, or fewer than there should be.
RUNG_AGAIN = re.compile(r"they are rung again|they ring again")

NOTE = "tests.faults.fault_tasks.note"
AS_THE_SETTINGS_SAY = [
    {"name": "default", "concurrency": 4},
    {"name": "narrow"},
    {"name": "lasting", "durable": False},
]
#: All of them durable. By name, the arguments they were declared with.
AS_THEY_ARE = {
    "default": {"x-queue-type": "quorum"},
    "narrow": {"x-max-priority": 3},
    "lasting": {"x-max-priority": 10},
}


@contextmanager
def channel_of(site: Project) -> Iterator[Any]:
    with pika.BlockingConnection(pika.URLParameters(site.broker_url)) as connection:
        yield connection.channel()


def consumers(site: Project) -> int:
    """How many consumers the queue has; 0 where there is no queue."""
    try:
        return invariants.depth(site)[1]
    except pika_errors.ChannelClosedByBroker:
        return 0


def all_consume_again(load: Workload, since: float) -> float:
    """Wait for as many consumers as there are workers; return the seconds since a moment on time.monotonic."""
    wanted = len(load.services) * load.processes
    load.site.wait_until(lambda: consumers(load.site) == wanted, 60.0, f"{wanted} workers consume")
    return time.monotonic() - since


@pytest.mark.scenario("F16")
@on_postgresql_and_rabbitmq
def test_a_queue_deleted_or_purged_under_load_is_consumed_again_and_what_it_lost_is_sent_again(
    project: ProjectFactory, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    settings = form.settings | {"reconcile_interval": form.seconds(1.0, 5.0)}
    site = project(database=database, broker=broker, **settings)
    with Workload(site, form, scenario) as load:
        load.work_goes_on(50)
        for _ in range(form.times(1, 5)):  # while all of them consume
            with channel_of(site) as channel:
                channel.queue_delete("default")
            deleted = time.monotonic()
            scenario.fault()
            scenario.recovered(all_consume_again(load, deleted))
            load.work_goes_on(50)
        lost = 0
        for _ in range(form.times(1, 3)):  # while there is something in it
            with backlog(load), channel_of(site) as channel:
                lost += channel.queue_purge("default").method.message_count
            scenario.fault()
            load.work_goes_on(50)
            with backlog(load), channel_of(site) as channel:
                lost += channel.queue_delete("default").method.message_count
            freed = time.monotonic()
            scenario.fault()
            scenario.recovered(all_consume_again(load, freed))
            load.work_goes_on(50)
        load.finish()
    load.check()
    assert max(scenario.recoveries) < form.limit(10.0)
    assert any(RUNG_AGAIN.search(service.output()) for service in load.services), "the messages were needed"
    scenario.remark(f"{lost} messages lost, all tasks ran")


@pytest.mark.scenario("F17")
@on_postgresql_and_rabbitmq
def test_queues_that_are_not_as_the_settings_say_are_used_as_they_are_and_each_worker_says_so_once(
    project: ProjectFactory,
    rabbitmq: RabbitMQ,
    broker_proxy: FaultProxy,
    form: Form,
    scenario: Record,
    database: Database,
    broker: Broker,
) -> None:
    site = project(
        database=database, broker=broker, broker_port=broker_proxy.port, queues=AS_THE_SETTINGS_SAY, **form.settings
    )
    with channel_of(site) as channel:
        for name, declaration in AS_THEY_ARE.items():
            channel.queue_declare(name, durable=True, arguments=declaration)
    log = BrokerLog(rabbitmq)
    with Workload(site, form, scenario) as load:
        scenario.fault(len(AS_THEY_ARE))
        names = [name for name in AS_THEY_ARE if name != "default"]
        for name in names:
            site.publish(NOTE, str(load.journal.path), name, queue=name, priority=7)
        load.work_goes_on(50)
        load.finish()
        workers = len(load.services) * load.processes
        told = " AND ".join(f"notice LIKE '%Queue {name}: it is not as the settings say%'" for name in AS_THEY_ARE)
        site.wait_until(f"SELECT count(*) = {workers} FROM carrot_workerprocess WHERE alive AND {told}")
    load.check()
    invariants.check_completed_once(site, load.journal.runs(), names)
    for service in load.services:
        for name in AS_THEY_ARE:
            said = [line for line in service.output().splitlines() if f"Queue {name} on" in line]
            assert len(said) == load.processes, said
            assert all("is not as the settings say" in line for line in said), said
    # Every process connected once to consume and once to publish, at most, and asked once about each queue.
    processes = workers + len(load.services) + len(load.producers) + len(names)
    assert broker_proxy.accepted <= workers + processes
    assert log.text().count("inequivalent arg") == workers * len(AS_THEY_ARE)
