"""Every scenario has a test for each broker, or the reason why there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from tests.faults import sharing
from tests.faults.scenarios import SCENARIOS
from tests.project import Broker

HERE = Path(__file__).parent
COLLECT = """
import json, pathlib, sys
import pytest
from tests.faults.conftest import ids_of, place_of

class Collected:
    def pytest_collection_finish(self, session):
        found = [[ids_of(item), place_of(item).get("broker"), item.name] for item in session.items]
        pathlib.Path(sys.argv[2]).write_text(json.dumps(found))

sys.exit(pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider", sys.argv[1]], plugins=[Collected()]))
"""


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[list[str], str | None, str]]:
    """The scenarios, the broker and the name of each test of this package, as pytest finds them."""
    written = tmp_path_factory.mktemp("collected") / "tests"
    env = {name: value for name, value in os.environ.items() if name not in (sharing.SHARED, sharing.BROKER)}
    command: list[str | Path] = [sys.executable, "-c", COLLECT, HERE, written]
    done = subprocess.run(command, env=env, cwd=HERE.parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [(ids, broker, name) for ids, broker, name in json.loads(written.read_text())]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_scenario_has_a_test_or_a_reason_on_each_broker(
    scenario: str, collected: list[tuple[list[str], str | None, str]]
) -> None:
    tested = {broker for ids, broker, _name in collected if scenario in ids}
    assert None not in tested, "a test of a scenario has the parameter `broker`, see combinations.py"
    reasons = SCENARIOS[scenario].why_not
    for broker in get_args(Broker):
        assert (broker in tested) != (broker in reasons), f"{scenario} ({SCENARIOS[scenario].fault}) on {broker}: " + (
            "it is tested, so the reason in scenarios.py is wrong" if broker in tested else "no test and no reason"
        )


def test_scenarios_are_known_by_their_numbers() -> None:
    assert list(SCENARIOS) == sorted(SCENARIOS)
    assert all(len(name) == 3 and name[0] == "F" and name[1:].isdecimal() for name in SCENARIOS)
