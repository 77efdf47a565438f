"""The report: what scenarios wrote, as a table."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.report import VARIABLE, Record, quantile

CHECKOUT = Path(__file__).resolve().parents[2]


def printed(*words: Path | str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.faults.report", *map(str, words)]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A report of two tests, the later scenario written first."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "report"))
    late = Record(scenario="F11", test="late", database="postgresql", broker="amqp", passed=True)
    late.remark("a | b")
    late.write()
    record = Record(scenario="F01", test="early", database="sqlite", broker="database", passed=True)
    record.fault(3)
    record.fault()
    record.recovered(0.5, 1.25, 0.25)
    record.sent, record.lost, record.phantom, record.doubled_plain, record.doubled_atomic = 5000, 0, 0, 7, 0
    record.publish_p99, record.publish_away = 0.0123, 0.0234
    record.write()
    return tmp_path / "report"


def test_the_table_has_a_line_for_each_test_by_scenario(file: Path) -> None:
    done = printed(file)
    heading, first, second = (line.split("  ") for line in done.stdout.splitlines())
    assert done.returncode == 0
    assert [cell.strip() for cell in heading if cell][:3] == ["Id", "Fault", "Where"]
    assert [cell.strip() for cell in first if cell] == [
        "F01",
        "worker child killed again and again",
        "sqlite-database",
        "5,000",
        "4",
        "0",
        "0",
        "7 + 0",
        "0.50 / 1.25 / 1.25",
        "12.3 ms",
        "23.4 ms",
        "passed",
    ]
    assert [cell.strip() for cell in second if cell.strip()] == [
        "F11",
        "RabbitMQ restarted",
        "postgresql-amqp",
        "0",
        "passed; a | b",
    ]


def test_as_markdown_it_is_a_table_of_the_documentation(file: Path) -> None:
    lines = printed(file, "--markdown").stdout.splitlines()
    assert len(lines) == 4
    assert lines[1] == "|" + " --- |" * 12
    assert lines[3].endswith("| passed; a \\| b |")


def test_of_several_rounds_a_line_has_all_of_a_test(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = file.with_name("other")
    monkeypatch.setenv(VARIABLE, str(other))
    record = Record(scenario="F01", test="early", database="sqlite", broker="database", passed=True)
    record.fault(2)
    record.recovered(3.5)
    record.sent, record.lost, record.phantom, record.doubled_plain, record.doubled_atomic = 500, 1, 0, 2, 0
    record.publish_p99 = 0.0051
    record.write()
    done = printed(file, other, "--markdown")
    cells = [cell.strip() for cell in done.stdout.splitlines()[2].split("|")[4:-1]]
    assert cells == ["5,500", "6", "1", "0", "9 + 0", "0.50 / 3.50 / 3.50", "12.3 ms", "23.4 ms", "passed"]
    assert len(done.stdout.splitlines()) == 4
    record.passed = False
    record.write()
    assert printed(file, other).returncode == 1


def test_a_test_that_failed_is_told_and_is_the_exit_code(file: Path) -> None:
    Record(scenario="F02", test="failed").write()
    done = printed(file)
    assert done.returncode == 1
    assert done.stdout.splitlines()[2].endswith("FAILED")


def test_without_a_file_to_write_to_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    Record(scenario="F01", test="x").write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 50), (0.95, 95), (0.99, 99), (1.0, 100)])
def test_a_quantile_is_one_of_the_values(share: float, expected: int) -> None:
    assert quantile(reversed(range(1, 101)), share) == expected


def test_of_nothing_there_is_no_quantile() -> None:
    with pytest.raises(ValueError, match="Of nothing"):
        quantile([], 0.5)
