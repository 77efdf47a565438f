"""Schedules and real services: at their times, as they are now, and never a slot twice."""

from __future__ import annotations

import random
import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from tests.project import Broker, Database, Project, ProjectFactory
from tests.servers.process import wait_until

pytestmark = pytest.mark.acceptance

ADD = "tests.app.tasks.add"
NOOP = "tests.app.tasks.noop"

#: Writes down every slot that is taken, in the transaction that takes it.
SLOT_LOG = {
    "sqlite": [
        "CREATE TABLE slot_log (schedule INTEGER, slot TEXT)",
        """CREATE TRIGGER log_slot AFTER UPDATE OF last_slot ON carrot_scheduledtask
        BEGIN INSERT INTO slot_log VALUES (NEW.id, NEW.last_slot); END""",
    ],
    "postgresql": [
        "CREATE TABLE slot_log (schedule BIGINT, slot TIMESTAMPTZ)",
        """CREATE FUNCTION log_slot() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO slot_log VALUES (NEW.id, NEW.last_slot); RETURN NULL; END $$""",
        """CREATE TRIGGER log_slot AFTER UPDATE OF last_slot ON carrot_scheduledtask
        FOR EACH ROW EXECUTE FUNCTION log_slot()""",
    ],
}

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


@pytest.mark.parametrize(("database", "broker"), [("sqlite", "database"), ("postgresql", "amqp")])
def test_a_service_publishes_every_second_and_follows_changes_within_two(
    project: ProjectFactory, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker)
    service = site.service()
    service.wait_ready()

    made = code(site, f"create_scheduled_task({ADD!r}, {{'seconds': 1}}, 'sums', a=1, b=2)")
    assert first_publish(site, "1 = 1") <= made + timedelta(seconds=2)
    site.wait_until("SELECT count(*) >= 4 FROM carrot_messagelog WHERE status = 'COMPLETED'")
    row = site.sql("SELECT anchor FROM carrot_scheduledtask")[0]
    offsets = [
        (moment(found["publish_time"]) - moment(row["anchor"])).total_seconds()
        for found in site.sql("SELECT publish_time FROM carrot_messagelog ORDER BY id LIMIT 4")
    ]
    assert len({int(offset) for offset in offsets}) == 4
    assert 1 <= min(offsets) < 2

    saved = code(
        site, "row = ScheduledTask.objects.get()\nrow.interval_type, row.kwargs = 'days', {'a': 7, 'b': 7}\nrow.save()"
    )
    left = count(site, f"task = '{ADD}'")
    late = "SELECT count(*) AS n FROM carrot_messagelog WHERE publish_time > %s"
    after = saved.replace(tzinfo=None) if database == "sqlite" else saved
    assert not wait_until(lambda: bool(site.sql(late, [str(after)])[0]["n"]), 3.0), "it is daily now"
    assert count(site) == left

    saved = code(site, f"ScheduledTask.objects.update(interval_type='seconds', task={NOOP!r}, kwargs={{}})")
    assert first_publish(site, f"task = '{NOOP}'") <= saved + timedelta(seconds=2.5), "past save(), too"

    code(site, "ScheduledTask.objects.all().disable()")
    left = count(site)
    assert not wait_until(lambda: count(site) > left, 3.0)
    saved = code(site, "ScheduledTask.objects.all().enable()")
    site.wait_until(lambda: count(site) > left)
    assert (moment(site.sql("SELECT max(publish_time) AS last FROM carrot_messagelog")[0]["last"]) - saved) < timedelta(
        seconds=2
    )
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


@pytest.mark.slow
def test_five_services_some_of_them_killed_take_every_slot_once(project: ProjectFactory, database: Database) -> None:
    site = project(database=database)
    for statement in SLOT_LOG[database]:
        site.sql(statement)
    services = [site.service() for _ in range(5)]
    for service in services:
        service.wait_ready(60.0)
    code(
        site,
        "ScheduledTask.objects.bulk_create(\n"
        f"    ScheduledTask(task_name=f'name {{n}}', task={ADD!r}, kwargs={{'a': n, 'b': 0}}) for n in range(50)\n)",
    )
    chance = random.Random(4)
    for wanted in (100, 200, 300, 400):
        site.wait_until(f"SELECT count(*) >= {wanted} FROM slot_log", 60.0)
        time.sleep(chance.uniform(0.0, 0.5))  # for no event: the kill is to hit any moment of the next round
        services.pop(chance.randrange(len(services))).kill()
        services.append(site.service())
    site.wait_until("SELECT count(*) >= 600 FROM slot_log", 60.0)
    for service in services:
        service.kill()
    slots = site.sql("SELECT schedule, slot FROM slot_log")
    assert len({(row["schedule"], row["slot"]) for row in slots}) == len(slots) == count(site)
    per_schedule = site.sql("SELECT count(*) AS n FROM carrot_messagelog GROUP BY kwargs")
    assert len(per_schedule) == 50
    assert max(row["n"] for row in per_schedule) - min(row["n"] for row in per_schedule) <= 1
