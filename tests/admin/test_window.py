"""What filters and searches look through in a long list."""

from __future__ import annotations

import html
import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from carrot import clock
from carrot.admin import changelist, task_actions, window
from carrot.models import MessageLog, Status

from .conftest import LogIn, MakeTask, list_url, new_task, text_of
from .test_lists import tasks_in
from .test_task_actions import EVERYTHING, ask, confirm

NEWEST = "Only the newest 20 of these tasks were looked through."
BETWEEN = "Only 20 of these tasks were looked through; newer and older ones were left out."
OLDEST = "Newer tasks were left out."


@pytest.fixture(autouse=True)
def small_window(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (window, changelist):
        monkeypatch.setattr(module, "WINDOW", 20)


def fill(number: int = 25, **values: Any) -> None:
    MessageLog.objects.bulk_create([new_task(**values) for _ in range(number)])


def older(text: str) -> str:
    """Where the link to older tasks leads."""
    [query] = re.findall(r'<a href="([^"]*)">Look through older ones', text)
    return html.unescape(query)


@pytest.mark.parametrize("name", ["messagelog", "completedtask"])
@pytest.mark.parametrize(
    "query",
    ["?task=tests.admin.samples.greet", "?q=needle", "?queue=rare", "?virtual_host=rare", "?q=needle&queue=rare"],
)
def test_filters_and_searches_look_through_the_newest_and_say_so(
    viewer: Client, make_task: MakeTask, name: str, query: str
) -> None:
    rare = {"task": "tests.admin.samples.greet", "args": ["needle"], "queue": "rare", "broker": "rare"}
    oldest = make_task(**rare)
    text = text_of(viewer.get(list_url(name, query)))
    assert tasks_in(text) == [oldest.pk]
    assert "looked through" not in text
    fill()
    newest = make_task(**rare)

    text = text_of(viewer.get(list_url(name, query)))
    assert tasks_in(text) == [newest.pk]
    assert NEWEST in text
    text = text_of(viewer.get(list_url(name, older(text))))
    assert tasks_in(text) == [oldest.pk]
    assert OLDEST in text
    text = text_of(viewer.get(list_url(name)))
    assert "looked through" not in text
    assert len(tasks_in(text)) == 27


def test_older_tasks_come_in_portions_that_leave_none_out(viewer: Client) -> None:
    now = clock.now()
    for number in range(50):  # three by three of one moment
        new_task(queue="rare", state_at=now - timedelta(seconds=number // 3)).save()

    for name in ("messagelog", "completedtask"):
        seen: list[int] = []
        query, texts = "?queue=rare", []
        for _ in range(3):
            texts.append(text_of(viewer.get(list_url(name, query))))
            seen += tasks_in(texts[-1])
            query = older(texts[-1]) if "Look through older" in texts[-1] else ""
        assert sorted(seen) == sorted(MessageLog.objects.values_list("pk", flat=True))
        assert [NEWEST in texts[0], BETWEEN in texts[1], OLDEST in texts[2]] == [True] * 3


def test_a_window_is_no_larger_than_it_says(viewer: Client) -> None:
    fill(20)
    assert "looked through" not in text_of(viewer.get(list_url("messagelog", "?queue=default")))
    fill(1)

    text = text_of(viewer.get(list_url("messagelog", "?queue=default")))
    assert len(tasks_in(text)) == 20
    assert NEWEST in text
    assert len(tasks_in(text_of(viewer.get(list_url("messagelog", older(text)))))) == 1


def test_a_status_has_an_index_and_is_no_filter_of_a_window(viewer: Client, make_task: MakeTask) -> None:
    withdrawn = make_task(status=Status.CANCELLED)
    fill()

    with CaptureQueriesContext(connection) as queries:
        text = text_of(viewer.get(list_url("messagelog", "?status=CANCELLED")))

    assert tasks_in(text) == [withdrawn.pk]
    assert "looked through" not in text
    [page] = [query["sql"] for query in queries if "args_text" in query["sql"]]
    order = '"carrot_messagelog"."state_at" DESC, "carrot_messagelog"."id" DESC'
    assert page.rpartition("ORDER BY ")[2].startswith(order)
    assert tasks_in(text_of(viewer.get(list_url("messagelog", "?status=CANCELLED&queue=default")))) == [withdrawn.pk]


def test_a_message_id_is_found_however_old(viewer: Client, make_task: MakeTask) -> None:
    task = make_task(queue="rare")
    fill()

    for query in (f"?q={task.uuid}", f"?q={task.uuid}&queue=rare"):
        assert tasks_in(text_of(viewer.get(list_url("messagelog", query)))) == [task.pk]


@pytest.mark.parametrize(("name", "field"), [("completedtask", "completion_time"), ("failedtask", "failure_time")])
def test_a_range_of_times_moves_the_window(viewer: Client, make_task: MakeTask, name: str, field: str) -> None:
    status = Status.FAILED if name == "failedtask" else Status.COMPLETED
    old = clock.now() - timedelta(days=3)
    task = make_task(status=status, state_at=old + timedelta(seconds=2), **{field: old})
    fill(status=status)

    query = f"?{field}__range__lte_0={old:%Y-%m-%d}&{field}__range__lte_1={old:%H:%M:%S}"
    text = text_of(viewer.get(list_url(name, query)))

    assert tasks_in(text) == [task.pk]
    assert OLDEST in text


@pytest.mark.parametrize("name", ["messagelog", "completedtask"])
@pytest.mark.parametrize(
    "before",
    ["x", "-1", "9" * 30, "9" * 5000, "2026-05-04", "0001-01-01T00:00:00%2B23:59", "9999-12-31T23:59:59-23:59"],
)
def test_a_place_that_is_none_shows_nothing(viewer: Client, make_task: MakeTask, name: str, before: str) -> None:
    make_task()

    text = text_of(viewer.get(list_url(name, f"?before={before}")))

    assert tasks_in(text) == []
    assert OLDEST in text


def test_an_action_on_all_that_match_reaches_what_was_looked_through_and_says_so(
    log_in: LogIn, make_task: MakeTask
) -> None:
    operator = log_in(*EVERYTHING)
    oldest = make_task(status=Status.FAILED, queue="default")
    fill(status=Status.FAILED)
    query = "?queue=default"

    asked = ask(operator, "failedtask", "requeue", [oldest.pk], query, across=True)
    assert NEWEST in text_of(asked)
    # Ties at the end of the window belong to it.
    number = len(tasks_in(text_of(operator.get(list_url("failedtask", query)))))
    assert confirm(operator, asked, "failedtask", query) == [f"{number} tasks were requeued."]
    assert MessageLog.objects.get(status=Status.FAILED, pk=oldest.pk)


def test_one_request_reads_so_many_keys(log_in: LogIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_actions, "MOST", 10)
    operator = log_in(*EVERYTHING)
    fill(15, status=Status.FAILED)
    first = MessageLog.objects.order_by("pk").values_list("pk", flat=True)[0]

    asked = ask(operator, "failedtask", "requeue", [first], across=True)

    assert confirm(operator, asked, "failedtask") == [
        "One request takes 10 tasks at most; the others were left alone.",
        "10 tasks were requeued.",
    ]
    assert MessageLog.objects.filter(status=Status.FAILED).count() == 5
