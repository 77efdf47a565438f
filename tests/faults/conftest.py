"""What scenarios ask for; see the package's docstring."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults import sharing
from tests.faults.form import Form, form_of_run, form_of_test
from tests.faults.proxy import FaultProxy
from tests.faults.report import Record
from tests.faults.scenarios import SCENARIOS
from tests.servers import PostgreSQL, RabbitMQ

#: Seconds one test may take: they share the machine with others, and the full form has long faults.
TIMEOUTS = {False: 300, True: 1800}
PASSED = pytest.StashKey[bool]()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Everything here is a test with real processes or sockets, and may take its time; ``-k F01`` chooses scenarios."""
    item.add_marker("acceptance")
    item.extra_keyword_matches.update(ids_of(item))
    if item.get_closest_marker("timeout") is None:
        item.add_marker(pytest.mark.timeout(TIMEOUTS[form_of_run().full]))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    broker = os.environ.get(sharing.BROKER)
    if broker:
        left_out = [item for item in items if place_of(item).get("broker", broker) != broker]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_runtestloop(session: pytest.Session) -> bool | None:
    directory = os.environ.get(sharing.SHARED)
    if not directory or session.testsfailed or session.config.option.collectonly:
        return None  # pytest's own loop
    sharing.run_shared(session, Path(directory))
    return True


def pytest_report_header() -> str:
    form = form_of_run()
    return f"fault suite: {'full' if form.full else 'short'} form, seed {form.seed}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    item.stash[PASSED] = item.stash.get(PASSED, True) and report.passed
    return report


@pytest.fixture
def form(request: pytest.FixtureRequest) -> Form:
    """How large and how long this run is."""
    return form_of_test(request.node.name)


@pytest.fixture
def scenario(request: pytest.FixtureRequest, form: Form) -> Iterator[Record]:
    """What this test reports: the scenario is that of its mark. Written when the test ends, passed or not."""
    place = place_of(request.node)
    record = Record(
        scenario=ids_of(request.node)[0],
        test=request.node.name,
        database=place.get("database", ""),
        broker=place.get("broker", ""),
        form="full" if form.full else "short",
        seed=form.seed,
    )
    begun = time.monotonic()
    yield record
    record.took = time.monotonic() - begun
    record.passed = request.node.stash.get(PASSED, False)
    record.write()


@pytest.fixture
def broker_proxy(rabbitmq: RabbitMQ) -> Iterator[FaultProxy]:
    """A failing network before RabbitMQ: ``project(..., broker_port=broker_proxy.port)``."""
    with FaultProxy(rabbitmq.port) as proxy:
        yield proxy


@pytest.fixture
def database_proxy(postgresql: PostgreSQL) -> Iterator[FaultProxy]:
    """A failing network before PostgreSQL: ``project(..., database_port=database_proxy.port)``."""
    with FaultProxy(postgresql.port) as proxy:
        yield proxy


@pytest.fixture
def database_clock(postgresql: PostgreSQL) -> Iterator[Callable[[float], None]]:
    """``database_clock(86400)`` restarts PostgreSQL with a clock a day ahead; set right again after the test."""

    def restart(seconds: float) -> None:
        postgresql.stop()
        postgresql.start(clock_offset=seconds)

    yield restart
    restart(0.0)


def ids_of(item: pytest.Item) -> list[str]:
    """The scenarios a test belongs to: the closest mark's first."""
    ids = [str(word) for mark in item.iter_markers("scenario") for word in mark.args]
    unknown = set(ids) - set(SCENARIOS)
    assert not unknown, f"{item.nodeid}: no such scenario: {sorted(unknown)}"
    return ids


def place_of(item: pytest.Item) -> dict[str, str]:
    """The database and the broker of a test, where it has them as parameters."""
    parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    return {name: str(parameters[name]) for name in ("database", "broker") if name in parameters}
