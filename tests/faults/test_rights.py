"""A user of RabbitMQ who loses rights or password while the services work, and gets them back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.faults.form import Form
from tests.faults.proxy import FaultProxy
from tests.faults.report import Record
from tests.faults.workload import Workload
from tests.project import Broker, Database, Project, ProjectFactory
from tests.servers import RabbitMQ

USER, PASSWORD, OTHER = "shop", "open-sesame-4711", "shut-sesame-0815"
#: Seconds after which work has to go on once the user may do everything again.
BACK = 5.0
#: A second: attempts of each of a process's two connections at the longest pause, and lines of a process in the log.
PACE = 1.0


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What an administrator does, what undoes it (in Erlang), and what is said of it in the log."""

    of: str
    restored: str
    said: str


def permissions(vhost: str, configure: str, write: str, read: str) -> str:
    patterns = ", ".join(f'<<"{pattern}">>' for pattern in (configure, write, read))
    return f'rabbit_auth_backend_internal:set_permissions(<<"{USER}">>, <<"{vhost}">>, {patterns}, <<"tests">>)'


def losses(vhost: str) -> dict[str, Loss]:
    everything = permissions(vhost, ".*", ".*", ".*")
    backend = "rabbit_auth_backend_internal"
    return {
        "permissions": Loss(
            of=f'{backend}:clear_permissions(<<"{USER}">>, <<"{vhost}">>, <<"tests">>)',
            restored=everything,
            said="the user may not use this virtual host",
        ),
        "password": Loss(
            of=f'{backend}:change_password(<<"{USER}">>, <<"{OTHER}">>, <<"tests">>)',
            restored=f'{backend}:change_password(<<"{USER}">>, <<"{PASSWORD}">>, <<"tests">>)',
            said="user or password was refused",
        ),
        "queue": Loss(of=permissions(vhost, "", "", ""), restored=everything, said="access to queue 'default'"),
    }


@contextmanager
def user_of(rabbitmq: RabbitMQ, vhost: str) -> Iterator[None]:
    """A user with all rights in a virtual host and nowhere else."""
    rabbitmq.evaluate(f'rabbit_auth_backend_internal:add_user(<<"{USER}">>, <<"{PASSWORD}">>, <<"tests">>)')
    rabbitmq.evaluate(permissions(vhost, ".*", ".*", ".*"))
    try:
        yield
    finally:
        rabbitmq.evaluate(f'rabbit_auth_backend_internal:delete_user(<<"{USER}">>, <<"tests">>)')


@pytest.mark.scenario("F22")
@pytest.mark.parametrize(
    ("lost", "database", "broker"),
    [
        pytest.param("permissions", "postgresql", "amqp", id="permissions-postgresql-amqp"),
        pytest.param("password", "sqlite", "amqp", id="password-sqlite-amqp"),
        pytest.param("queue", "postgresql", "amqp", id="queue-postgresql-amqp"),
    ],
)
def test_what_a_user_may_no_longer_do_is_said_clearly_and_goes_on_when_it_is_allowed_again(
    project: ProjectFactory,
    rabbitmq: RabbitMQ,
    broker_proxy: FaultProxy,
    form: Form,
    scenario: Record,
    lost: str,
    database: Database,
    broker: Broker,
) -> None:
    site = project(database=database, broker=broker, broker_port=broker_proxy.port, **form.settings)
    site.configure(default_broker=site.settings["default_broker"].replace("guest:guest", f"{USER}:{PASSWORD}"))
    vhost = site.broker_url.rpartition("/")[2]
    loss = losses(vhost)[lost]
    with user_of(rabbitmq, vhost):
        with Workload(site, form, scenario, rate=form.seconds(40.0, 100.0)) as load:
            load.work_goes_on(20)
            rabbitmq.evaluate(loss.of)
            rabbitmq.close_all_connections("a test", vhost)
            scenario.fault()
            away, accepted, lines = time.monotonic(), broker_proxy.accepted, lines_of(load)
            site.wait_until(
                lambda: all(loss.said in service.output() for service in load.services),
                message=f"every service says {loss.said!r}",
            )
            load.go_on(20)
            time.sleep(max(0.0, away + form.seconds(4.0, 60.0) - time.monotonic()))  # so long it is lost
            rabbitmq.evaluate(loss.restored)
            back = time.monotonic()
            attempts, told = broker_proxy.accepted - accepted, lines_of(load) - lines
            scenario.remark(f"{attempts} connections and {told} lines in the logs within {back - away:.1f} s")
            assert load.resumed(after=back) < form.limit(BACK)
            load.finish()
        load.check()
    processes = len(load.services) * (load.processes + 1) + len(load.producers)
    assert attempts < 2 * processes * (4 + PACE * (back - away)), f"{attempts} connections within {back - away:.1f} s"
    assert told < processes * (4 + PACE * (back - away)), f"{told} lines in the logs within {back - away:.1f} s"
    check_secrets(site)


def lines_of(load: Workload) -> int:
    """How many lines the services and the producers have written about anything but their tasks."""
    outputs = [service.output() for service in load.services]
    outputs += [path.read_text() for path in load.site.directory.glob("ledger-*.out")]
    return sum("INFO carrot.tasks" not in line for output in outputs for line in output.splitlines())


def check_secrets(site: Project) -> None:
    """No password in anything that was written: not in logs and outputs, and not in rows."""
    written = {str(path.name): path.read_bytes() for path in site.directory.iterdir() if path.is_file()}
    assert "carrot.log" in written
    for table in ("carrot_messagelog", "carrot_workerprocess", "carrot_attempt"):
        written[table] = repr(site.sql(f"SELECT * FROM {table}")).encode()
    for name, content in written.items():
        for secret in (PASSWORD, OTHER):
            assert secret.encode() not in content, f"a password in {name}"
