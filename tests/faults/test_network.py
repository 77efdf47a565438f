"""A network before RabbitMQ that swallows, forgets and cuts, and a RabbitMQ that nobody can connect to."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain

import pytest

from carrot.brokers.amqp.connection import CONNECT_TIMEOUT, HEARTBEAT
from tests.faults import invariants
from tests.faults.calls import PROMISED, SHARED, never_waited
from tests.faults.combinations import on_postgresql_and_rabbitmq
from tests.faults.form import Form
from tests.faults.load import Journal, Load
from tests.faults.proxy import FaultProxy
from tests.faults.report import Record, quantile
from tests.faults.workload import Workload
from tests.project import Broker, Database, Project, ProjectFactory
from tests.servers import RabbitMQ
from tests.servers.process import free_ports

#: Seconds after which work has to go on once the broker can be reached again.
BACK = 5.0
#: Seconds that the end of a process may take which has messages that it cannot send.
AT_EXIT = 5.0
on_sqlite_and_rabbitmq = pytest.mark.parametrize(("database", "broker"), [("sqlite", "amqp")], ids=["sqlite-amqp"])


def beating(site: Project, form: Form) -> int:
    """Short heartbeats on the connections to RabbitMQ in the short form, else the default; return their seconds."""
    if form.full:
        return HEARTBEAT
    # What was sent into a dead connection is sent again after twice the time a confirm may take.
    site.configure(default_broker=f"{site.settings['default_broker']}?heartbeat=1", confirm_timeout=3.0)
    return 1


def check_noticed(load: Workload, scenario: Record, form: Form, since: float, heartbeat: int) -> None:
    """Wait until all workers and producers know that their connections are dead: in time, and it is reported."""
    outputs = [(service.output, load.processes) for service in load.running_services()]
    outputs += [(path.read_text, 1) for path in sorted(load.site.directory.glob("ledger-*.out"))]

    def noticed() -> bool:
        return all(output().count("missed heartbeats") >= connections for output, connections in outputs)

    load.site.wait_until(noticed, 60.0, "all have noticed that nothing comes any more")
    seconds = time.monotonic() - since
    scenario.remark(f"noticed within {seconds:.1f} s at a heartbeat of {heartbeat} s")
    # pika looks five seconds later than each heartbeat, and believes the second look.
    assert seconds < form.limit(2 * (heartbeat + 5.0))


def check_kept(site: Project, names: list[str]) -> None:
    """Every one of these tasks waits, and its bell is armed."""
    armed = "SELECT args FROM carrot_messagelog WHERE status = 'PUBLISHED' AND ring_at IS NOT NULL"
    missing = set(names) - {invariants.name_of(row) for row in site.sql(armed)}
    assert names
    assert not missing, f"{len(missing)} of {len(names)} tasks do not wait with a bell: {sorted(missing)[:5]}"


@pytest.mark.timed
@pytest.mark.scenario("F18")
@on_postgresql_and_rabbitmq
def test_a_black_hole_before_rabbitmq_is_noticed_by_heartbeats_and_costs_nothing_but_time(
    project: ProjectFactory,
    broker_proxy: FaultProxy,
    form: Form,
    scenario: Record,
    database: Database,
    broker: Broker,
) -> None:
    site = project(database=database, broker=broker, broker_port=broker_proxy.port, **form.settings)
    heartbeat = beating(site, form)
    with Workload(site, form, scenario, rate=form.seconds(30.0, 100.0)) as load:
        load.work_goes_on(20)
        broker_proxy.black_hole()
        scenario.fault()
        away = time.monotonic()
        check_noticed(load, scenario, form, away, heartbeat)
        load.go_on(20)
        time.sleep(max(0.0, away + form.seconds(0.0, 180.0) - time.monotonic()))  # so long it is there
        broker_proxy.pass_on()
        back = time.monotonic()
        assert load.resumed(after=back) < form.limit(BACK)
        load.work_goes_on(20)
        load.finish()
    load.check()
    never_waited(load, form, away, back)


@pytest.mark.timed
@pytest.mark.scenario("F18")
@on_sqlite_and_rabbitmq
def test_connections_that_only_rabbitmq_has_forgotten_are_noticed_by_heartbeats_and_made_again(
    project: ProjectFactory,
    broker_proxy: FaultProxy,
    form: Form,
    scenario: Record,
    database: Database,
    broker: Broker,
) -> None:
    site = project(database=database, broker=broker, broker_port=broker_proxy.port, **form.settings)
    heartbeat = beating(site, form)
    with Workload(site, form, scenario, rate=form.seconds(30.0, 100.0)) as load:
        load.work_goes_on(20)
        broker_proxy.half_open()
        broker_proxy.pass_on()  # for new connections: those there are stay as they are
        scenario.fault()
        away = time.monotonic()
        check_noticed(load, scenario, form, away, heartbeat)
        back = time.monotonic()
        assert load.resumed(after=back) < form.limit(BACK)
        load.work_goes_on(20)
        load.finish()
    load.check()
    never_waited(load, form, away, back)


@pytest.mark.scenario("F18")
@on_postgresql_and_rabbitmq
def test_a_network_that_fails_again_and_again_at_any_byte_costs_no_task_and_doubles_none(
    project: ProjectFactory,
    broker_proxy: FaultProxy,
    form: Form,
    scenario: Record,
    database: Database,
    broker: Broker,
) -> None:
    site = project(database=database, broker=broker, broker_port=broker_proxy.port, **form.settings)
    beating(site, form)
    chance = form.random
    faults: list[Callable[[], None]] = [
        lambda: broker_proxy.cut_after(chance.randrange(1, 20_000)),
        broker_proxy.cut,
        broker_proxy.black_hole,
        lambda: broker_proxy.delay(chance.uniform(0.05, 0.5)),
    ]
    with Workload(site, form, scenario) as load:
        begun = time.monotonic()
        for number in range(form.times(8, 80)):
            faults[number % len(faults)]()
            scenario.fault()
            time.sleep(chance.uniform(0.0, 1.0))  # so long it lasts
            broker_proxy.pass_on()
            back = time.monotonic()
            assert load.resumed(after=back) < form.limit(BACK)
            load.work_goes_on(chance.randrange(1, 20))
        ended = time.monotonic()
        load.finish()
    load.check()
    never_waited(load, form, begun, ended)


@pytest.mark.timed
@pytest.mark.scenario("F23")
@on_postgresql_and_rabbitmq
def test_while_rabbitmq_takes_no_connections_web_requests_publish_and_all_runs_when_it_takes_them_again(
    project: ProjectFactory, rabbitmq: RabbitMQ, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, **form.settings)
    journal = Journal(site, "of the web")
    with Workload(site, form, scenario, rate=form.seconds(40.0, 100.0)) as load:
        load.work_goes_on(20)
        rabbitmq.evaluate("rabbit_maintenance:suspend_all_client_listeners()")
        try:
            rabbitmq.close_all_connections("a test", site.broker_url.rpartition("/")[2])
            scenario.fault()
            away = time.monotonic()
            with Load(site, journal) as web:  # a process that is started now, and ends before there is a connection
                load.go_on(form.times(50, 3000))
                web.go_on(form.times(100, 1000))
                latencies = web.finish()
            check_kept(site, web.committed())
        finally:
            rabbitmq.evaluate("rabbit_maintenance:resume_all_client_listeners()")
        back = time.monotonic()
        assert load.resumed(after=back) < form.limit(BACK)
        load.finish()
    load.check()
    invariants.check_completed_once(site, journal.runs(), web.committed())
    assert web.unknown() == []
    assert latencies.p99 < form.seconds(SHARED, PROMISED), latencies
    never_waited(load, form, away, back)
    assert all("Connection refused" in service.output() for service in load.services)


@contextmanager
def deaf() -> Iterator[int]:
    """A port that answers no SYN: its listener has as many connections waiting as it may."""
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            client = sockets.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield int(listener.getsockname()[1])


@contextmanager
def silent() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with FaultProxy(free_ports(1)[0]) as proxy:
        proxy.black_hole()
        yield proxy.port


@contextmanager
def closed() -> Iterator[int]:
    """A port on which nobody listens."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield int(reserved.getsockname()[1])


