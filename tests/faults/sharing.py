"""Two runs of pytest that share the tests of this package: whoever is free takes the next one.

CARROT_FAULTS_SHARED  a directory in which each test taken is marked; without it a run runs all of its tests
CARROT_FAULTS_BROKER  amqp | database: tests that are made for the other one are left out
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

SHARED = "CARROT_FAULTS_SHARED"
BROKER = "CARROT_FAULTS_BROKER"


def run_shared(session: pytest.Session, directory: Path) -> None:
    """Run what no other run has taken, as pytest's own loop does."""
    waiting = taken(session.items, directory)
    item = next(waiting, None)
    while item is not None:
        following = next(waiting, None)  # taken now: what both need of the fixtures is kept
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        item = following


def taken(items: Sequence[pytest.Item], directory: Path) -> Iterator[pytest.Item]:
    """Take the items one by one, each by a file that only one run can make."""
    for item in items:
        mark = directory / hashlib.sha256(item.nodeid.encode()).hexdigest()
        try:
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        yield item
