"""Outcomes that cannot be stored as they are: they are stored as they can be, and nothing else suffers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.faults.combinations import corners
from tests.faults.form import Form
from tests.faults.load import publish_all
from tests.faults.odd_outcomes import ERRORS, LOGS, RESULTS
from tests.faults.report import Record
from tests.faults.workload import Workload
from tests.project import Broker, Database, ProjectFactory

TASKS = {"plain": "tests.faults.odd_outcomes.odd", "atomic": "tests.faults.odd_outcomes.odd_atomic"}
#: Bytes of each column: the settings' own limits, and carrot's.
LIMITS = {"output": 65_536, "log": 66_560, "exception": 4_096, "traceback": 32_768}


@pytest.mark.scenario("F34")
@corners
def test_outcomes_that_cannot_be_stored_are_stored_as_they_can_be_and_their_neighbours_as_they_are(
    project: ProjectFactory, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, **form.calm_settings)
    kinds = {**dict.fromkeys([*RESULTS, *LOGS], "COMPLETED"), **dict.fromkeys(ERRORS, "FAILED")}
    times = form.times(1, 10 if database == "postgresql" else 2)  # SQLite's one lock is held until an atomic one ends
    expected = {f"{way}:{kind}:{n}": status for n in range(times) for way in TASKS for kind, status in kinds.items()}
    with Workload(site, form, scenario) as load:
        children = [set(service.children()) for service in load.services]
        publish_all(site, [call(load, name) for name in expected])
        scenario.fault(len(expected))
        load.finish()
    load.check(stop=False)
    rows = site.sql("SELECT * FROM carrot_messagelog WHERE task LIKE %s", ["tests.faults.odd_outcomes.%"])
    assert {json.loads(row["args"])[1]: row["status"] for row in rows} == expected
    for row in rows:
        check_texts(row)
    # Each ran once, and ended by itself: nobody had to look for it.
    again = [(row["args"], row["tries"], row["crashes"]) for row in rows if (row["tries"], row["crashes"]) != (1, 0)]
    assert again == []
    runs = load.journal.runs()
    assert {runs[name] for name in expected} == {1}
    assert [set(service.children()) for service in load.services] == children
    for service in load.services:
        assert "The database refuses" not in service.output(), "nothing arrived there that had to be replaced"
    load.stop()


def call(load: Workload, name: str) -> tuple[object, ...]:
    way, kind, _number = name.split(":")
    return TASKS[way], str(load.journal.path), name, kind


def check_texts(row: dict[str, Any]) -> None:
    """All that is stored can be shown, and is not too much; the result is JSON, the log of those that log is there."""
    _journal, name, kind = json.loads(row["args"])
    for column, limit in LIMITS.items():
        text = row[column] or ""
        assert len(text.encode()) <= limit, f"{name}: {column}"
        assert "\0" not in text, f"{name}: {column}"
    if row["output"] is not None:
        json.loads(row["output"], parse_constant=lambda word: pytest.fail(f"{name}: {word} is no JSON"))
    assert (row["exception"] != "") == (kind in ERRORS), name
    assert (row["output"] is not None) == (kind in RESULTS), name
    assert (row["log"] != "") == (kind in LOGS), name
