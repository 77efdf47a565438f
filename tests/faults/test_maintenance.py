"""A maintenance process that is killed while its workers finish: they are not taken for lost."""

from __future__ import annotations

import signal
import time

import pytest

from tests.faults import invariants
from tests.faults.combinations import corners
from tests.faults.form import Form
from tests.faults.freezing import maintenance_of
from tests.faults.load import Journal, publish_all
from tests.faults.report import Record
from tests.project import Broker, Database, ProjectFactory

HOLD = "tests.faults.fault_tasks.hold"
#: Seconds of the lease in the short form: it has to end in the test, and no busy machine lets a process stand still so
#: long; and between two looks of a reaper, at most.
LEASE = 6.0
REAPER_LOOK = 1.0


@pytest.mark.scenario("F03")
@corners
def test_a_service_that_stops_gets_another_maintenance_process_until_its_tasks_have_ended(
    project: ProjectFactory, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    lease = form.seconds(LEASE, form.lease)
    site = project(database=database, broker=broker, grace=120.0, **form.settings | {"lease": lease})
    journal, gate = Journal(site), site.directory / "gate"
    services = [site.service() for _ in range(2)]
    for service in services:
        service.wait_ready()
    publish_all(site, [(HOLD, str(journal.path), "held", str(gate))])
    pid = journal.wait_begun("held")
    stopping = next(service for service in services if pid in service.children())
    stopping.send(signal.SIGTERM)
    site.wait_until(lambda: "Stopping: 1 running task(s)" in stopping.output())
    maintenance_of(site, stopping).kill()
    scenario.fault()
    time.sleep(lease + 2 * REAPER_LOOK)  # the fault itself: without beats, the other service would take the task
    assert "Maintenance process" in stopping.output()
    gate.touch()
    assert stopping.wait(60.0) == 0
    held = invariants.row_of(site, "held")
    assert (held["status"], held["tries"], held["crashes"]) == ("COMPLETED", 1, 0)
    assert journal.runs() == {"held": 1}
