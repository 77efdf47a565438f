"""What the demo publishes, and what must come of it."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction

from carrot.models import MessageLog
from carrot.utilities import create_message, publish_many, publish_message
from library import tasks
from library.sources import modules, packages, source

#: Modules that are counted, and that are in the report.
COUNTED = 20
REPORTED = 50
#: The long task: packages, and seconds for each.
SURVEYED, PAUSE = 16, 0.4
MISSING = "phlogiston.py"
CHARACTERS = "Ærø ☃ 漢字"


@dataclass(frozen=True, kw_only=True)
class Job:
    """A published task."""

    row: MessageLog
    #: texts that its page must show once it has ended
    shows: tuple[str, ...]
    #: whether its output is right, by another way than the task's own
    is_right: Callable[[Any], bool] = lambda output: output is not None
    status: str = "COMPLETED"
    #: how many lines of its log there must be at least
    log_lines: int = 0


def publish_work() -> list[Job]:
    """Publish everything, in one transaction: all of it or nothing."""
    with transaction.atomic():
        return [
            _survey(),
            *_counts(),
            *(_checksum(path.name, algorithm) for path in modules()[:2] for algorithm in ("sha256", "sha1", "md5")),
            _report(),
            _largest(),
            _characters(),
            _failure(),
        ]


def _survey() -> Job:
    row = publish_message(tasks.survey, SURVEYED, pause=PAUSE)
    chosen = packages(SURVEYED)
    return Job(
        row=row,
        is_right=lambda output: output["packages"] == len(chosen),
        log_lines=len(chosen) + 1,
        shows=(f"1 of {len(chosen)}: {chosen[0].name} has", f": {chosen[-1].name} has", "Only packages were counted"),
    )


def _counts() -> list[Job]:
    names = [path.name for path in modules()[:COUNTED]]
    rows = publish_many(create_message(tasks.count_words, settings.FILES, task_args=(name,)) for name in names)
    return [_count(row, name) for row, name in zip(rows, names, strict=True)]


def _count(row: MessageLog, name: str) -> Job:
    content = source(name).read_text("utf-8", "replace")
    right = {"lines": sum(character == "\n" for character in content), "words": sum(1 for _ in content.split())}
    return Job(row=row, is_right=lambda output: output == right, log_lines=1, shows=(name, str(right["words"])))


def _checksum(name: str, algorithm: str) -> Job:
    right = hashlib.new(algorithm, source(name).read_bytes()).hexdigest()
    row = publish_message(tasks.checksum, name, algorithm=algorithm)
    return Job(row=row, is_right=lambda output: output == right, shows=(name, algorithm, right))


def _report() -> Job:
    file_name = "modules.csv"
    row = publish_message(tasks.write_report, file_name, rows=REPORTED)

    def is_right(output: Any) -> bool:
        with Path(output["file"]).open(encoding="utf-8", newline="") as file:
            written = list(csv.DictReader(file))
        first = modules()[0]
        return len(written) == output["rows"] and written[0]["bytes"] == str(first.stat().st_size)

    return Job(row=row, is_right=is_right, log_lines=1, shows=(file_name, "was written"))


def _largest() -> Job:
    first = modules()[0]
    right = {"name": first.name, "bytes": first.stat().st_size}
    row = publish_message(tasks.largest, 5)
    return Job(row=row, is_right=lambda output: len(output) == 5 and output[0] == right, shows=(first.name,))


def _characters() -> Job:
    row = publish_message(tasks.name_characters, text=CHARACTERS)
    return Job(row=row, is_right=lambda output: output["☃"] == "SNOWMAN", shows=(CHARACTERS, "SNOWMAN"))


def _failure() -> Job:
    row = publish_message(tasks.fail_on_purpose, MISSING)
    return Job(
        row=row,
        status="FAILED",
        is_right=lambda output: output is None,
        log_lines=1,
        shows=("FileNotFoundError", f"has no file {MISSING}", "Traceback", "in count_words", "sources.py"),
    )
