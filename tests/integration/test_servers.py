"""The private servers keep the promises the other tests build on."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pika
import psycopg
import pytest

from tests.servers import PostgreSQL, RabbitMQ, ServerError, install, places
from tests.servers.process import Process, free_ports, is_free

pytestmark = [pytest.mark.slow, pytest.mark.acceptance]  # starts of servers take seconds; no Django database is used

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """Servers of this module alone, in a directory with a space."""
    made = places.new_place()
    yield made / "with a space"
    places.remove_place(made / "with a space")
    places.remove_place(made)


@pytest.fixture
def broker(place: Path) -> RabbitMQ:
    server = RabbitMQ(place)
    server.start()
    return server


@pytest.fixture
def database(place: Path) -> PostgreSQL:
    server = PostgreSQL(place)
    server.start()
    return server


def publish(url: str, queue: str) -> None:
    """Put a persistent message that says its queue's name into a durable queue, confirmed."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare(queue, durable=True)
        channel.basic_publish("", queue, queue, pika.BasicProperties(delivery_mode=2), mandatory=True)


def fetch(url: str, queue: str) -> str | None:
    """Take a message out of a queue."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        body: bytes | None = connection.channel().basic_get(queue, auto_ack=True)[2]
        return None if body is None else body.decode()


def owner_of_process(pid: int) -> int:
    return os.stat(f"/proc/{pid}").st_uid


def test_a_broker_and_a_database_server_answer_as_soon_as_start_returns(broker: RabbitMQ, database: PostgreSQL) -> None:
    publish(broker.url, "at once")
    assert fetch(broker.url, "at once") == "at once"
    with psycopg.connect(database.url) as connection:
        assert connection.execute("SELECT 'é', current_setting('fsync')").fetchone() == ("é", "on")


def test_servers_do_not_run_as_root_and_listen_on_loopback_only(broker: RabbitMQ, database: PostgreSQL) -> None:
    for server in (broker, database):
        assert owner_of_process(server.main_process().pid) != 0
        assert not is_free(server.port)
        address = own_address()
        with socket.socket() as elsewhere:
            elsewhere.bind((address, server.port))  # still free on the other interfaces


def own_address() -> str:
    """An address of this machine that is not 127.0.0.1."""
    return "127.0.0.2" if sys.platform == "linux" else socket.gethostbyname(socket.gethostname())


def test_starting_a_running_server_changes_nothing(broker: RabbitMQ, database: PostgreSQL) -> None:
    for server in (broker, database):
        before = server.main_process()
        server.start()
        assert server.main_process() == before


def test_a_second_handle_can_stop_what_the_first_started(place: Path, database: PostgreSQL) -> None:
    PostgreSQL(place).stop()
    assert not database.is_running()
    assert is_free(database.port)


def test_a_crashed_broker_comes_back_on_its_port_with_its_persistent_messages(broker: RabbitMQ) -> None:
    url, crashed = broker.url, broker.main_process()
    publish(url, "survives a crash")
    broker.kill()
    assert not crashed.alive
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        fetch(url, "survives a crash")
    broker.start()
    assert broker.url == url
    assert fetch(url, "survives a crash") == "survives a crash"


def test_a_stopped_broker_comes_back_with_its_persistent_messages(broker: RabbitMQ) -> None:
    publish(broker.url, "survives")
    broker.stop()
    assert not broker.is_running()
    broker.start()
    assert fetch(broker.url, "survives") == "survives"


def test_nothing_of_a_crashed_broker_is_left_not_even_its_port_mapper(broker: RabbitMQ) -> None:
    state = broker._read()
    broker.kill()
    assert [state[name] for name in ("port", "distribution_port", "epmd_port") if not is_free(state[name])] == []


def test_a_suspended_broker_refuses_connections_until_it_is_resumed(broker: RabbitMQ) -> None:
    broker.suspend()
    assert broker.is_running()
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        fetch(broker.url, "again")
    broker.resume()
    publish(broker.url, "again")
    assert fetch(broker.url, "again") == "again"


def test_starting_a_suspended_broker_resumes_it(broker: RabbitMQ) -> None:
    broker.suspend()
    broker.start()
    publish(broker.url, "once more")
    assert fetch(broker.url, "once more") == "once more"


def test_virtual_hosts_are_separate_and_go_with_their_queues(broker: RabbitMQ) -> None:
    one, other = broker.add_vhost("one"), broker.add_vhost("other")
    publish(one, "in one")
    publish(other, "in the other")
    assert fetch(one, "in one") == "in one"
    for name in ("one", "other", "other"):
        broker.delete_vhost(name)
    assert broker.ctl("list_vhosts", "--no-table-headers").split() == ["/"]


def test_all_connections_can_be_closed_from_the_broker_s_side(broker: RabbitMQ) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(broker.url))
    broker.close_all_connections("a test closes them")
    with pytest.raises(pika.exceptions.ConnectionClosedByBroker, match="a test closes them"):
        connection.process_data_events(time_limit=5)


def test_an_expression_the_broker_cannot_evaluate_is_an_error_that_shows_it(broker: RabbitMQ) -> None:
    with pytest.raises(ServerError, match=r"no_such_module:function\(\)"):
        broker.evaluate("no_such_module:function()")


def test_a_port_taken_meanwhile_is_named(broker: RabbitMQ, database: PostgreSQL) -> None:
    for server in (broker, database):
        server.stop()
        with socket.create_server(("127.0.0.1", server.port)):
            with pytest.raises(ServerError, match=f"Port {server.port} .* is taken by another program"):
                server.start()
        server.start()


def test_a_broker_that_cannot_start_shows_the_end_of_its_log(broker: RabbitMQ) -> None:
    configuration = broker.directory / "rabbitmq.conf"
    broker.stop()
    good = configuration.read_text()
    configuration.write_text(good + "no.such.setting = 1\n")
    with pytest.raises(ServerError, match=r"(?s)RabbitMQ ended.*no\.such\.setting"):
        broker.start()
    configuration.write_text(good)
    broker.start()


def test_a_database_server_that_cannot_start_shows_the_end_of_its_log(database: PostgreSQL) -> None:
    configuration = database.data / "postgresql.conf"
    database.stop()
    good = configuration.read_text()
    configuration.write_text(good + "no_such_setting = 1\n")
    with pytest.raises(ServerError, match=r"(?s)PostgreSQL did not start.*no_such_setting"):
        database.start()
    configuration.write_text(good)
    database.start()


def test_a_crashed_database_server_keeps_what_was_committed(database: PostgreSQL) -> None:
    url = database.create_database("crashed")
    database.psql("CREATE TABLE t AS SELECT 1 AS n", "crashed")
    database.kill()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)
    database.start()
    assert database.psql("SELECT n FROM t", "crashed") == "1"
    database.drop_database("crashed")


def test_a_database_is_copied_from_a_template_and_dropped_under_its_sessions(database: PostgreSQL) -> None:
    database.create_database("original")
    database.psql("CREATE TABLE t AS SELECT 7 AS n", "original")
    url = database.create_database("copied", template="original")
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT n FROM t").fetchone() == (7,)
        database.drop_database("copied")
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    database.drop_database("original")
    assert "copied" not in database.psql("SELECT datname FROM pg_database").split()


def test_sessions_on_one_database_are_ended_and_those_on_others_are_not(database: PostgreSQL) -> None:
    url = database.create_database("victim")
    with psycopg.connect(database.url) as neighbour:
        victim = psycopg.connect(url)
        assert database.terminate_sessions("victim") == 1
        with pytest.raises(psycopg.errors.AdminShutdown):
            victim.execute("SELECT 1")
        neighbour.execute("SELECT 1")
    database.drop_database("victim")


def test_a_statement_the_database_refuses_is_an_error_that_shows_why(database: PostgreSQL) -> None:
    with pytest.raises(ServerError, match='column "nonsense" does not exist'):
        database.psql("SELECT nonsense")


def test_names_that_would_need_quoting_are_refused(broker: RabbitMQ, database: PostgreSQL) -> None:
    with pytest.raises(ValueError, match="Not a plain"):
        database.create_database("x; DROP DATABASE postgres")
    with pytest.raises(ValueError, match="Not a plain"):
        broker.add_vhost('x">>')


def test_a_process_is_not_taken_for_a_later_one_with_the_same_pid() -> None:
    own = Process.of(os.getpid())
    assert own is not None
    assert own.alive
    assert not Process(pid=own.pid, started="at another time").alive


def test_free_ports_are_below_those_the_kernel_gives_to_clients() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(is_free(port) for port in ports)
    assert max(ports) < lowest


def test_what_a_killed_test_run_left_behind_is_removed_by_the_next() -> None:
    code = (
        "import os, signal; from tests.servers import PostgreSQL; from tests.servers.places import new_place;"
        " place = new_place(); server = PostgreSQL(place); server.start();"
        " print(place, server.main_process().pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    left, pid = killed.stdout.split()
    server = Process.of(int(pid))
    assert server is not None, "the server should have survived its starter"
    places.remove_place(places.new_place())
    assert not server.alive
    assert not Path(left).exists()


def test_missing_programs_are_answered_with_the_packages_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "find_rabbitmq", lambda: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ServerError, match=r"sudo apt-get install --no-install-recommends rabbitmq-server\n"):
        install.ensure_installed()


def test_a_browser_is_asked_for_only_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "BROWSERS", ("no-such-browser",))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    install.ensure_installed()
    with pytest.raises(
        ServerError, match=r"`scripts/test` installs(.|\n)*apt-get install --no-install-recommends chromium\n"
    ):
        install.ensure_installed(browser=True)
    with pytest.raises(ServerError, match=r"^The tests need Chromium on this machine"):
        install.chromium_program()


def test_a_library_for_wrong_clocks_is_asked_for_only_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "find_faketime", lambda: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    install.ensure_installed()
    with pytest.raises(ServerError, match=r"`scripts/faults` installs(.|\n)*--no-install-recommends libfaketime\n"):
        install.ensure_installed(faketime=True)
    with pytest.raises(ServerError, match=r"^The tests need libfaketime on this machine"):
        install.faketime_library()


def test_services_are_held_back_during_an_installation_and_what_was_there_comes_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    policy = tmp_path / "policy-rc.d"
    monkeypatch.setattr(install, "POLICY", policy)
    policy.write_text("#!/bin/sh\nexit 0\n")
    policy.chmod(0o755)
    with pytest.raises(RuntimeError, match="the installation fails"), install._services_held_back():
        assert subprocess.run([policy], check=False).returncode == 101
        raise RuntimeError("the installation fails")
    assert policy.read_text() == "#!/bin/sh\nexit 0\n"
    policy.unlink()
    with install._services_held_back():
        assert policy.exists()
    assert list(tmp_path.iterdir()) == []


def test_scripts_servers_starts_names_and_stops_the_servers(tmp_path: Path) -> None:
    place = places.new_place()

    def script(*words: str) -> subprocess.CompletedProcess[str]:
        command: list[str | Path] = [CHECKOUT / "scripts" / "servers", "--place", place / "by hand", *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)

    try:
        assert script("status").returncode == 3
        refused = script("env")
        assert refused.returncode == 1
        assert "scripts/servers start" in refused.stderr
        for _ in range(2):
            started = script("start")
            assert started.returncode == 0, started.stderr
        assert script("status").returncode == 0
        shown = subprocess.run(
            [
                "sh",
                "-c",
                'eval "$1"; echo "$CARROT_TEST_RABBITMQ"; echo "$CARROT_TEST_POSTGRES"',
                "sh",
                script("env").stdout,
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        amqp, postgres = shown.stdout.splitlines()
        publish(amqp, "by hand")
        with psycopg.connect(postgres) as connection:
            connection.execute("SELECT 1")
        assert script("stop").returncode == 0
        assert script("status").returncode == 3
    finally:
        places.remove_place(place / "by hand")
        places.remove_place(place)
