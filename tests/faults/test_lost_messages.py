"""Messages that RabbitMQ has confirmed and no longer has, and messages that are held for longer than it allows."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests.faults import invariants
from tests.faults.combinations import on_postgresql_and_rabbitmq
from tests.faults.form import Form
from tests.faults.load import publish_all
from tests.faults.report import Record
from tests.faults.workload import Workload
from tests.project import Broker, Database, Project, ProjectFactory
from tests.servers import RabbitMQ

HOLD = "tests.faults.fault_tasks.hold"
NOTE = "tests.faults.fault_tasks.note"
WAITING = "FROM carrot_messagelog WHERE status = 'PUBLISHED'"
on_sqlite_and_rabbitmq = pytest.mark.parametrize(("database", "broker"), [("sqlite", "amqp")], ids=["sqlite-amqp"])
#: What RabbitMQ logs of a channel, with its virtual host.
TIMED_OUT = re.compile(
    r"Channel error on connection .*vhost: '(.*?)'.*\n.*precondition_failed: delivery acknowledgement on channel"
)
#: How many messages are stolen.
STOLEN = 200
#: Seconds beyond the reconciler's interval within which what was stolen runs.
MISSED = 10.0


def interval_of(site: Project, form: Form) -> float:
    """Let the services compare rows and messages often in the short form; return every how many seconds."""
    if form.full:
        return 5.0  # the default
    site.configure(reconcile_interval=1.0)
    return 1.0


@contextmanager
def thief_in(site: Project) -> Iterator[BlockingChannel]:
    """A client that takes messages for itself; it goes with what it has not acknowledged handed back."""
    with pika.BlockingConnection(pika.URLParameters(site.broker_url)) as connection:
        yield connection.channel()


def names_of(site: Project, message_ids: list[str]) -> list[str]:
    """The names of the tasks that these messages are of."""
    rows = {invariants.plain(row["uuid"]): row for row in site.sql("SELECT uuid, args FROM carrot_messagelog")}
    return [invariants.name_of(rows[each]) for each in message_ids]


def wait_begun(load: Workload, names: list[str], since: float, timeout: float) -> float:
    """Wait until each of these tasks has begun; return how many seconds after a moment the last one did."""
    begun: dict[str, float] = {}

    def all_begun() -> bool:
        begun.update((mark.name, mark.at) for mark in load.journal.marks() if mark.what == "begin")
        return begun.keys() >= set(names)

    load.site.wait_until(all_begun, timeout, "what was stolen runs")
    return max(begun[name] for name in names) - since


@pytest.mark.scenario("F20")
@on_postgresql_and_rabbitmq
def test_tasks_whose_messages_a_thief_took_under_load_run_soon_all_the_same(
    project: ProjectFactory, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, **form.settings)
    interval = interval_of(site, form)
    with Workload(site, form, scenario, tasks=form.times(500, 5000)) as load:
        stolen = []
        with thief_in(site) as channel:  # the services get what it cannot take
            for _method, properties, _body in channel.consume("default", auto_ack=True, arguments={"x-priority": 10}):
                stolen.append(invariants.plain(properties.message_id))
                if len(stolen) == STOLEN:
                    break
            channel.cancel()
        gone = time.monotonic()
        scenario.fault(STOLEN)
        seconds = wait_begun(load, names_of(site, stolen), gone, 120.0)
        scenario.recovered(seconds)
        load.finish()
    load.check()
    assert any("they are rung again" in service.output() for service in load.services)
    assert seconds < form.limit(interval + MISSED)


@pytest.mark.scenario("F20")
@on_sqlite_and_rabbitmq
def test_tasks_whose_messages_are_missing_among_others_are_found_by_what_comes_out_of_the_queue(
    project: ProjectFactory, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, **form.settings)
    interval = interval_of(site, form)
    with Workload(site, form, scenario, tasks=form.times(320, 2000)) as load:
        gate = site.directory / "gate"
        occupy(load, HOLD, str(gate))
        load.finish()
        site.wait_until(f"SELECT count(*) = 0 {WAITING} AND ring_at IS NOT NULL", message="all messages are confirmed")
        with thief_in(site) as channel:
            taken = list(iter(lambda: channel.basic_get("default"), (None, None, None)))
            taken = [got for got in taken if got[1].message_id]  # a marker may be among them by now
            chosen = form.random.sample(taken, STOLEN)
            for method, _properties, _body in chosen:
                channel.basic_ack(method.delivery_tag)
        scenario.fault(STOLEN)
        stolen = [invariants.plain(properties.message_id) for _method, properties, _body in chosen]
        left = len(taken) - STOLEN
        site.wait_until(lambda: invariants.depth(site)[0] > left, 60.0, "a marker is behind the other messages")
        gate.touch()
        opened = time.monotonic()
        seconds = wait_begun(load, names_of(site, stolen), opened, 120.0)
        scenario.recovered(seconds)
    load.check()
    assert any("may be lost; they ring again" in service.output() for service in load.services)
    assert seconds < form.limit(interval + MISSED)


@contextmanager
def impatient(rabbitmq: RabbitMQ, seconds: float) -> Iterator[None]:
    """Have RabbitMQ close channels that take longer to acknowledge; for channels that are opened within the block."""
    wanted = {"consumer_timeout": seconds, "channel_tick_interval": seconds / 4}  # the latter: how often it looks
    before = {name: rabbitmq.evaluate(f"application:get_env(rabbit, {name})") for name in wanted}
    for name, value in wanted.items():
        rabbitmq.evaluate(f"application:set_env(rabbit, {name}, {int(value * 1000)})")
    try:
        yield
    finally:
        for name, value in before.items():
            found = re.fullmatch(r"\{ok, ?(\d+)\}", value)
            assert found, (name, value)
            rabbitmq.evaluate(f"application:set_env(rabbit, {name}, {found[1]})")


@pytest.mark.scenario("F21")
@on_postgresql_and_rabbitmq
def test_tasks_may_run_for_longer_than_rabbitmq_waits_for_an_acknowledgement(
    project: ProjectFactory, rabbitmq: RabbitMQ, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    patience, longer = form.seconds(2.0, 60.0), form.seconds(5.0, 300.0)
    site = project(database=database, broker=broker, **form.settings)
    log_begin = rabbitmq.log.stat().st_size
    with (
        impatient(rabbitmq, patience),
        Workload(site, form, scenario, rate=20.0) as load,
        pika.BlockingConnection(pika.URLParameters(rabbitmq.url)) as others,
    ):
        loser = others.channel()  # shows that RabbitMQ does what it is told
        queue = loser.queue_declare("", exclusive=True).method.queue
        loser.basic_publish("", queue, b"")
        loser.basic_consume(queue, lambda *_: None)
        scenario.fault()
        gate = site.directory / "gate"
        tiny = [f"tiny{number}" for number in range(600)]
        long = [f"long{number}" for number in range(threads_of(load))]
        notes = [(NOTE, str(load.journal.path), name) for name in tiny]
        holds = [(HOLD, str(load.journal.path), name, str(gate)) for name in long]
        publish_all(site, [*notes[:300], *holds, *notes[300:]])  # of tiny tasks many are sent ahead
        wait_begun(load, long, 0.0, 60.0)
        busy = time.monotonic()
        site.wait_until(lambda: invariants.depth(site)[1] == 0, message="no worker holds messages behind long tasks")
        held = time.monotonic() - busy
        site.wait_until(lambda: closed(loser), 2 * longer, "RabbitMQ closes a channel that does not acknowledge")
        others.sleep(max(0.0, busy + longer - time.monotonic()))  # so long they run; others sends its heartbeats
        gate.touch()
        load.finish()
    load.check()
    invariants.check_completed_once(site, load.journal.runs(), [*long, *tiny])
    assert held < patience, f"messages were held for {held:.1f} s behind tasks that block all threads"
    log = rabbitmq.log.read_bytes()[log_begin:].decode()
    assert set(TIMED_OUT.findall(log)) == {"/"}, "channels of the service timed out as well"


def closed(channel: BlockingChannel) -> bool:
    channel.connection.process_data_events(0.1)
    return not channel.is_open


def threads_of(load: Workload) -> int:
    """How many tasks the services run at a time."""
    return len(load.services) * load.processes * load.threads


def occupy(load: Workload, task: str, argument: object) -> None:
    """Keep every thread of the services busy with a task of this argument."""
    names = [f"long{number}" for number in range(threads_of(load))]
    publish_all(load.site, [(task, str(load.journal.path), name, argument) for name in names])
    wait_begun(load, names, 0.0, 60.0)
