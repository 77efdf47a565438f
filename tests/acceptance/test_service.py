"""``manage.py carrot`` as people meet it at the command line."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.proxy import FaultProxy
from tests.project import Project, ProjectFactory
from tests.servers import RabbitMQ
from tests.servers.process import free_ports, wait_until

pytestmark = pytest.mark.acceptance

ALL_COMPLETED = "SELECT count(*) = 0 FROM carrot_messagelog WHERE status <> 'COMPLETED'"
DELAYED = """
from datetime import timedelta
from django.utils import timezone
from carrot.objects import Message
Message(task="tests.app.tasks.noop", queue="default", routing_key="default",
        run_after=timezone.now() + timedelta(hours=1)).publish()
"""


def refused(site: Project, *words: str) -> str:
    """Runs ``manage.py carrot WORDS``, which must end with an error; returns what it printed."""
    done = site.manage("carrot", *words, check=False)
    assert done.returncode not in (0, None), done.stdout
    assert "Traceback" not in done.stdout
    assert "ready" not in done.stdout
    return done.stdout


# -- what it prints ---------------------------------------------------------------------------------------------------


def test_it_says_what_it_runs_and_one_line_for_each_task(project: ProjectFactory, amqp_url: str) -> None:
    queues = [{"name": "default", "concurrency": 2}, {"name": "mail", "host": "database://"}]
    site = project(database="postgresql", broker="amqp", queues=queues)
    service = site.service("--processes", "2")
    service.wait_ready()
    banner = service.output()
    assert re.search(r"queue default on amqp://guest:\*\*\*@127\.0\.0\.1:\d+/\S+: 4 consumer", banner)
    assert "queue mail on database://: 2 consumer" in banner
    assert "2 worker process(es) with 6 thread(s)" in banner
    site.publish("tests.app.tasks.add", 1, 2)
    site.publish("tests.app.tasks.fail", "on purpose", queue="mail")
    site.wait_until("SELECT count(*) = 2 FROM carrot_messagelog WHERE status IN ('COMPLETED', 'FAILED')")
    uuids = {row["task"]: str(row["uuid"]) for row in site.sql("SELECT task, uuid FROM carrot_messagelog")}
    lines = service.output().splitlines()
    (added,) = [line for line in lines if uuids["tests.app.tasks.add"] in line]
    (failed,) = [line for line in lines if uuids["tests.app.tasks.fail"] in line]
    assert re.search(r"INFO .*tests\.app\.tasks\.add \S+ completed in \d+\.\d+ s", added)
    assert re.search(r"ERROR .*tests\.app\.tasks\.fail \S+ failed after .*ValueError: on purpose", failed)
    log = (site.directory / "carrot.log").read_text()
    assert added in log
    assert failed in log
    assert "guest:guest" not in service.output() + log
    assert service.stop() == 0


def test_the_log_of_a_task_holds_every_level_whatever_the_service_itself_prints(project: ProjectFactory) -> None:
    site = project()
    service = site.service("--loglevel", "error")
    service.wait_ready()
    site.publish("tests.app.tasks.log_lines", 2)
    site.wait_until(ALL_COMPLETED)
    (row,) = site.sql("SELECT log FROM carrot_messagelog")
    assert [line.split(" ", 1)[1] for line in row["log"].splitlines()] == [
        "INFO tests.app.tasks: line 1 of 2",
        "INFO carrot: line 2 of 2",
    ]
    assert "line 1 of 2" not in service.output()
    assert "completed in" not in service.output()


# -- how it ends ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_in_order(project: ProjectFactory, number: signal.Signals) -> None:
    site = project()
    service = site.service("--processes", "2")
    service.wait_ready()
    service.send(number)
    assert service.wait(15.0) == 0
    assert service.output().rstrip().endswith("carrot has stopped.")
    assert wait_until(lambda: not site.processes(), 15.0)
    assert site.sql("SELECT count(*) AS left FROM carrot_workerprocess WHERE alive") == [{"left": 0}]


def test_in_test_mode_it_handles_what_is_due_and_stops(project: ProjectFactory) -> None:
    site = project()
    site.python(DELAYED)
    for number in range(3):
        site.publish("tests.app.tasks.add", number, 0)
    site.publish("tests.app.tasks.fail")
    service = site.service("--testmode")
    assert service.wait(30.0) == 0
    found = site.sql("SELECT status, count(*) AS tasks FROM carrot_messagelog GROUP BY status ORDER BY status")
    assert [(row["status"], row["tasks"]) for row in found] == [("COMPLETED", 3), ("FAILED", 1), ("WAITING", 1)]


def test_in_test_mode_an_empty_queue_is_a_quick_end(project: ProjectFactory) -> None:
    assert project(database="postgresql").service("--testmode").wait(15.0) == 0


@pytest.mark.slow
def test_in_test_mode_what_takes_longer_than_a_minute_is_named(project: ProjectFactory) -> None:
    site = project(grace=0.0)
    site.publish("tests.app.tasks.sleep", 300)
    site.publish("tests.app.tasks.noop")
    service = site.service("--testmode")
    assert service.wait(100.0) == 1
    assert "2 task(s) were not handled within 60 s" in service.output()
    assert "tests.app.tasks.sleep" in service.output()


# -- wrong options ----------------------------------------------------------------------------------------------------


def test_an_unknown_queue_is_an_error_that_lists_the_queues(project: ProjectFactory) -> None:
    queues = [{"name": "default"}, {"name": "mail"}, {"name": "theirs", "consumable": False}]
    site = project(queues=queues)
    shown = refused(site, "--queue", "no such")
    assert "no such" in shown
    assert "default" in shown
    assert "mail" in shown
    assert "consumable" in refused(site, "--queue", "theirs")


@pytest.mark.parametrize("words", [("--processes", "0"), ("--processes=-1",), ("--processes", "abc")])
def test_a_wrong_number_of_processes_is_an_error(project: ProjectFactory, words: tuple[str, ...]) -> None:
    assert "1 to 256" in refused(project(), *words)


def test_a_wrong_log_level_is_an_error_that_lists_the_levels(project: ProjectFactory) -> None:
    assert "DEBUG, INFO, WARNING, ERROR, CRITICAL" in refused(project(), "--loglevel", "loud")


def test_a_given_log_file_that_cannot_be_written_is_an_error(project: ProjectFactory) -> None:
    site = project()
    path = str(site.directory / "missing" / "carrot.log")
    shown = refused(site, "--logfile", path)
    assert path in shown
    assert "--logfile" in shown.replace(path, "")
    assert len(shown.strip().splitlines()) == 1


# -- what is missing --------------------------------------------------------------------------------------------------


def test_without_its_tables_one_sentence_says_what_to_run(project: ProjectFactory) -> None:
    site = project()
    site.env["CARROT_TEST_DATABASE_NAME"] = str(site.directory / "empty.sqlite3")
    shown = refused(site, "--logfile", str(site.directory / "carrot.log"))
    assert "run manage.py migrate" in shown.strip().splitlines()[-1]
    assert wait_until(lambda: not site.processes(), 15.0)


def test_without_its_database_one_sentence_says_so(project: ProjectFactory) -> None:
    site = project(database="postgresql")
    port = free_ports(1)[0]
    site.env["CARROT_TEST_POSTGRES"] = f"postgresql://somebody:secret@127.0.0.1:{port}/x"
    shown = refused(site, "--logfile", str(site.directory / "carrot.log"))
    assert "does not answer" in shown
    assert str(port) in shown
    assert "secret" not in shown


@pytest.fixture
def late_broker(rabbitmq: RabbitMQ) -> Iterator[FaultProxy]:
    """The way to RabbitMQ, not open yet."""
    with FaultProxy(rabbitmq.port) as proxy:
        proxy.cut()
        yield proxy


def test_without_its_broker_it_starts_and_works_once_the_broker_is_there(
    project: ProjectFactory, late_broker: FaultProxy
) -> None:
    site = project(broker="amqp", broker_port=late_broker.port)
    service = site.service()
    service.wait_ready()
    pk = site.publish("tests.app.tasks.add", 1, 2)
    assert site.sql("SELECT status FROM carrot_messagelog") == [{"status": "PUBLISHED"}]
    late_broker.pass_on()
    site.wait_until(ALL_COMPLETED)
    assert site.sql("SELECT output FROM carrot_messagelog WHERE id = %s", [pk]) == [{"output": "3"}]
    assert "Connection refused" in service.output()
    assert "guest:guest" not in service.output()
    assert service.stop() == 0


# -- other set-ups ----------------------------------------------------------------------------------------------------


def with_settings(site: Project, code: str) -> None:
    """Has the project's processes use settings of their own, made of those of the tests."""
    (site.directory / "own_settings.py").write_text(f"from tests.settings import *\n{code}\n")
    site.env["DJANGO_SETTINGS_MODULE"] = "own_settings"


