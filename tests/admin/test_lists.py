"""The lists of tasks."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from carrot import clock
from carrot.admin.changelist import HEAVY
from carrot.admin.paginator import BoundedPaginator
from carrot.models import MessageLog, Status, WorkerProcess

from .conftest import LISTS, OTHERS, MakeTask, list_url, new_task, page_url, text_of


def tasks_in(text: str) -> list[int]:
    """The primary keys of the tasks that a list shows, in order."""
    return [
        int(pk) for pk in re.findall(r'<th class="field-name"><a href="/admin/carrot/messagelog/(\d+)/change/', text)
    ]


def time_column(client: Client, name: str) -> int:
    """The number by which a list is sorted by this column; no other column offers to be sorted by."""
    headers = re.findall(
        r'column-(\w+)"?[^>]*>(?:(?!</th>).)*?\?o=-?(\d+)', text_of(client.get(list_url("completedtask"))), re.DOTALL
    )
    assert [header for header, _number in headers] == [name]
    return int(headers[0][1])


def test_each_list_shows_the_tasks_of_its_status(viewer: Client, make_task: MakeTask) -> None:
    tasks = {status: make_task(status=status) for status in Status}

    for name, status in LISTS.items():
        shown = tasks_in(text_of(viewer.get(list_url(name))))

        assert shown == ([tasks[status].pk] if status else sorted((t.pk for t in tasks.values()), reverse=True)), name


def test_every_list_has_all_the_links_to_the_one_page_of_a_task(viewer: Client, make_task: MakeTask) -> None:
    task = make_task(status=Status.FAILED)

    assert tasks_in(text_of(viewer.get(list_url("failedtask")))) == [task.pk]
    response = viewer.get(f"/admin/carrot/failedtask/{task.pk}/change/?log_level=DEBUG")
    assert response.status_code == 302
    assert response["Location"] == page_url(task, "?log_level=DEBUG")


def test_the_page_of_a_task_survives_its_change_of_status(viewer: Client, make_task: MakeTask) -> None:
    task = make_task(status=Status.FAILED)
    MessageLog.objects.filter(pk=task.pk).update(status=Status.COMPLETED)

    assert viewer.get(f"/admin/carrot/failedtask/{task.pk}/change/", follow=True).status_code == 200


def test_the_latest_change_of_status_comes_first(viewer: Client, make_task: MakeTask) -> None:
    now = clock.now()
    newest, oldest, middle = (
        make_task(state_at=now - timedelta(hours=hours), completion_time=now - timedelta(hours=hours))
        for hours in (0, 2, 1)
    )

    assert tasks_in(text_of(viewer.get(list_url("completedtask")))) == [newest.pk, middle.pk, oldest.pk]
    column = time_column(viewer, "completed")
    assert tasks_in(text_of(viewer.get(list_url("completedtask", f"?o={column}")))) == [oldest.pk, middle.pk, newest.pk]
    assert tasks_in(text_of(viewer.get(list_url("completedtask", f"?o=-{column}")))) == [
        newest.pk,
        middle.pk,
        oldest.pk,
    ]


def test_an_order_that_no_index_serves_is_ignored(viewer: Client, make_task: MakeTask) -> None:
    for name in ("b", "a", "c"):
        make_task(task=f"tests.{name}")
    served = time_column(viewer, "completed")

    with CaptureQueriesContext(connection) as queries:
        for order in (*(f"-{column}" for column in range(12) if column != served), "99", "x", "-", "4.1e9", "²"):
            text_of(viewer.get(list_url("completedtask", f"?o={order}")))

    ordered = [query["sql"] for query in queries if "ORDER BY" in query["sql"] and "carrot_messagelog" in query["sql"]]
    assert ordered
    for sql in ordered:
        order = '"carrot_messagelog"."state_at" DESC, "carrot_messagelog"."id" DESC'
        assert sql.rpartition("ORDER BY ")[2].startswith(order), sql


@pytest.mark.parametrize("name", [*LISTS, *OTHERS])
@pytest.mark.parametrize("rows", [0, 30])
def test_a_list_takes_eight_queries_at_most_and_reads_no_heavy_column(
    viewer: Client, make_task: MakeTask, worker: WorkerProcess, name: str, rows: int
) -> None:
    for status in Status:
        MessageLog.objects.bulk_create([new_task(status=status, worker=worker) for _ in range(rows)])

    with CaptureQueriesContext(connection) as queries:
        text_of(viewer.get(list_url(name)))

    assert len(queries) <= 8, [query["sql"] for query in queries]
    for query in queries:
        columns = query["sql"].partition(" FROM ")[0]
        for column in HEAVY:
            # Inside of a function or CASE it is cut, or read where it is short; as a column it would be read whole.
            assert not re.search(rf'(SELECT|,) "carrot_messagelog"."{column}"(,|$)', columns), query["sql"]


@pytest.mark.parametrize("name", ["messagelog", "failedtask"])
def test_a_list_counts_no_further_than_its_cap(
    viewer: Client, make_task: MakeTask, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedPaginator, "limit", 150)
    MessageLog.objects.bulk_create([new_task(status=Status.FAILED) for _ in range(160)])

    with CaptureQueriesContext(connection) as queries:
        first = text_of(viewer.get(list_url(name)))

    counts = [query["sql"] for query in queries if "COUNT(" in query["sql"]]
    assert len(counts) == 1
    assert "LIMIT 151" in counts[0]
    assert "150+" in first
    assert len(tasks_in(first)) == 100
    assert len(tasks_in(text_of(viewer.get(list_url(name, "?p=2"))))) == 50
    beyond = viewer.get(list_url(name, "?p=999999"))
    assert (beyond.status_code, beyond["Location"]) == (302, list_url(name, "?e=1"))
    assert len(tasks_in(text_of(viewer.get(list_url(name, "?all="))))) == 100


@pytest.mark.parametrize(
    "query",
    [
        "traceback__regex=a",
        "kwargs__icontains=secret",
        "args__startswith=1",
        "task__icontains=a",
        "queue__in=a,b",
        "worker__host=a",
        "publish_time__gte=2020-01-01",
        "publish_time__year=2026",
        "broker=x",
        "nothing=1",
    ],
)
@pytest.mark.parametrize("name", [*LISTS, *OTHERS])
def test_what_no_filter_offers_cannot_be_looked_up(viewer: Client, name: str, query: str) -> None:
    assert viewer.get(list_url(name, f"?{query}")).status_code == 400


def test_arguments_too_long_for_a_list_are_measured_only(viewer: Client, make_task: MakeTask) -> None:
    make_task(args=["x" * 5_000_000])
    make_task(args=["short one"])

    text = text_of(viewer.get(list_url("completedtask")))

    assert "short one" in text
    assert "4.8\xa0MB of arguments" in text
    assert len(text) < 100_000


def test_a_row_changed_by_hand_does_not_break_the_list(viewer: Client, make_task: MakeTask) -> None:
    task = make_task(status=Status.FAILED)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE carrot_messagelog SET args = '[1, pass', kwargs = '7' WHERE id = %s", [task.pk])

    assert "not readable" in text_of(viewer.get(list_url("failedtask")))
    assert "is not JSON" in text_of(viewer.get(page_url(task)))


def test_half_a_character_breaks_neither_list_nor_page(viewer: Client, make_task: MakeTask) -> None:
    task = make_task(task="tests.admin.samples.greet")
    with connection.cursor() as cursor:
        values = [r'["\ud800 and on"]', r'{"\ud801": 1}', task.pk]
        cursor.execute("UPDATE carrot_messagelog SET args = %s, kwargs = %s WHERE id = %s", values)

    for url in (list_url("completedtask"), page_url(task)):
        text = text_of(viewer.get(url))
        assert r"\ud800 and on" in text
        assert r"\ud801" in text


def test_a_queue_or_worker_that_is_gone_is_shown_as_such(viewer: Client, make_task: MakeTask) -> None:
    make_task(status=Status.IN_PROGRESS, queue="long-gone", worker_id=4711)

    text = text_of(viewer.get(list_url("runningtask")))

    assert "long-gone" in text
    assert "not in the settings" in text
    assert "#4711" in text


@pytest.mark.parametrize("name", ["queuedtask", "runningtask", "completedtask", "workerprocess"])
def test_an_empty_list_says_how_to_start_the_service(viewer: Client, name: str) -> None:
    assert "python manage.py carrot" in text_of(viewer.get(list_url(name)))


def test_an_empty_list_is_fine_while_a_worker_lives(viewer: Client, worker: WorkerProcess) -> None:
    assert "Nothing is waiting." in text_of(viewer.get(list_url("queuedtask")))
    assert "No task has failed." in text_of(viewer.get(list_url("failedtask")))


def test_waiting_tasks_that_nobody_will_run_are_told(viewer: Client, make_task: MakeTask) -> None:
    make_task(status=Status.PUBLISHED)
    assert "No worker is running" in text_of(viewer.get(list_url("queuedtask")))

    now = clock.now()
    WorkerProcess.objects.create(
        host="a", pid=1, service_pid=1, queues="default", concurrency=1, version="2", started_at=now, beat_at=now
    )
    assert "No worker is running" not in text_of(viewer.get(list_url("queuedtask")))


def test_a_search_without_result_says_so(viewer: Client, make_task: MakeTask) -> None:
    make_task()

    assert "Nothing here matches" in text_of(viewer.get(list_url("completedtask", "?q=nowhere")))


def test_a_failure_shows_its_exception_and_leads_to_it(viewer: Client, make_task: MakeTask) -> None:
    task = make_task(status=Status.FAILED, exception="ValueError: no amount\nand more", traceback="…")

    text = text_of(viewer.get(list_url("failedtask")))

    assert f'href="{page_url(task)}#carrot-error"' in text
    assert "ValueError: no amount…" in text
