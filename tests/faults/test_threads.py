"""Threads of the service that die: their process ends and is replaced, and is never half alive."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.app.threads import VARIABLE
from tests.faults import invariants
from tests.faults.combinations import corners, on_postgresql_and_rabbitmq
from tests.faults.form import Form
from tests.faults.freezing import maintenance_of, worker_pids
from tests.faults.load import publish_all
from tests.faults.report import Record
from tests.faults.workload import UNFLUSHED, Workload
from tests.project import Broker, Database, Project, ProjectFactory
from tests.servers.process import Process
from tests.service import Service

HOLD = "tests.faults.fault_tasks.hold"
EFFECT = "tests.app.tasks.record_effect"
#: Those of a worker process; with RabbitMQ also the last.
WORKER = ["MainThread", "carrot-claimer", "carrot-recorder", "carrot-default-2", "carrot-consumer"]
#: Those of a maintenance process.
MAINTENANCE = [
    "MainThread",
    "carrot-leases",
    "carrot-undertaker",
    "carrot-reaper",
    "carrot-relay",
    "carrot-reconciler",
    "carrot-scheduler",
]


@pytest.mark.scenario("F10")
@corners
def test_a_worker_process_whose_thread_has_died_is_replaced(
    project: ProjectFactory, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    site = mortal(project(database=database, broker=broker, **form.settings))
    gate = site.directory / "gate"
    threads = [name for name in WORKER if broker == "amqp" or name != "carrot-consumer"] * form.times(1, 4)
    form.random.shuffle(threads)
    with Workload(site, form, scenario) as load:
        for n, name in enumerate(threads):
            load.work_goes_on(20)
            service = load.services[n % len(load.services)]
            worker = Process.of(form.random.choice(sorted(worker_pids(site, service))))
            assert worker is not None
            dies(load, service, worker, name, partial(worker_pids, site, service))
        # As with any death, the tasks that ran are suspects: one of them may have done it.
        publish_all(site, [(HOLD, str(load.journal.path), "held", str(gate))])
        worker = Process.of(load.journal.wait_begun("held"))
        assert worker is not None
        service = next(service for service in load.services if worker.pid in service.children())
        dies(load, service, worker, "carrot-claimer", partial(worker_pids, site, service))
        load.journal.wait_begun("held", times=2)
        gate.touch()
        load.finish()
    load.check(extra_runs=(len(threads) + 1) * (load.threads + UNFLUSHED))
    held = invariants.row_of(site, "held")
    assert (held["status"], held["tries"], held["crashes"]) == ("COMPLETED", 2, 1)


@pytest.mark.scenario("F10")
@corners
def test_a_maintenance_process_whose_thread_has_died_is_replaced_and_no_task_notices(
    project: ProjectFactory, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    # No task notices that nobody beats for a while: the lease is longer than it takes to start one that died young.
    site = mortal(project(database=database, broker=broker, reconcile_interval=0.5, **form.calm_settings))
    threads = MAINTENANCE * form.times(1, 4)
    form.random.shuffle(threads)
    with Workload(site, form, scenario) as load:
        for n, name in enumerate(threads):
            service = load.services[n % len(load.services)]
            maintenance = maintenance_of(site, service)
            dies(load, service, maintenance, name, partial(children, service))
            load.work_goes_on(10)
        # One that sleeps for a minute between two looks dies at its first.
        service = load.services[0]
        maintenance = maintenance_of(site, service)
        (deaths(site) / "carrot-retention").touch()
        os.kill(maintenance.pid, signal.SIGKILL)
        site.wait_until(lambda: "Thread carrot-retention has died" in service.output())
        load.finish()
    balance = load.check()
    assert balance.doubled_plain == {}
    assert site.sql("SELECT DISTINCT tries FROM carrot_messagelog") == [{"tries": 1}]


@pytest.mark.scenario("F10")
@on_postgresql_and_rabbitmq
def test_a_publisher_that_has_died_is_followed_by_another(
    project: ProjectFactory, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    """That of the maintenance process, which rings the bells of delayed tasks, and is begun when there is one."""
    site = mortal(project(database=database, broker=broker, **form.settings))
    service = site.service()
    service.wait_ready()
    publish_delayed(site, "first")
    death = deaths(site) / f"carrot-publisher {maintenance_of(site, service).pid}"
    for n in range(form.times(2, 20)):
        death.touch()
        site.wait_until(lambda: not death.exists(), message="the publisher has died")
        scenario.fault()
        begun = time.monotonic()
        publish_delayed(site, f"after-{n}")
        scenario.recovered(time.monotonic() - begun)
    assert max(scenario.recoveries) < form.limit(10.0)
    invariants.check_completed_once(site, invariants.effects(site), list(invariants.effects(site)))
    assert service.stop() == 0


def publish_delayed(site: Project, name: str) -> None:
    """Publish a task for a moment that is close, and wait until it is COMPLETED."""
    site.python(
        "from datetime import timedelta; from django.utils import timezone; from carrot.objects import Message\n"
        f"Message(task={EFFECT!r}, args=({name!r},), queue='default', routing_key='default',"
        " run_after=timezone.now() + timedelta(seconds=0.2)).publish()"
    )
    site.wait_until(lambda: invariants.row_of(site, name)["status"] == "COMPLETED", message=f"{name} is COMPLETED")


def children(service: Service) -> set[int]:
    return set(service.children())


def dies(load: Workload, service: Service, process: Process, thread: str, pids: Callable[[], set[int]]) -> None:
    """Let a thread of a process die; wait until another process is in its place among ``pids``."""
    before = pids()
    begun = time.monotonic()
    (deaths(load.site) / f"{thread} {process.pid}").touch()
    load.site.wait_until(
        lambda: process.pid not in (now := pids()) and len(now) == len(before),
        timeout=60.0,
        message=f"another process is in the place of {process.pid}, whose {thread} has died",
    )
    seconds = time.monotonic() - begun
    assert f"process {process.pid} ended with status 4; another takes its place" in service.output()
    assert seconds < load.form.limit(10.0), thread
    if load.scenario is not None:
        load.scenario.fault()
        load.scenario.recovered(seconds)


def mortal(site: Project) -> Project:
    """Have the threads of the project's services die when a file says so."""
    deaths(site).mkdir()
    site.env[VARIABLE] = str(deaths(site))
    return site


def deaths(site: Project) -> Path:
    return site.directory / "deaths"
