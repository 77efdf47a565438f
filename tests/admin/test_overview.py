"""The first page of the monitor."""

from __future__ import annotations

import re

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from carrot.admin import overview
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


def test_a_fresh_installation_is_told_how_to_start(viewer: Client) -> None:
    assert "python manage.py carrot" in text_of(viewer.get(INDEX))
