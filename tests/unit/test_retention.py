"""Finished tasks go when their time is over, and nothing else does."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from carrot.conf import Retention
from carrot.models import Attempt, MessageLog, Status, WorkerProcess
from carrot.retention import PERIOD, SLICE, WORKERS, Janitor
from tests.rows import in_seconds, new_row, new_worker, unsaved_row

pytestmark = pytest.mark.django_db
DAY = 86_400.0
EVERY = [Status.COMPLETED, Status.HANDED_OVER, Status.FAILED, Status.CANCELLED]


def left() -> set[str]:
    return set(MessageLog.objects.values_list("status", flat=True))


def test_by_default_completed_handed_over_and_withdrawn_tasks_go_after_three_days_and_failed_ones_stay() -> None:
    for status in Status:
        new_row(status=status, state_at=in_seconds(-3 * DAY - 5))
    assert Janitor(Retention()).step() == PERIOD
    assert left() == {Status.WAITING, Status.PUBLISHED, Status.IN_PROGRESS, Status.FAILED}


def test_nothing_goes_before_its_time() -> None:
    for status in Status:
        new_row(status=status, state_at=in_seconds(-3 * DAY + 60))
    Janitor(Retention()).step()
    assert left() == set(Status)


def test_none_keeps_for_ever_and_a_time_of_its_own_is_kept_to() -> None:
    for status in EVERY:
        new_row(status=status, state_at=in_seconds(-1000 * DAY))
    Janitor(Retention(completed=None, failed=None, cancelled=None)).step()
    assert left() == set(EVERY)
    Janitor(Retention(completed=None, failed=DAY, cancelled=None)).step()
    assert left() == set(EVERY) - {Status.FAILED}


def test_a_lot_goes_in_slices_without_a_pause_in_between() -> None:
    MessageLog.objects.bulk_create(
        unsaved_row(status=Status.COMPLETED, state_at=in_seconds(-9 * DAY)) for _ in range(SLICE + 1)
    )
    janitor = Janitor(Retention())
    assert janitor.step() == 0.0
    assert MessageLog.objects.count() == 1
    assert janitor.step() == PERIOD
    assert MessageLog.objects.count() == 0


def test_nothing_large_is_read_of_what_goes() -> None:
    row = new_row(status=Status.COMPLETED, state_at=in_seconds(-9 * DAY), log="a long text", args=["another"])
    Attempt.objects.create(message_log=row, number=1)
    with CaptureQueriesContext(connection) as statements:
        Janitor(Retention()).step()
    assert not MessageLog.objects.exists()
    read = [query["sql"] for query in statements.captured_queries if query["sql"].startswith("SELECT")]
    assert read
    assert not [sql for sql in read if '"log"' in sql or '"args"' in sql]


def test_the_attempts_of_a_task_go_with_it() -> None:
    row = new_row(status=Status.COMPLETED, state_at=in_seconds(-9 * DAY))
    Attempt.objects.create(message_log=row, number=1)
    Janitor(Retention()).step()
    assert not Attempt.objects.exists()


def test_the_rows_of_workers_that_ended_go_after_a_month() -> None:
    alive = new_worker()
    recent = new_worker(alive=False, ended_at=in_seconds(-WORKERS + 60))
    new_worker(alive=False, ended_at=in_seconds(-WORKERS - 60))
    Janitor(Retention()).step()
    assert set(WorkerProcess.objects.all()) == {alive, recent}
