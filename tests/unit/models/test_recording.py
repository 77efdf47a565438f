"""Many outcomes in one transaction."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import pytest
from django.db import DatabaseError, connection

from carrot.models import MessageLog, Status
from tests.rows import claim_of, new_row, new_worker, outcome_of, status_of

pytestmark = pytest.mark.django_db


def test_a_completed_task_has_its_output_log_and_times() -> None:
    row = new_row()
    start = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=timezone.utc)
    end = datetime(2026, 1, 31, 12, 0, 1, 654321, tzinfo=timezone.utc)
    output = {"Café": [1, None, "'; --"]}
    outcome = outcome_of(
        claim_of(row),
        output=json.dumps(output, ensure_ascii=False),
        log="a\nb \\ ' %s 🥕",
        start_time=start,
        end_time=end,
    )
    assert MessageLog.objects.record([outcome]) == {row.pk}
    assert status_of(row) == Status.COMPLETED
    assert (row.output, row.log) == (output, "a\nb \\ ' %s 🥕")
    assert (row.start_time, row.completion_time, row.state_at, row.failure_time) == (start, end, end, None)
    assert (row.exception, row.traceback) == ("", "")


def test_a_failed_task_has_its_exception_and_the_time_of_its_failure() -> None:
    row = new_row()
    outcome = outcome_of(claim_of(row), "FAILED")
    assert MessageLog.objects.record([outcome]) == {row.pk}
    assert status_of(row) == Status.FAILED
    assert (row.exception, row.traceback, row.output) == ("ValueError: no", "Traceback…", None)
    assert (row.failure_time, row.completion_time) == (outcome.end_time, None)


def test_no_result_is_null_and_the_result_null_cannot_be_told_from_it_by_readers() -> None:
    rows = [new_row(), new_row()]
    MessageLog.objects.record([outcome_of(claim_of(rows[0]), output=None), outcome_of(claim_of(rows[1]), output="[]")])
    assert [MessageLog.objects.get(pk=row.pk).output for row in rows] == [None, []]
    assert MessageLog.objects.filter(output__isnull=True).count() == 1


def test_of_a_large_batch_each_row_gets_its_own_outcome_and_the_late_ones_are_left_out() -> None:
    worker = new_worker()
    rows = [new_row(args=[number, 0]) for number in range(300)]
    claims = list(MessageLog.objects.claim([row.uuid for row in rows], worker.pk).values())
    late = claims[::7]
    MessageLog.objects.release((claim.id, claim.fence) for claim in late)
    again = MessageLog.objects.claim([claim.uuid for claim in late[::2]], worker.pk)
    outcomes = [
        outcome_of(claim, "FAILED" if claim.args[0] % 2 else "COMPLETED", log=f"log of {claim.args[0]}")
        for claim in reversed(claims)
    ]
    written = MessageLog.objects.record(outcomes)
    assert written == {claim.id for claim in claims} - {claim.id for claim in late}
    for row in MessageLog.objects.all():
        if row.pk in written:
            assert row.status == ("FAILED" if row.args[0] % 2 else "COMPLETED")
            assert row.log == f"log of {row.args[0]}"
        else:
            assert row.status == ("IN_PROGRESS" if row.uuid in again else "PUBLISHED")
            assert row.log == ""


def test_an_empty_batch_and_a_batch_of_late_outcomes_write_nothing() -> None:
    row = new_row()
    claim = claim_of(row)
    row.delete()
    assert MessageLog.objects.record([]) == set()
    assert MessageLog.objects.record([outcome_of(claim)]) == set()


def test_the_statements_do_not_grow_with_the_batch_on_postgresql(django_assert_max_num_queries: Any) -> None:
    claims = [claim_of(new_row()) for _ in range(20)]
    # A savepoint, its release, and one statement (SQLite: one prepared statement, executed for each).
    with django_assert_max_num_queries(3):
        MessageLog.objects.record([outcome_of(claim) for claim in claims])


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite stores any text")
def test_one_outcome_that_the_database_refuses_keeps_the_whole_batch_from_being_written() -> None:
    rows = [new_row(), new_row()]
    outcomes = [outcome_of(claim_of(rows[0])), outcome_of(claim_of(rows[1]), log="NUL \0")]
    with pytest.raises((DatabaseError, ValueError)):
        MessageLog.objects.record(outcomes)
    assert [status_of(row) for row in rows] == [Status.IN_PROGRESS, Status.IN_PROGRESS]
    assert connection.vendor == "postgresql"
