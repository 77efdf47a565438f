"""Many services with a scheduler each, some of them killed, at any moment and at the worst one."""

from __future__ import annotations

import time

import pytest

from tests.app.schedulers import VARIABLE
from tests.faults.combinations import corners
from tests.faults.form import Form
from tests.faults.report import Record
from tests.faults.slots import Schedules
from tests.faults.workload import Workload
from tests.project import Broker, Database, ProjectFactory


@pytest.mark.scenario("F37")
@corners
def test_five_services_some_of_them_killed_take_every_slot_once(
    project: ProjectFactory, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, **form.settings)
    death = site.directory / "death"
    site.env[VARIABLE] = str(death)
    with Workload(site, form, scenario, services=5, processes=1, threads=2, rate=form.rate / 2) as load:
        schedules = Schedules(site, load.journal, 50)
        for _ in range(form.times(2, 20)):
            schedules.go_on(1)
            death.touch()  # of the next scheduler that has inserted tasks and not committed them
            site.wait_until(lambda: not death.exists(), message="a scheduler was killed before its COMMIT")
            scenario.fault()
            schedules.go_on(1)
            time.sleep(form.random.uniform(0.0, 0.5))  # for no event: the kill is to hit any moment
            load.kill_service(form.random.choice(load.running_services()))
            load.start_service()
        schedules.go_on(2)
        schedules.end()
        load.finish()
    load.check()
    schedules.check()
    for name, slots in schedules.slots().items():
        assert slots == sorted(slots), name
    counts = [len(slots) for slots in schedules.slots().values()]
    assert len(counts) == schedules.count
    assert max(counts) - min(counts) <= 1, "all schedules are treated alike"