#: The host, the port, and what the operator is told.
UNREACHABLE = {
    "closed": ("127.0.0.1", closed, "Connection refused"),
    "deaf": ("127.0.0.1", deaf, f"no answer within {CONNECT_TIMEOUT} seconds"),
    "silent": ("127.0.0.1", silent, f"no answer within {CONNECT_TIMEOUT} seconds"),
    "unknown": ("no-such-host.invalid", closed, ".*(not known|name resolution|No address|Name does not resolve)"),
}
#: Publishes to each queue in turn as a web server's requests do, and ends; prints how long the calls took, and when
#: the last one returned.
REQUESTS = """
import json, time
from carrot.utilities import publish_message

took = []
for n in range({count}):
    for queue in {queues!r}:
        begun = time.perf_counter()
        publish_message("tests.faults.fault_tasks.note", {journal!r}, f"{{queue}}-{{n}}", queue=queue)
        took.append(time.perf_counter() - begun)
        time.sleep(0.004)
print(json.dumps([took, time.monotonic()]))
"""


@pytest.mark.timed
@pytest.mark.scenario("F23")
@on_sqlite_and_rabbitmq
def test_brokers_that_cannot_be_reached_delay_neither_requests_nor_other_queues_and_lose_nothing(
    project: ProjectFactory, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    count, queues = form.times(50, 1000), ["default", *UNREACHABLE]
    names = {queue: [f"{queue}-{n}" for n in range(count)] for queue in queues}
    site = project(database=database, broker=broker, **form.settings)
    journal = Journal(site)
    with ExitStack() as ports:
        urls = {
            queue: f"amqp://user:secret@{host}:{ports.enter_context(port())}/{queue}"
            for queue, (host, port, _said) in UNREACHABLE.items()
        }
        site.configure(queues=[{"name": "default"}, *({"name": queue, "host": url} for queue, url in urls.items())])
        service = site.service()
        service.wait_ready()
        requests = site.python(REQUESTS.format(count=count, queues=queues, journal=str(journal.path)), timeout=600.0)
        ended = time.monotonic()
        scenario.fault(len(UNREACHABLE))
        for queue, (_host, _port, said) in UNREACHABLE.items():
            told = re.compile(rf"No connection to amqp://user:\*+@[^ ]+/{queue} \(\w+\): {said}")
            site.wait_until(lambda told=told: told.search(service.output()), message=f"the operator reads {told}")
            check_kept(site, names[queue])
        site.wait_until(lambda: journal.runs().keys() == set(names["default"]), message="the other queue is worked off")
        assert service.stop() == 0
        assert "secret" not in requests.stdout + service.output()
    site.configure(queues=[{"name": queue} for queue in queues])
    site.service().wait_ready()
    invariants.wait_for_rest(site)
    invariants.check_completed_once(site, journal.runs(), list(chain.from_iterable(names.values())))
    took, last = json.loads(next(line for line in requests.stdout.splitlines() if line.startswith("[[")))
    scenario.sent, scenario.lost = len(took), 0  # as was checked
    scenario.publish_p99, scenario.publish_max = quantile(took, 0.99), max(took)
    scenario.publish_away = scenario.publish_p99
    assert scenario.publish_away < form.seconds(SHARED, PROMISED)
    assert ended - last < form.limit(AT_EXIT)
