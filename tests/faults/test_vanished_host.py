"""A host that is gone from one moment to the next: no process of it, and no packet, says goodbye to anybody."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.faults.combinations import on_postgresql
from tests.faults.form import Form
from tests.faults.freezing import freeze, hold_locks
from tests.faults.load import publish_all
from tests.faults.packet_loss import LossyProxy, local_ports
from tests.faults.report import Record
from tests.faults.test_network import beating
from tests.faults.workload import Workload
from tests.project import Broker, Database, ProjectFactory
from tests.servers import PostgreSQL, RabbitMQ
from tests.servers.process import session_members

HOLD = "tests.faults.fault_tasks.hold"
#: Seconds over the lease after which everything the host had taken, or was given, runs elsewhere.
OVER_THE_LEASE = 10.0


@pytest.fixture
def network(postgresql: PostgreSQL, rabbitmq: RabbitMQ) -> Iterator[tuple[LossyProxy, LossyProxy]]:
    """Between the services and PostgreSQL, and between them and RabbitMQ."""
    with LossyProxy(postgresql.port) as to_database, LossyProxy(rabbitmq.port) as to_broker:
        yield to_database, to_broker


@pytest.mark.timed
@pytest.mark.scenario("F02")
@on_postgresql
def test_a_host_that_vanishes_while_it_has_rows_locked_costs_a_lease_and_no_task(
    project: ProjectFactory,
    network: tuple[LossyProxy, LossyProxy],
    form: Form,
    scenario: Record,
    database: Database,
    broker: Broker,
) -> None:
    """PostgreSQL and RabbitMQ are not told: its transactions stay open, and its messages are not given back."""
    to_database, to_broker = network
    site = project(
        database=database, broker=broker, database_port=to_database.port, broker_port=to_broker.port, **form.settings
    )
    if broker == "amqp":
        beating(site, form)
    gate = site.directory / "gate"
    with Workload(site, form, scenario) as load:
        publish_all(site, [(HOLD, str(load.journal.path), "held", str(gate))])
        worker = load.journal.wait_begun("held")
        host = next(service for service in load.services if worker in service.children())
        processes = session_members(host.pid)
        freeze(site, processes, holding_locks=True)
        ports = local_ports([process.pid for process in processes])
        assert to_database.lose_clients(ports) > load.threads
        assert to_broker.lose_clients(ports) >= (load.processes if broker == "amqp" else 0)
        load.kill_service(host)
        gone = time.monotonic()
        assert hold_locks(site), "PostgreSQL was not told"
        (last,) = site.sql("SELECT max(id) AS id FROM carrot_messagelog")
        gate.touch()
        site.wait_until(
            f"SELECT count(*) = 0 FROM carrot_messagelog WHERE id <= {last['id']} AND status <> 'COMPLETED'",
            timeout=form.lease + 120.0,
            message="all tasks published until then have run",
        )
        seconds = time.monotonic() - gone
        scenario.remark(f"all it had taken or was given has run after {seconds:.1f} s, the lease is {form.lease:g} s")
        assert seconds < form.limit(form.lease + OVER_THE_LEASE)
        load.finish()
    load.check()
    assert max(scenario.recoveries) < form.limit(form.lease + OVER_THE_LEASE)
