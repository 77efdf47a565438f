"""The tasks of the demo: functions, as everybody writes them, that read the sources of the standard library."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import logging
import time
import unicodedata
from typing import Any

from django.conf import settings

import carrot
from library.sources import LIBRARY, modules, packages, source

logger = logging.getLogger(__name__)


@carrot.task(queue=settings.FILES)
def count_words(name: str) -> dict[str, int]:
    """Count the lines and words of a module."""
    text = source(name).read_text("utf-8", "replace")
    logger.info("%s has %d characters", name, len(text))
    return {"lines": text.count("\n"), "words": len(text.split())}


@carrot.task(queue=settings.FILES, priority=5)
def checksum(name: str, algorithm: str = "sha256") -> str:
    """The checksum of a module, in hexadecimal digits. Goes before the counting: it has a priority."""
    digest = hashlib.new(algorithm)
    with source(name).open("rb") as file:
        while block := file.read(65536):
            digest.update(block)
    return digest.hexdigest()


@carrot.task(queue=settings.FILES)
async def largest(count: int) -> list[dict[str, Any]]:
    """The largest modules. An async task: several files are asked at the same time."""

    async def size(name: str) -> dict[str, Any]:
        found = await asyncio.to_thread(source(name).stat)
        return {"name": name, "bytes": found.st_size}

    return list(await asyncio.gather(*(size(path.name) for path in modules()[:count])))


@carrot.task(queue=settings.REPORTS, priority=9)
def write_report(file_name: str, *, rows: int) -> dict[str, Any]:
    """Write a CSV file about the largest modules; the result says where it is."""
    directory = settings.SITE / "reports"
    directory.mkdir(exist_ok=True)
    target = directory / file_name
    with target.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["module", "bytes", "lines", "sha256"])
        for path in modules()[:rows]:
            content = path.read_bytes()
            table.writerow([path.name, len(content), content.count(b"\n"), hashlib.sha256(content).hexdigest()])
            logger.debug("%s is in the report", path.name)
    logger.info("%s was written", target)
    return {"file": str(target), "rows": rows}


@carrot.task(queue=settings.REPORTS)
def survey(limit: int, pause: float) -> dict[str, int]:
    """Go through the packages, ``pause`` seconds each: a long task, whose log can be read while it runs."""
    lines = 0
    for number, package in enumerate(chosen := packages(limit), start=1):
        found = sum(path.read_bytes().count(b"\n") for path in package.rglob("*.py"))
        logger.info("%d of %d: %s has %d lines", number, len(chosen), package.name, found)
        lines += found
        time.sleep(pause)
    logger.warning("Only packages were counted, not the %d single modules", len(modules()))
    return {"packages": len(chosen), "lines": lines}


@carrot.task(queue=settings.FILES)
def name_characters(text: str) -> dict[str, str]:
    """The names that Unicode has for the characters of a text, which reaches the task as it was written."""
    return {character: unicodedata.name(character, "(no name)") for character in text if not character.isspace()}


@carrot.task(queue=settings.FILES)
def fail_on_purpose(name: str) -> dict[str, int]:
    """Ask for a file that is not there, to show what a failure looks like."""
    logger.info("Looking for %s in %s", name, LIBRARY)
    return count_words(name)


@carrot.task(queue=settings.REPORTS)
def count_rows(file_name: str) -> int:
    """Count the rows of a report. Fails where it is not there yet: write it, requeue the task, and it completes."""
    with (settings.SITE / "reports" / file_name).open(encoding="utf-8", newline="") as file:
        return sum(1 for _ in csv.DictReader(file))
