"""The first page of the monitor."""

from __future__ import annotations

import re

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from carrot.admin import overview, task_lists
from carrot.models import MessageLog, Status, WorkerProcess

from .conftest import LISTS, LogIn, MakeTask, list_url, new_task, text_of
from .test_task_page import assert_inert

INDEX = "/admin/carrot/"


def numbers(text: str) -> dict[str, str]:
    """The number of each list, by the list's address."""
    cards = re.findall(r'<li><a href="([^"]*)"[^>]*><span class="carrot-number">([^<]*)</span>', text)
    return dict(cards)


def test_the_first_page_counts_every_list(viewer: Client, worker: WorkerProcess, make_task: MakeTask) -> None:
    for count, status in enumerate(Status, 1):
        for _ in range(count):
            make_task(status=status)

    text = text_of(viewer.get(INDEX))

    expected = {list_url(name): str(list(Status).index(status) + 1) for name, status in LISTS.items() if status}
    assert numbers(text) == {**expected, list_url("workerprocess", "?state=alive"): "1"}
    assert "No worker is running" not in text
    assert_inert(text)


def test_counting_ends_at_a_cap(viewer: Client, db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview, "CAP", 5)
    MessageLog.objects.bulk_create([new_task(status=Status.FAILED) for _ in range(7)])

    with CaptureQueriesContext(connection) as queries:
        shown = numbers(text_of(viewer.get(INDEX)))

    assert shown[list_url("failedtask")] == "5+"
    assert len(queries) <= 12
    assert all("LIMIT 6" in query["sql"] for query in queries if "carrot_messagelog" in query["sql"])


def test_only_what_one_may_see_is_counted(log_in: LogIn, make_task: MakeTask) -> None:
    make_task()

    text = text_of(log_in("view_workerprocess").get(INDEX))

    assert numbers(text) == {list_url("workerprocess", "?state=alive"): "0"}


REPORTS = {
    "notice": "Queue default: it is not as the settings say (amqp://u:swordfish@h/x)",
    "unsent": "amqp://h/x: takes no messages: low on memory",
}


def test_what_keeps_waiting_tasks_from_being_run_is_told_on_the_first_page_and_in_their_list(
    viewer: Client, worker: WorkerProcess, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_task(status=Status.PUBLISHED)
    WorkerProcess.objects.update(**REPORTS)
    for url in (INDEX, list_url("queuedtask"), list_url("workerprocess")):
        text = text_of(viewer.get(url))
        assert "Queue default: it is not as the settings say" in text
        assert "low on memory" in text
        assert "swordfish" not in text
    monkeypatch.setattr(task_lists, "MAX_NEWS", 1)
    assert text_of(viewer.get(INDEX)).count("Workers report") == 2
    assert "Workers report still more; see Workers." in text_of(viewer.get(INDEX))
    WorkerProcess.objects.update(alive=False)
    assert "low on memory" not in text_of(viewer.get(INDEX))


def test_reports_of_workers_are_for_those_who_may_see_workers(
    log_in: LogIn, worker: WorkerProcess, make_task: MakeTask
) -> None:
    make_task(status=Status.PUBLISHED)
    WorkerProcess.objects.update(**REPORTS)
    reader = log_in("view_queuedtask", "view_messagelog")
    for url in (INDEX, list_url("queuedtask")):
        assert "low on memory" not in text_of(reader.get(url))


def test_a_fresh_installation_is_told_how_to_start(viewer: Client) -> None:
    assert "python manage.py carrot" in text_of(viewer.get(INDEX))
