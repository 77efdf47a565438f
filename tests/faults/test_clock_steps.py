"""Clocks that are set while the system runs: nobody is taken for dead, no slot is taken twice, no task waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults import invariants
from tests.faults.clocks import Clock
from tests.faults.combinations import corners, on_postgresql, on_postgresql_and_rabbitmq
from tests.faults.form import Form
from tests.faults.freezing import worker_pids
from tests.faults.load import Journal, publish_all
from tests.faults.report import Record
from tests.faults.slots import Schedules
from tests.faults.workload import Workload
from tests.project import Broker, Database, ProjectFactory

HOLD = "tests.faults.fault_tasks.hold"
HOUR, DAY = 3600.0, 86_400.0
BACK, AHEAD = [-HOUR, -DAY], [HOUR, DAY]
#: Seconds of the lease in the short form: it has to end in a test, and no busy machine lets a process stand still so
#: long; and between two looks of a reaper, at most.
LEASE = 5.0
REAPER_LOOK = 1.0


@pytest.mark.scenario("F35")
@corners
def test_a_service_whose_clock_is_set_goes_on_and_so_do_the_schedules(
    project: ProjectFactory, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, **settings(form))
    with Workload(site, form, scenario, clocks=True) as load:
        schedules = Schedules(site, load.journal, 10)
        schedules.go_on(1)
        before = [worker_pids(site, service) for service in load.services]
        # The other service keeps the time while the clock of this one is behind; ahead, it is the first at every slot,
        # and takes those after all that were taken before: the furthest clock comes last.
        for offset in [
            *form.random.sample(BACK, form.times(1, 2)),
            *sorted(form.random.sample(AHEAD, form.times(1, 2))),
        ]:
            scenario.fault()
            load.clocks["service 1"].shift(offset)
            outlast_a_lease(form)
            load.work_goes_on(20)
            schedules.go_on(2)
            load.clocks["service 1"].shift(0.0)
            load.work_goes_on(20)
        # What a clock a day ahead has taken stays taken; to begin at once, one does as docs/scheduling.md says.
        schedules.restart()
        schedules.go_on(2)
        assert [worker_pids(site, service) for service in load.services] == before
        schedules.end()
        load.finish()
    balance = load.check()
    assert balance.doubled_plain == {}
    assert tried_again(load) == []
    schedules.check()


@pytest.mark.scenario("F35")
@on_postgresql_and_rabbitmq
def test_a_service_whose_clock_is_wrong_takes_over_from_a_dead_one_neither_early_nor_late(
    project: ProjectFactory, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, queues=[{"name": "default", "concurrency": 2}], **settings(form))
    lease, journal = settings(form)["lease"], Journal(site)
    clock = Clock(site.directory / "clock")
    site.service(env=clock.env).wait_ready()
    for n, offset in enumerate(form.random.sample([*BACK, *AHEAD], form.times(1, 4))):
        dies = site.service()
        dies.wait_ready()
        clock.shift(offset)
        gate = site.directory / f"gate-{n}"
        names = [f"held{n}-{slot}" for slot in range(4)]  # a task on each thread of both
        publish_all(site, [(HOLD, str(journal.path), name, str(gate)) for name in names])
        for name in names:
            journal.wait_begun(name)
        lost = worker_pids(site, dies)
        scenario.fault()
        killed = time.monotonic()
        dies.kill()
        site.wait_until(
            lambda lost=lost: not lost & set(invariants.living_workers(site)), lease + 60.0, "it is taken for lost"
        )
        seconds = time.monotonic() - killed
        scenario.recovered(seconds)
        # The last beat was as old as the time between two, or less.
        assert lease - form.seconds(0.5, 5.0) - 0.5 < seconds < lease + form.limit(2 * REAPER_LOOK)
        gate.touch()
        invariants.wait_for_rest(site)


@pytest.mark.scenario("F35")
@corners
def test_tasks_published_by_a_clock_that_is_wrong_run_at_once(
    project: ProjectFactory, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    """The web side alone. A process killed between its COMMIT and its message leaves a bell at a time of its own."""
    site = project(database=database, broker=broker, **settings(form))
    with Workload(site, form, scenario, clocks=True) as load:
        for offset in form.random.sample([*BACK, *AHEAD], form.times(1, 4)):
            scenario.fault()
            load.clocks["producers"].shift(offset)
            load.work_goes_on(100)
        load.kill_producer(0)  # wherever the last one has left the clock
        load.finish()
    balance = load.check()
    assert balance.doubled_plain == {}
    assert tried_again(load) == []


@pytest.mark.scenario("F35")
@on_postgresql
def test_a_database_whose_clock_is_set_matters_to_nobody(
    project: ProjectFactory,
    form: Form,
    scenario: Record,
    database_clock: Callable[[float], None],
    database: Database,
    broker: Broker,
) -> None:
    site = project(database=database, broker=broker, **settings(form))
    with Workload(site, form, scenario) as load:
        schedules = Schedules(site, load.journal, 10)
        schedules.go_on(1)
        before = [worker_pids(site, service) for service in load.services]
        for offset in form.random.sample([-DAY, DAY], form.times(1, 2)):
            scenario.fault()
            database_clock(offset)
            outlast_a_lease(form)
            schedules.go_on(2)
            load.work_goes_on(20)
        assert [worker_pids(site, service) for service in load.services] == before
        schedules.end()
        load.finish()
    balance = load.check()
    assert balance.doubled_plain == {}
    schedules.check()


def settings(form: Form) -> dict[str, Any]:
    return form.settings | {"lease": form.seconds(LEASE, form.lease)}


def outlast_a_lease(form: Form) -> None:
    """The fault itself."""
    time.sleep(settings(form)["lease"] + 2 * REAPER_LOOK)


def tried_again(load: Workload) -> list[dict[str, object]]:
    """Tasks that were claimed more than once, or came to harm."""
    return load.site.sql("SELECT args, tries, crashes, status FROM carrot_messagelog WHERE tries <> 1 OR crashes <> 0")
