"""Scratch projects are separate from each other, and nothing of them outlives the test."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pika
import pytest

from tests.project import Database, Project, ProjectFactory
from tests.servers.process import Process, wait_until

pytestmark = pytest.mark.acceptance

TWO_EFFECTS = "from tests.app.tasks import record_effect; record_effect('x'); record_effect('x')"
INSERT = "INSERT INTO app_effect (message_id, attempt, pid, created) VALUES (%s, 1, 1, '2020-01-01')"


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Database:
    name: Database = request.param
    return name


def names(site: Project) -> list[str]:
    return [row["message_id"] for row in site.sql("SELECT message_id FROM app_effect ORDER BY id")]


def test_each_project_has_a_migrated_database_of_its_own(project: ProjectFactory, database: Database) -> None:
    one, other = project(database=database), project(database=database)
    one.python(TWO_EFFECTS)
    assert one.sql("SELECT attempt FROM app_effect ORDER BY id") == [{"attempt": 1}, {"attempt": 2}]
    assert one.sql("SELECT attempt FROM app_effect WHERE message_id = %s AND attempt > %s", ["x", 1]) == [
        {"attempt": 2}
    ]
    assert names(other) == []
    assert one.manage("migrate", "--check").returncode == 0


def test_a_connection_of_the_test_can_hold_a_transaction_open(project: ProjectFactory, database: Database) -> None:
    site = project(database=database)
    with site.connect() as connection:
        connection.execute("BEGIN")
        connection.execute(INSERT.replace("%s", "'rolled back'"))
        connection.execute("ROLLBACK")
    site.sql(INSERT, ["committed"])
    assert names(site) == ["committed"]


def test_a_project_on_rabbitmq_has_a_fresh_virtual_host(project: ProjectFactory) -> None:
    site = project(broker="amqp")
    with pika.BlockingConnection(pika.URLParameters(site.settings["default_broker"])) as connection:
        connection.channel().queue_declare("q")
    shown = site.python("from django.conf import settings; print(settings.CARROT['default_broker'])")
    assert shown.stdout.strip() == site.settings["default_broker"]


def test_settings_reach_the_processes_started_afterwards(project: ProjectFactory) -> None:
    site = project(lease=3.0)
    site.configure(heartbeat=0.5)
    shown = site.python("from django.conf import settings; print(settings.CARROT)")
    assert shown.stdout.strip() == "{'lease': 3.0, 'default_broker': 'database://', 'heartbeat': 0.5}"


def test_warnings_are_errors_in_the_processes(project: ProjectFactory) -> None:
    done = project().python("import warnings; warnings.warn('a warning')", check=False)
    assert done.returncode == 1
    assert "UserWarning: a warning" in done.stdout


@pytest.mark.parametrize("condition", ["SELECT count(*) = 1 FROM app_effect", lambda: False])
def test_waiting_in_vain_fails_with_the_reason(project: ProjectFactory, condition: str | Callable[[], bool]) -> None:
    with pytest.raises(AssertionError, match=r"After 0\.2 s still not so: no effect"):
        project().wait_until(condition, 0.2, "no effect")


def test_a_command_that_fails_fails_the_test_and_shows_its_output(project: ProjectFactory) -> None:
    with pytest.raises(AssertionError, match=r"(?s)exit code 1.*Unknown command: 'nonsense'"):
        project().manage("nonsense")


def test_a_service_that_ends_before_it_is_ready_fails_the_test_at_once(project: ProjectFactory) -> None:
    service = project().service("--no-such-option")
    with pytest.raises(AssertionError, match=r"(?s)ended with exit code.*--no-such-option"):
        service.wait_ready()


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found through /proc")
def test_no_process_of_a_project_is_left_not_even_one_that_hid_in_a_session_of_its_own(project: ProjectFactory) -> None:
    site = project()
    code = "trap '' TERM; setsid sleep 60 & wait"
    child = subprocess.Popen(["sh", "-c", code], env=site.env, start_new_session=True)
    assert wait_until(lambda: len(site.processes()) == 2, 5.0)
    found = [process for process in map(Process.of, site.processes()) if process]
    site.end_processes()
    assert not any(process.alive for process in found)
    assert child.wait() == -9
