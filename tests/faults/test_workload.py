"""The workload does what scenarios build on: through proxies, with producers that die, and twice the same."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from tests.faults import workload
from tests.faults.combinations import on_postgresql_and_rabbitmq
from tests.faults.form import Form, form_of_test
from tests.faults.proxy import FaultProxy
from tests.faults.report import Record
from tests.faults.workload import Workload
from tests.project import Broker, Database, ProjectFactory

SMALL: dict[str, Any] = {"services": 1, "processes": 1, "tasks": 60}


@on_postgresql_and_rabbitmq
def test_a_project_reaches_its_servers_through_proxies_and_the_test_reaches_them_without(
    project: ProjectFactory,
    broker_proxy: FaultProxy,
    database_proxy: FaultProxy,
    form: Form,
    database: Database,
    broker: Broker,
) -> None:
    site = project(
        database=database,
        broker=broker,
        broker_port=broker_proxy.port,
        database_port=database_proxy.port,
        **form.settings,
    )
    record = Record(scenario="F01", test="none")
    with Workload(site, form, record, **SMALL) as load:
        assert broker_proxy.connections > 0
        assert database_proxy.connections > 0
        load.work_goes_on(10)
        database_proxy.cut()
        assert site.sql("SELECT 1 AS n") == [{"n": 1}]
        site.wait_until(lambda: any(not call.committed for call in load.calls()), message="a producer noticed")
        database_proxy.pass_on()
        over = time.monotonic()
        assert load.resumed(over) > 0.0
        load.finish()
    found = load.check()
    assert found.unknown > 0
    assert (record.sent, record.lost, len(record.recoveries)) == (found.sent, 0, 1)


def test_a_killed_producer_leaves_tasks_that_all_run(project: ProjectFactory, form: Form) -> None:
    with Workload(project(**form.settings), form, **SMALL) as load:
        load.go_on(20)
        load.kill_producer()
        load.finish()
    found = load.check()
    assert found.sent >= SMALL["tasks"]
    assert found.completed >= found.committed


def test_a_killed_service_and_its_successor_lose_nothing(project: ProjectFactory, form: Form) -> None:
    record = Record(scenario="F02", test="none")
    with Workload(project(**form.settings), form, record, **SMALL) as load:
        load.work_goes_on(10)
        load.kill_service(load.services[0])
        load.start_service()
        load.finish()
    load.check()
    assert record.faults == 1
    assert load.deaths.workers == 1


def test_threads_that_were_not_there_in_the_beginning_fail_the_check(
    project: ProjectFactory, form: Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workload, "TIDY", 1.0)
    site = project(**form.settings)
    with Workload(site, form, **SMALL) as load:
        load.finish()
    right = load.baseline
    fewer = {role: tuple(each._replace(threads=each.threads - 3) for each in held) for role, held in right.held.items()}
    load.baseline = replace(right, held=fewer)
    with pytest.raises(AssertionError, match=r"I6: .* threads of a worker process, not "):
        load.settle()
    load.baseline = right
    load.check()


def test_the_random_generator_depends_on_the_seed_and_the_name_of_the_test_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CARROT_FAULTS_SEED", "7")
    drawn = [form_of_test(name).random.random() for name in ("one", "one", "other")]
    monkeypatch.setenv("CARROT_FAULTS_SEED", "8")
    drawn.append(form_of_test("one").random.random())
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 3


def test_the_full_form_has_the_workload_s_figures_and_an_unknown_one_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CARROT_FAULTS", "full")
    form = form_of_test("any")
    assert (form.tasks, form.settings, form.times(2, 20), form.seconds(1.0, 2.0)) == (5000, {}, 20, 2.0)
    assert form.limit(2.0) == 2.0
    monkeypatch.setenv("CARROT_FAULTS", "fast")
    with pytest.raises(ValueError, match="CARROT_FAULTS is 'fast'"):
        form_of_test("any")
