"""The fault suite by itself, behind ``scripts/faults``: both runs, then the table of what they report."""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

from tests import suites
from tests.faults import report
from tests.faults.form import SHORT_SEED
from tests.servers import ServerError, ensure_installed


def main() -> int:
    """Do what the command line says; return the exit code: 0 if something was run and all of it passed."""
    parser = argparse.ArgumentParser(prog="scripts/faults", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="F01, or a word of a test's name; none: all of them")
    parser.add_argument(
        "--full", action="store_true", help="the large workload, and faults as long as they are in life"
    )
    parser.add_argument("--seed", type=int, help=f"default: {SHORT_SEED} in the short form, random in the full one")
    parser.add_argument("--broker", choices=["amqp", "database"], help="only tests that are made for this broker")
    parser.add_argument(
        "--at-once",
        type=int,
        default=suites.AT_ONCE,
        metavar="N",
        help="runs that share the tests; default: %(default)s",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there, a JSON object a line")
    parser.add_argument("--called-in", type=Path, default=Path(), help=argparse.SUPPRESS)
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: it is ignored in what a script starts with "&"
        signal.signal(number, _interrupt)
    seed = options.seed
    if seed is None:
        seed = random.randrange(1, 1_000_000) if options.full else SHORT_SEED
    try:
        ensure_installed(faketime=True)
        with tempfile.TemporaryDirectory(prefix="carrot-suite-") as directory:
            file = Path(directory) / "report"
            file.touch()
            variables = {
                "CARROT_FAULTS": "full" if options.full else "short",
                "CARROT_FAULTS_SEED": str(seed),
                report.VARIABLE: str(file),
            }
            if options.broker:
                variables["CARROT_FAULTS_BROKER"] = options.broker
            chosen = ["-k", " or ".join(options.names)] if options.names else []
            parts = [(chosen, options.at_once)]
            if options.full:
                parts = [([*chosen, "-m", marks], at_once) for marks, at_once in by_time(options.at_once)]
            print(f"Seed {seed}", flush=True)
            return run(parts, variables, file, options.json and options.called_in / options.json)
    except ServerError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130


def by_time(at_once: int) -> list[tuple[str, int]]:
    """What runs one after the other in the full form: tests by their marks, and how many runs share them."""
    return [("not timed and not alone", at_once), ("timed", min(at_once, 2)), ("alone", 1)]


def run(parts: list[tuple[list[str], int]], variables: dict[str, str], file: Path, json_file: Path | None) -> int:
    """Run the tests that pytest's arguments choose, one part after the other, each in so many runs at once; print the
    table of what they wrote into ``file``.
    """
    begun = time.monotonic()
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for chosen, at_once in parts:
        for _name, ended in suites.run(suites.fault_runs(chosen, variables, at_once), {}, at_once):
            for what, number in ended.items():
                counts[what] += number
    records = report.read(file)
    if json_file is not None:
        json_file.write_bytes(file.read_bytes())
    suites.headline(f"{variables['CARROT_FAULTS']} form, seed {variables['CARROT_FAULTS_SEED']}")
    if records:
        print(report.as_text(report.table(records)))
    shown = ", ".join(f"{number} {what}" for what, number in counts.items() if number or what != "skipped")
    print(f"\n{time.monotonic() - begun:.0f} seconds: {shown}")
    if not counts["passed"] and not counts["failed"]:
        print("No test is named so.", file=sys.stderr)
    return 0 if counts["passed"] and not counts["failed"] else 1


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
