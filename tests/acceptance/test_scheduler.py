"""Schedules and real services: at their times, as they are now, and never a slot twice."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import pytest

from tests.faults.changed_settings import change_settings
from tests.faults.slots import LOG
from tests.project import Broker, Database, Project, ProjectFactory
from tests.servers.process import wait_until

pytestmark = pytest.mark.acceptance

ADD = "tests.app.tasks.add"
NOOP = "tests.app.tasks.noop"

#: A scheduler that is killed after its INSERT and before its COMMIT.
KILLED = """
import os, signal
from carrot import scheduler

whole = scheduler.publish_many

def publish_and_die(messages):
    assert len(whole(messages)) == 3
    os.kill(os.getpid(), signal.SIGKILL)

scheduler.publish_many = publish_and_die
scheduler.Scheduler().step()
"""

#: Writes down each look of the service's scheduler: when it was over, and the seconds it chose to wait for the next.
WITNESS = """
import time
from django.apps import AppConfig

class Witness(AppConfig):
    name = "witness"

    def ready(self):
        from carrot.scheduler import Scheduler

        whole = Scheduler.step

        def step(loop):
            pause = whole(loop)
            with open(__file__ + ".looks", "a") as looks:
                looks.write(f"{time.time()} {pause}\\n")
            return pause

        Scheduler.step = step
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Database:
    name: Database = request.param
    return name


def moment(value: Any) -> datetime:
    """A time as either database gives it."""
    found = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


def count(site: Project, condition: str = "1 = 1") -> int:
    return int(site.sql(f"SELECT count(*) AS n FROM carrot_messagelog WHERE {condition}")[0]["n"])


def code(site: Project, body: str) -> datetime:
    """Runs ``body`` in a process of its own; returns the time at which it was done."""
    done = site.python(
        "from carrot import clock\nfrom carrot.models import ScheduledTask\n"
        f"from carrot.utilities import create_scheduled_task\n{body}\nprint('done', clock.now().isoformat())"
    )
    return moment(done.stdout.rpartition("done ")[2].strip())


def first_publish(site: Project, condition: str) -> datetime:
    site.wait_until(lambda: count(site, condition), 15.0, f"a task with {condition}")
    return moment(site.sql(f"SELECT min(publish_time) AS first FROM carrot_messagelog WHERE {condition}")[0]["first"])


def observe(site: Project) -> None:
    """Have ``waited`` know what the schedulers of services do, and the table ``slot_log`` which slots they take."""
    (site.directory / "witness.py").write_text(WITNESS)
    change_settings(site, "if SERVICE:\n    INSTALLED_APPS = [*INSTALLED_APPS, 'witness.Witness']")
    for statement in LOG[site.database]:
        site.sql(statement)


def waited(site: Project, since: datetime, until: datetime) -> float:
    """For how many of the seconds between two moments the scheduler slept because it chose to.

    What is promised is how long it waits. On a busy machine it is also late, and so is whatever measures it.
    """
    begin, end = since.timestamp(), until.timestamp()
    looks = [map(float, line.split()) for line in (site.directory / "witness.py.looks").read_text().splitlines()]
    return sum(max(0.0, min(over + pause, end) - max(over, begin)) for over, pause in looks)


@pytest.mark.parametrize(("database", "broker"), [("sqlite", "database"), ("postgresql", "amqp")])
def test_a_service_publishes_every_second_and_follows_changes_within_two(
    project: ProjectFactory, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker)
    observe(site)
    service = site.service()
    service.wait_ready()

    made = code(site, f"create_scheduled_task({ADD!r}, {{'seconds': 1}}, 'sums', a=1, b=2)")
    first = first_publish(site, "1 = 1")
    assert waited(site, made, first) <= 2.0
    site.wait_until("SELECT count(*) >= 4 FROM carrot_messagelog WHERE status = 'COMPLETED'")
    anchor = moment(site.sql("SELECT anchor FROM carrot_scheduledtask")[0]["anchor"])
    assert first >= anchor + timedelta(seconds=1)
    slots = [moment(row["slot"]) - anchor for row in site.sql("SELECT slot FROM slot_log ORDER BY id LIMIT 4")]
    seconds = [slot.total_seconds() for slot in slots]
    assert seconds[0] == 1.0
    assert all(late > early and late % 1 == 0 for early, late in pairwise(seconds))

    saved = code(
        site, "row = ScheduledTask.objects.get()\nrow.interval_type, row.kwargs = 'days', {'a': 7, 'b': 7}\nrow.save()"
    )
    left = count(site, f"task = '{ADD}'")
    late = "SELECT count(*) AS n FROM carrot_messagelog WHERE publish_time > %s"
    after = saved.replace(tzinfo=None) if database == "sqlite" else saved
    assert not wait_until(lambda: bool(site.sql(late, [str(after)])[0]["n"]), 3.0), "it is daily now"
    assert count(site) == left

    saved = code(site, f"ScheduledTask.objects.update(interval_type='seconds', task={NOOP!r}, kwargs={{}})")
    first = first_publish(site, f"task = '{NOOP}'")
    assert waited(site, saved, first) <= 2.5, "past save(), too"

    code(site, "ScheduledTask.objects.all().disable()")
    left, last = count(site), site.sql("SELECT max(id) AS id FROM carrot_messagelog")[0]["id"]
    assert not wait_until(lambda: count(site) > left, 3.0)
    saved = code(site, "ScheduledTask.objects.all().enable()")
    first = first_publish(site, f"id > {last}")
    assert waited(site, saved, first) <= 2.0
    assert service.stop() == 0


def test_without_the_scheduler_nothing_is_published(project: ProjectFactory, database: Database) -> None:
    site = project(database=database)
    code(site, f"create_scheduled_task({NOOP!r}, {{'seconds': 1}})")
    deaf = site.service("--no-scheduler")
    deaf.wait_ready()
    mine = site.publish(ADD, 1, 2)
    site.wait_until(f"SELECT status = 'COMPLETED' FROM carrot_messagelog WHERE id = {mine}")
    assert not wait_until(lambda: count(site) > 1, 3.0)
    site.service().wait_ready()
    site.wait_until(lambda: count(site, f"task = '{NOOP}' AND status = 'COMPLETED'"))


def test_a_scheduler_killed_before_its_commit_has_published_nothing(
    project: ProjectFactory, database: Database
) -> None:
    site = project(database=database)
    code(
        site,
        "for n in range(3):\n"
        f"    ScheduledTask(task_name=str(n), task={NOOP!r}, interval_type='days', next_run=clock.now()).save()",
    )
    before = site.sql("SELECT * FROM carrot_scheduledtask ORDER BY id")
    assert site.python(KILLED, check=False).returncode == -9
    assert count(site) == 0
    assert site.sql("SELECT * FROM carrot_scheduledtask ORDER BY id") == before
    for _ in range(2):
        site.python("from carrot.scheduler import Scheduler\nScheduler().step()")
    assert count(site) == 3