def runs_a_task(site: Project, *words: str) -> None:
    service = site.service(*words)
    service.wait_ready()
    site.publish("tests.app.tasks.add", 1, 2)
    site.wait_until(ALL_COMPLETED)
    assert service.stop() == 0


def test_a_second_service_shares_the_work_of_the_first(project: ProjectFactory) -> None:
    site = project(database="postgresql", broker="amqp")
    services = [site.service()]
    services[0].wait_ready()
    services.append(site.service("--processes", "2"))
    services[1].wait_ready()
    assert ["Another carrot service runs on this database" in each.output() for each in services] == [False, True]
    site.python(
        "from carrot.utilities import create_message, publish_many\n"
        "publish_many(create_message('tests.app.tasks.record_effect', None, 0, (str(n),)) for n in range(40))"
    )
    site.wait_until(ALL_COMPLETED)
    assert site.sql("SELECT count(*) AS runs, count(DISTINCT message_id) AS tasks FROM app_effect") == [
        {"runs": 40, "tasks": 40}
    ]
    assert [service.stop() for service in services] == [0, 0]
    assert all("ERROR" not in service.output() for service in services)


def test_it_works_without_the_admin(project: ProjectFactory) -> None:
    site = project()
    with_settings(
        site,
        "INSTALLED_APPS = ['django.contrib.contenttypes', 'carrot', 'tests.app']\n"
        "TEMPLATES = [{'BACKEND': 'django.template.backends.django.DjangoTemplates', 'APP_DIRS': True}]\n"
        "MIDDLEWARE, ROOT_URLCONF = [], 'own_urls'",
    )
    (site.directory / "own_urls.py").write_text("urlpatterns = []\n")
    runs_a_task(site)


def test_it_works_without_any_setting(project: ProjectFactory, amqp_url: str) -> None:
    """On the broker that 1.x assumed; here that name leads to the broker of the tests, to disturb no other."""
    site: Any = project(broker="amqp")
    with_settings(site, f"del CARROT\nimport carrot\ncarrot.DEFAULT_BROKER = {amqp_url!r}")
    assert "False" in site.python("from django.conf import settings; print(hasattr(settings, 'CARROT'))").stdout
    runs_a_task(site)
    assert site.sql("SELECT queue FROM carrot_messagelog") == [{"queue": "default"}]
