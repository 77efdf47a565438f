"""Clocks that a test sets are wrong by as much as it says, where it says, and nowhere else."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone

import psycopg
import pytest

from tests.faults.clocks import Clock
from tests.faults.form import Form
from tests.faults.load import publish_all
from tests.faults.workload import Workload
from tests.project import ProjectFactory
from tests.servers import PostgreSQL

DAY = 86_400.0
#: Seconds that may pass between a reading and the comparison.
CLOSE = 60.0


def read(postgresql: PostgreSQL) -> float:
    """Seconds by which the database's clock is ahead of ours."""
    with psycopg.connect(postgresql.url) as connection:
        row = connection.execute("SELECT now()").fetchone()
    assert row is not None
    now: datetime = row[0]
    return (now - datetime.now(timezone.utc)).total_seconds()


@pytest.mark.parametrize("offset", [DAY, -DAY])
def test_a_database_has_the_clock_it_is_started_with_and_the_right_one_after_the_next_start(
    postgresql: PostgreSQL, database_clock: Callable[[float], None], offset: float
) -> None:
    database_clock(offset)
    assert abs(read(postgresql) - offset) < CLOSE
    begun = time.monotonic()
    postgresql.psql("SELECT pg_sleep(0.2)")
    assert 0.2 <= time.monotonic() - begun < CLOSE, "how long something takes is not moved"
    database_clock(0.0)
    assert abs(read(postgresql)) < CLOSE


def test_the_clock_of_a_process_can_be_set_while_it_runs_and_moves_nothing_but_the_time_of_day(
    project: ProjectFactory,
) -> None:
    site = project()
    clock = Clock(site.directory / "clock")
    clock.shift(DAY)
    site.env.update(clock.env)
    shown = site.python(
        "import datetime, pathlib, time; from carrot import clock; from carrot.models import MessageLog\n"
        "right = lambda: datetime.datetime.now(datetime.timezone.utc)\n"
        "print(round((clock.now() - right()).total_seconds(), -1))\n"
        "print(round((MessageLog().publish_time - right()).total_seconds(), -1))\n"
        f"pathlib.Path({clock.env['CARROT_TEST_CLOCK']!r}).write_text('-3600')\n"
        "print(round((clock.now() - right()).total_seconds(), -1), clock.now().tzinfo)\n"
        "print(abs(clock.monotonic() - time.clock_gettime(time.CLOCK_BOOTTIME)) < 1)\n"
    )
    assert shown.stdout.splitlines() == ["86400.0", "86400.0", "-3600.0 UTC", "True"]


def test_services_and_publishers_of_a_workload_have_clocks_of_their_own(project: ProjectFactory, form: Form) -> None:
    site = project(**form.settings)
    with Workload(site, form, services=1, processes=1, producers=1, tasks=40, clocks=True) as load:
        load.clocks["producers"].shift(-DAY)
        load.clocks["service 1"].shift(DAY)
        load.finish()
    load.check()
    publish_all(site, [("tests.app.tasks.noop",)])  # by a process whose clock is right
    rows = site.sql("SELECT publish_time, completion_time FROM carrot_messagelog ORDER BY id")
    published, completed = rows[-2]["publish_time"], rows[-2]["completion_time"]
    right = datetime.fromisoformat(rows[-1]["publish_time"])
    for shown, offset in ((published, -DAY), (completed, DAY)):
        assert abs(datetime.fromisoformat(shown) - right - timedelta(seconds=offset)) < timedelta(seconds=CLOSE)
