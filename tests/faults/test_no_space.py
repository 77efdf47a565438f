"""A database that has no space left."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.faults import invariants
from tests.faults.combinations import on_postgresql_or_without_servers
from tests.faults.disks import Disk, SmallDisk, SmallFile
from tests.faults.form import Form
from tests.faults.load import publish_all
from tests.faults.report import Record
from tests.faults.workload import Workload
from tests.project import Broker, Database, Project, ProjectFactory

#: A request that writes and publishes, again and again until that is refused. Once the space is gone some of it is left
#: here and there: in pages that are not full.
REQUESTS = """
from django.db import Error, transaction
from carrot.utilities import publish_message
from tests.app.models import Effect

for n in range(20_000):
    try:
        with transaction.atomic():
            Effect.objects.create(message_id=f"request{n}", attempt=1, pid=1)
            publish_message("tests.faults.fault_tasks.note", JOURNAL, f"request{n}")
    except Error as error:
        print(f"refused: {type(error).__name__} {n} {error}")
        break
"""


FULL = re.compile("No space left on device|database or disk is full")
WAITS = re.compile(rf"outcome\(s\) wait for the database: .*({FULL.pattern})")
LARGE = "tests.faults.odd_outcomes.large"


@pytest.fixture
def disk(request: pytest.FixtureRequest, form: Form, database: Database) -> Iterator[Disk]:
    """Space for the database of one project."""
    with ExitStack() as stack:
        if database == "postgresql":
            server = request.getfixturevalue("postgresql")
            yield stack.enter_context(SmallDisk(server, form.times(48, 128)).mounted())
        else:
            yield SmallFile(form.times(8, 64))


@pytest.mark.scenario("F29")
@on_postgresql_or_without_servers
def test_without_space_publishing_raises_and_work_waits_until_there_is_some(
    disk: Disk, project: ProjectFactory, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, **form.settings)
    disk.take(site)
    with Workload(site, form, scenario) as load:
        children = [set(service.children()) for service in load.services]
        load.work_goes_on(50)
        gate = site.directory / "gate"
        names = [f"large{n}" for n in range(len(load.services) * load.processes * load.threads)]
        publish_all(site, [(LARGE, str(load.journal.path), name, str(gate)) for name in names])
        for name in names:  # one on each thread
            load.journal.wait_begun(name)
        disk.fill(site)
        scenario.fault()
        refused = last_request(site, load)
        gate.touch()
        for service in load.services:
            site.wait_until(lambda service=service: WAITS.search(service.output()), 60.0, "outcomes wait for space")
        time.sleep(form.seconds(2.0, 30.0))  # the fault itself
        assert any(not call.committed for call in load.calls()), "publishing raised"
        disk.free(site)
        back = time.monotonic()
        assert load.resumed(after=back) < form.limit(5.0)
        load.work_goes_on(50)
        load.finish()
    load.check(stop=False)
    invariants.check_completed_once(site, load.journal.runs(), names)
    # The whole request: neither what it wrote nor its task is there; those before it have both.
    effects, runs = invariants.effects(site), load.journal.runs()
    assert effects[f"request{refused}"] == runs[f"request{refused}"] == 0
    assert {(effects[f"request{n}"], runs[f"request{n}"]) for n in range(refused)} <= {(1, 1)}
    assert [set(service.children()) for service in load.services] == children
    for service in load.services:
        invariants.check_reconciler_idle(service)
    load.stop()


def last_request(site: Project, load: Workload) -> int:
    """Make requests until one is refused for want of space; return its number."""
    shown = site.python(REQUESTS.replace("JOURNAL", repr(str(load.journal.path)))).stdout
    found = re.search(r"refused: OperationalError (\d+)", shown)
    assert found, shown
    assert FULL.search(shown), shown
    return int(found[1])
