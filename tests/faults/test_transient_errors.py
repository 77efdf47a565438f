"""Errors of the database that pass when one tries again: deadlocks, serialization failures, a lock somebody holds."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from tests.app.sql_errors import VARIABLE
from tests.faults import invariants
from tests.faults.changed_settings import change_settings
from tests.faults.combinations import everywhere
from tests.faults.form import Form
from tests.faults.report import Record
from tests.faults.workload import Workload
from tests.project import Broker, Database, ProjectFactory

#: Shares of statements and of commits.
SHARES = "0.05 0.01"


@pytest.mark.scenario("F31")
@everywhere
def test_statements_and_commits_that_fail_are_tried_again_and_no_task_fails_over_it(
    project: ProjectFactory, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, **form.calm_settings)
    shares = site.directory / "shares"
    change_settings(site, f"import os\nif SERVICE:\n    os.environ['{VARIABLE}'] = {str(shares)!r}")
    with Workload(site, form, scenario) as load:
        children = [set(service.children()) for service in load.services]
        written = shares.with_name("shares.new")
        written.write_text(SHARES)
        written.replace(shares)  # at once: nobody reads half of it
        load.finish()
        invariants.wait_for_rest(site, form.seconds(120.0, 600.0))
        shares.unlink()
    load.check(stop=False)
    tally = Counter(shares.with_name(f"{shares.name}.tally").read_text())
    scenario.fault(tally.total())
    scenario.remark(f"{tally['s']} statements, {tally['c']} commits")
    assert tally["s"] > 20
    assert tally["c"] > 0 or database == "sqlite", "SQLite commits nearly all by itself, a statement at a time"
    assert site.sql("SELECT id FROM carrot_messagelog WHERE status <> 'COMPLETED' OR crashes > 0") == []
    assert [set(service.children()) for service in load.services] == children
    for service in load.services:
        assert "Traceback" not in service.output(), "nothing met it unprepared"
        assert "gave no sign" not in service.output()
    load.stop()


@pytest.mark.scenario("F31")
@pytest.mark.parametrize(("database", "broker"), [("sqlite", "database"), ("sqlite", "amqp")])
def test_a_process_that_locks_sqlite_for_seconds_at_a_time_makes_the_work_wait_and_no_task_fail(
    project: ProjectFactory, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, **form.calm_settings)
    # Services are refused the lock, where producers wait for it.
    change_settings(site, "if SERVICE:\n    DATABASES['default']['OPTIONS']['timeout'] = 0.3")
    with Workload(site, form, scenario) as load:
        children = [set(service.children()) for service in load.services]
        for _ in range(form.times(3, 20)):
            with site.connect() as connection:
                connection.execute("BEGIN IMMEDIATE")
                scenario.fault()
                time.sleep(form.seconds(1.5, 5.0))  # the fault itself
                connection.execute("COMMIT")
            freed = time.monotonic()
            assert load.resumed(after=freed) < form.limit(5.0)
            load.work_goes_on(20)
        load.finish()
    load.check(stop=False)
    assert site.sql("SELECT id FROM carrot_messagelog WHERE status <> 'COMPLETED' OR crashes > 0") == []
    assert [set(service.children()) for service in load.services] == children
    for service in load.services:
        assert "database is locked" in service.output()
        assert "Traceback" not in service.output(), "nothing met it unprepared"
        assert "gave no sign" not in service.output()
    load.stop()
