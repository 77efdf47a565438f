"""Services with older and newer code side by side, as during a deployment."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import pytest

from tests.faults import invariants
from tests.faults.combinations import corners, on_postgresql_and_rabbitmq
from tests.faults.form import Form
from tests.faults.freezing import worker_pids
from tests.faults.load import Journal, Load
from tests.faults.report import Record
from tests.project import Broker, Database, Project, ProjectFactory
from tests.service import Service

#: The same module in two versions: a task is new, one has another name, and two want to know more.
OLD = """
from carrot import task
from tests.faults.fault_tasks import effect, note

def former(journal, name): note(journal, name)

def grown(journal, name): note(journal, name)

@task(atomic=True)
def counted(journal, name): effect(journal, name, 0.0)
"""
NEW = """
from carrot import task
from tests.faults.fault_tasks import effect, note

def added(journal, name): note(journal, name)

def renamed(journal, name): note(journal, name)

def grown(journal, name, region): note(journal, name)

@task(atomic=True)
def counted(journal, name, region): effect(journal, name, 0.0)
"""
FOUR_THREADS: list[dict[str, Any]] = [{"name": "default", "concurrency": 4}]
#: Seconds until a task that did not fit is tried again, at the least.
SOONEST = 2.5


class Version:
    """A version of the project's code: services run with ``env`` have it."""

    def __init__(self, site: Project, name: str, source: str) -> None:
        self._site = site
        self._directory = site.directory / name
        self._directory.mkdir()
        (self._directory / "deployed.py").write_text(source)
        self.env = {"PYTHONPATH": os.pathsep.join([str(self._directory), site.env["PYTHONPATH"]])}

    def publish(self, journal: Journal, calls: Sequence[tuple[Any, ...]]) -> list[str]:
        """Publish tasks, each given as (function, name, further argument ...); return their names."""
        full = [(f"deployed.{function}", str(journal.path), *args) for function, *args in calls]
        self._site.python(
            f"import sys; sys.path.insert(0, {str(self._directory)!r})\n"
            "from carrot.utilities import publish_message\n"
            f"for call in {full!r}: publish_message(*call)\n"
        )
        return [args[0] for _function, *args in calls]


@pytest.mark.scenario("F41")
@corners
def test_tasks_that_the_old_code_does_not_know_wait_for_the_new_and_what_nobody_knows_fails(
    project: ProjectFactory, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, queues=FOUR_THREADS, **form.settings)
    old, new, journal = Version(site, "old", OLD), Version(site, "new", NEW), Journal(site)
    begun = time.monotonic()
    with Load(site, journal) as load:
        before = site.service(env=old.env)
        before.wait_ready()
        early = new.publish(
            journal,
            [
                call
                for n in range(form.times(3, 30))
                for call in [
                    ("added", f"added{n}"),
                    ("renamed", f"renamed{n}"),
                    ("grown", f"grown{n}", n),
                    ("counted", f"counted{n}", n),
                ]
            ],
        )
        handed_back = "task LIKE 'deployed.%' AND hand_backs > 0"
        site.wait_until(f"SELECT count(*) = {len(early)} FROM carrot_messagelog WHERE {handed_back}")
        load.work_goes_on(20)  # which is nobody's hindrance
        # Nobody knows what comes last, so its patience may be short.
        site.configure(deploy_patience=SOONEST - 1.0)
        after = site.service(env=new.env)
        after.wait_ready()
        assert before.stop() == 0
        late = old.publish(
            journal, [("former", "former"), ("grown", "too-few"), ("counted", "too-few-counted"), ("grown", "too-late")]
        )
        scenario.fault(len(early) + len(late))
        load.work_goes_on(20)
        load.finish()
    invariants.wait_for_rest(site)
    seconds = time.monotonic() - begun
    rows = rows_by_name(site)
    scenario.sent = len(rows)
    scenario.lost = len({*early, *late, *load.committed()} - rows.keys())
    assert scenario.lost == 0
    assert {rows[name]["status"] for name in early} == {"COMPLETED"}
    assert {rows[name]["status"] for name in late} == {"FAILED"}
    counted = [name for name in early if name.startswith("counted")]
    invariants.check_completed_once(site, invariants.effects(site), counted)
    invariants.check_completed_once(site, journal.runs(), sorted({*early, *load.committed()} - {*counted}))
    assert not journal.runs().keys() & set(late)
    hand_backs = check_no_hot_loop(site, early + late, seconds)
    assert "deployed" in (told := rows["former"]["exception"]), told
    assert "former" in told
    for name in late[1:]:
        assert "region" in rows[name]["exception"]
    scenario.remark(f"{hand_backs} hand-backs of a task at most, in {seconds:.0f} s")
    assert after.stop() == 0
    invariants.check_stopped(site)


@pytest.mark.scenario("F41")
@on_postgresql_and_rabbitmq
def test_of_two_versions_at_work_each_runs_what_it_knows(
    project: ProjectFactory, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, queues=FOUR_THREADS, **form.settings)
    old, new, journal = Version(site, "old", OLD), Version(site, "new", NEW), Journal(site)
    services = [site.service(env=version.env) for version in (old, new)]
    for service in services:
        service.wait_ready()
    begun = time.monotonic()
    count = form.times(2, 40)
    olds = old.publish(journal, [("former", f"old{n}") for n in range(count)])
    news = new.publish(journal, [("added", f"new{n}") for n in range(count)])
    scenario.fault(2 * count)
    invariants.wait_for_rest(site, 110.0)  # less than the patience
    invariants.check_completed_once(site, journal.runs(), olds + news)
    assert runs_in(site, journal, services[0]) == set(olds)
    assert runs_in(site, journal, services[1]) == set(news)
    check_no_hot_loop(site, olds + news, time.monotonic() - begun)


def runs_in(site: Project, journal: Journal, service: Service) -> set[str]:
    """The names of the tasks that ran in a service."""
    pids = worker_pids(site, service)
    return {name for name, pid in journal.lines("end") if pid in pids}


def rows_by_name(site: Project) -> dict[str, dict[str, Any]]:
    return {invariants.name_of(row): row for row in site.sql("SELECT * FROM carrot_messagelog")}


def check_no_hot_loop(site: Project, names: Sequence[str], seconds: float) -> int:
    """A task that did not fit was tried again every few seconds, and no attempt was counted; return how often."""
    rows = rows_by_name(site)
    most = max(rows[name]["hand_backs"] for name in names)
    assert most <= seconds / SOONEST + 1
    assert {rows[name]["tries"] for name in names} == {1}
    return int(most)
