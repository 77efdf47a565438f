"""What scenarios report, and the table made of it: ``python -m tests.faults.report FILE ... [--markdown]``.

A file has a JSON object a line: one test, its figures, and whether it passed. It is the one that CARROT_FAULTS_REPORT
names; without that variable nothing is written. Of several files, each of a round of its own, one table is made: a line
has what all rounds of a test found together.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.scenarios import SCENARIOS

VARIABLE = "CARROT_FAULTS_REPORT"


@dataclass(kw_only=True)
class Record:
    """What one test reports. Seconds everywhere; None: not measured."""

    scenario: str
    test: str
    database: str = ""
    broker: str = ""
    form: str = "short"
    seed: int = 0
    passed: bool = False
    #: How long the test took.
    took: float = 0.0
    faults: int = 0
    sent: int | None = None
    lost: int | None = None
    phantom: int | None = None
    doubled_plain: int | None = None
    doubled_atomic: int | None = None
    publish_p50: float | None = None
    publish_p99: float | None = None
    publish_max: float | None = None
    #: The 99th percentile while the broker was in trouble.
    publish_away: float | None = None
    recoveries: list[float] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def fault(self, times: int = 1) -> None:
        """Count faults that were injected."""
        self.faults += times

    def recovered(self, *seconds: float) -> None:
        """Note how long recoveries took."""
        self.recoveries.extend(seconds)

    def remark(self, text: str) -> None:
        """Add a line to the table's last column."""
        self.remarks.append(text)

    def write(self) -> None:
        """Append it to the report's file, if there is to be one."""
        path = os.environ.get(VARIABLE)
        if path:
            with open(path, "ab", buffering=0) as file:  # O_APPEND: several runs write into one file
                file.write(json.dumps(asdict(self)).encode() + b"\n")


def quantile(values: Iterable[float], share: float) -> float:
    """The smallest of the values that is not below ``share`` of them (0.95: the 95th percentile)."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("Of nothing there is no quantile.")
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def read(*paths: Path) -> list[dict[str, Any]]:
    """The records of files, one for each test, ordered by scenario and test."""
    rounds: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for path in paths:
        for record in map(json.loads, path.read_text().splitlines()):
            rounds.setdefault((record["scenario"], record["test"]), []).append(record)
    return [_together(rounds[key]) for key in sorted(rounds)]


ADDED = ("faults", "sent", "lost", "phantom", "doubled_plain", "doubled_atomic")
WORST = ("publish_p50", "publish_p99", "publish_max", "publish_away")


def _together(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What several rounds of a test found: numbers added, the longest times, every recovery; passed if each has."""
    whole = dict(rounds[0])
    for keys, summary in ((ADDED, sum), (WORST, max)):
        for key in keys:
            measured = [record[key] for record in rounds if record[key] is not None]
            whole[key] = summary(measured) if measured else None
    whole["recoveries"] = [seconds for record in rounds for seconds in record["recoveries"]]
    whole["remarks"] = list(dict.fromkeys(remark for record in rounds for remark in record["remarks"]))
    whole["passed"] = all(record["passed"] for record in rounds)
    return whole


HEADING = (
    *("Id", "Fault", "Where", "Sent", "Faults", "Lost", "Phantom", "Doubled"),
    *("Recovery s", "Publish p99", "while away", "Result"),
)
MARKS = {True: "passed", False: "FAILED"}


def table(records: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The rows of the table, the heading first. Doubled is of plain tasks + of atomic ones; p99 that of publishing, in
    the whole run and while the broker was in trouble.
    """
    return [HEADING, *(_line(record) for record in records)]


def _line(record: dict[str, Any]) -> tuple[str, ...]:
    times = record["recoveries"]
    shares = [quantile(times, share) for share in (0.5, 0.95, 1.0)] if times else []
    doubled = [record["doubled_plain"], record["doubled_atomic"]]
    return (
        record["scenario"],
        SCENARIOS[record["scenario"]].fault,
        "-".join(filter(None, (record["database"], record["broker"]))),
        _shown(record["sent"]),
        str(record["faults"]),
        _shown(record["lost"]),
        _shown(record["phantom"]),
        "" if doubled == [None, None] else " + ".join(map(_shown, doubled)),
        " / ".join(f"{seconds:.2f}" for seconds in shares),
        _milliseconds(record["publish_p99"]),
        _milliseconds(record["publish_away"]),
        "; ".join([MARKS[record["passed"]], *record["remarks"]]),
    )


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:.1f} ms"


def _shown(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def as_text(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def as_markdown(rows: list[tuple[str, ...]]) -> str:
    heading, *lines = ("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
    return "\n".join([heading, "|" + " --- |" * len(rows[0]), *lines])


def main() -> int:
    """Print the table of the files; return 1 if a test in them failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.report", description=__doc__)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--markdown", action="store_true", help="as a table for the documentation")
    options = parser.parse_args()
    records = read(*options.files)
    print((as_markdown if options.markdown else as_text)(table(records)))
    return 0 if all(record["passed"] for record in records) else 1


if __name__ == "__main__":
    sys.exit(main())
