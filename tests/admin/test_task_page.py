"""The page of a task."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from carrot import clock
from carrot.admin.task_page import MAX_ATTEMPTS
from carrot.arguments import encode_output
from carrot.models import Attempt, MessageLog, Status, WorkerProcess

from .conftest import LISTS, LogIn, MakeTask, list_url, page_url, text_of

LOG = (
    "2026-11-20T06:50:30.877Z DEBUG shop: the detail\n"
    "2026-11-20T06:50:30.878Z INFO shop: the news\n"
    "    in two lines\n"
    "2026-11-20T06:50:30.879Z WARNING shop: the warning"
)
HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7|add:7 }}{% now 'Y' %}</pre>"


def output_of(task: MessageLog, value: Any, limit: int = 65_536) -> None:
    """Stores a result the way the recorder does."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE carrot_messagelog SET output = %s WHERE id = %s", [encode_output(value, limit), task.pk])


def test_the_page_shows_everything_about_a_task(viewer: Client, make_task: MakeTask, worker: WorkerProcess) -> None:
    task = make_task(
        status=Status.FAILED,
        broker="amqp://host:5672/shop",
        exchange="letters",
        routing_key="express",
        priority=7,
        tries=2,
        worker=worker,
        args=[1, "Café"],
        kwargs={"colour": "blue"},
        log=LOG,
        exception="ValueError: no amount",
        traceback='Traceback (most recent call last):\n  File "a.py", line 3, in f\nValueError: no amount\n',
    )

    text = re.sub(r"<[^>]*>", "", text_of(viewer.get(page_url(task))))

    for part in (
        "tests.app.tasks.add",
        str(task.uuid),
        "amqp://host:5672/shop",
        "letters",
        "express",
        "default",
        "7",
        "host-a:41",
        "Failed",
        "Café",
        "&quot;colour&quot;: &quot;blue&quot;",
        "the news",
        "ValueError: no amount",
        "File &quot;a.py&quot;, line 3",
        *(f"{time:%Y-%m-%d %H:%M:%S}" for time in (task.publish_time, task.start_time, task.failure_time) if time),
    ):
        assert part in text, part


@pytest.mark.parametrize("status", list(Status))
def test_every_status_has_its_page(viewer: Client, make_task: MakeTask, status: Status) -> None:
    task = make_task(status=status, ring_at=clock.now() + timedelta(hours=1), note="the broker is away")

    text = text_of(viewer.get(page_url(task)))

    assert str(status.label) in text
    assert "the broker is away" in text


@pytest.mark.parametrize(
    ("query", "shown", "hidden"),
    [
        ("", ["the news", "in two lines", "the warning"], ["the detail"]),
        ("?log_level=DEBUG", ["the detail", "the news", "the warning"], []),
        ("?log_level=WARNING", ["the warning"], ["the detail", "the news", "in two lines"]),
        ("?log_level=nonsense", ["the news"], ["the detail"]),
    ],
)
def test_the_log_opens_at_info_and_shows_more_or_less(
    viewer: Client, make_task: MakeTask, query: str, shown: list[str], hidden: list[str]
) -> None:
    text = text_of(viewer.get(page_url(make_task(log=LOG), query)))

    assert all(part in text for part in shown)
    assert not any(part in text for part in hidden)
    for level in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
        assert f'href="?log_level={level}#carrot-log"' in text


def test_choosing_a_level_keeps_the_way_back_to_the_list(viewer: Client, make_task: MakeTask) -> None:
    text = text_of(viewer.get(page_url(make_task(log=LOG), "?_changelist_filters=queue%3Dq&log_level=ERROR")))

    assert 'href="?_changelist_filters=queue%3Dq&amp;log_level=INFO#carrot-log"' in text


def test_results_are_shown_as_what_they_are(viewer: Client, make_task: MakeTask) -> None:
    task = make_task()
    assert "carrot-output" not in text_of(viewer.get(page_url(task)))

    for value, limit, parts in (
        ({"imported": 3}, 65_536, ["&quot;imported&quot;", "3"]),
        (object(), 65_536, ["The result is not JSON.", "of type object", "&lt;object object at"]),
        (["x" * 100] * 100, 1024, ["The result was too large to be stored: 10.2\xa0KB", "bytes cut"]),
        ({"__carrot__": "mine"}, 65_536, ["&quot;__carrot__&quot;", "&quot;mine&quot;"]),
    ):
        output_of(task, value, limit)
        text = text_of(viewer.get(page_url(task)))
        assert all(part in text for part in parts), parts


def test_earlier_attempts_are_shown_the_latest_first(viewer: Client, make_task: MakeTask) -> None:
    task = make_task(tries=MAX_ATTEMPTS + 4)
    for number in range(1, MAX_ATTEMPTS + 4):
        Attempt.objects.create(
            message_log=task, number=number, worker="host-b:9", end_time=clock.now(), exception="OSError: once", log=LOG
        )

    text = text_of(viewer.get(page_url(task)))

    numbers = [int(number) for number in re.findall(r"<summary>Attempt (\d+)", text)]
    assert numbers == list(range(MAX_ATTEMPTS + 3, 3, -1))
    assert "3 earlier attempts are not shown." in text
    assert "OSError: once" in text
    assert "host-b:9" in text
    assert "the detail" not in text


def test_a_page_takes_few_queries(viewer: Client, make_task: MakeTask, worker: WorkerProcess) -> None:
    task = make_task(worker=worker, log=LOG, args=[1], kwargs={"a": 1})
    for number in range(1, 9):
        Attempt.objects.create(message_log=task, number=number, log=LOG)

    with CaptureQueriesContext(connection) as queries:
        text_of(viewer.get(page_url(task)))

    assert len(queries) <= 8, [query["sql"] for query in queries]


@pytest.mark.parametrize("path", ["long.gone.function", "tests.app.tasks.gone", "not a path", "os.system", ".", ""])
def test_a_function_that_is_gone_is_stated(viewer: Client, make_task: MakeTask, path: str) -> None:
    task = make_task(status=Status.FAILED, task=path, args=["keep this to yourself"], queue="gone", worker_id=77)

    text = text_of(viewer.get(page_url(task)))

    assert "#77 (its own row is gone)" in text
    assert "not in the settings" in text
    if path != "os.system":
        assert "This function is not found here" in text
        assert "keep this to yourself" not in text
    for name in LISTS:
        assert viewer.get(list_url(name)).status_code == 200


def test_secrets_are_masked(viewer: Client, make_task: MakeTask) -> None:
    task = make_task(
        status=Status.FAILED,
        task="tests.admin.samples.log_in",
        args=["anna", "swordfish"],
        kwargs={"options": {"api_token": "swordfish"}, "broker": "amqp://u:swordfish@host/"},
        log="2026-11-20T06:50:30.878Z INFO shop: connecting to amqp://u:swordfish@host/",
        exception="OSError: amqp://u:swordfish@host/",
        traceback="OSError: amqp://u:swordfish@host/",
        note="amqp://u:swordfish@host/ is away",
    )
    Attempt.objects.create(
        message_log=task, number=1, exception="amqp://u:swordfish@host/", traceback=task.traceback, log=task.log
    )
    output_of(task, {"broker": "amqp://u:swordfish@host/"})

    for url in (page_url(task), list_url("messagelog"), list_url("failedtask")):
        text = text_of(viewer.get(url))
        assert "swordfish" not in text
        assert "anna" in text


def test_hostile_text_is_inert_wherever_it_stands(viewer: Client, make_task: MakeTask) -> None:
    values = {
        "task": HOSTILE,
        "queue": HOSTILE,
        "broker": HOSTILE,
        "exchange": HOSTILE,
        "routing_key": HOSTILE,
        "note": HOSTILE,
        "exception": HOSTILE,
        "traceback": HOSTILE,
        "log": f"2026-11-20T06:50:30.878Z INFO {HOSTILE}: {HOSTILE}\n{HOSTILE}",
        "kwargs": {HOSTILE: HOSTILE},
        "args": [HOSTILE],
    }
    tasks = [make_task(status=status, **values) for status in Status]
    tasks.append(make_task(**{**values, "task": "tests.app.tasks.add"}))
    for task in tasks:
        output_of(task, HOSTILE)
        Attempt.objects.create(
            message_log=task, number=1, worker=HOSTILE, exception=HOSTILE, traceback=HOSTILE, log=HOSTILE
        )
    urls = [list_url(name) for name in LISTS] + [page_url(task) for task in tasks]
    urls += [list_url("messagelog", "?queue=%3Cscript%3Ealert(1)%3C/script%3E&q=%3Cimg%20src=x%20onerror=alert(1)%3E")]

    for url in urls:
        assert_inert(text_of(viewer.get(url)))


def assert_inert(text: str) -> None:
    """No text of ours became markup, and our own markup has no script or style in it."""
    assert "<img src=x" not in text
    assert "alert(1)</script>" not in text
    assert "{{ 7|add:7 }}" in text or "7|add" not in text
    tags = re.findall(r"<[a-zA-Z][^>]*>", text)
    assert not [tag for tag in tags if re.search(r"""\s(style|on\w+)\s*=""", re.sub(r'"[^"]*"', '""', tag))]
    assert "<style" not in text
    for script in re.findall(r"<script[^>]*>(.*?)</script>", text, re.DOTALL):
        assert not script.strip()


@pytest.mark.parametrize("key", ["999999", "0", "-1", "abc", "1_2", "9" * 30, "%27"])
def test_a_task_that_does_not_exist_leads_back_to_the_index(viewer: Client, db: None, key: str) -> None:
    assert viewer.get(f"/admin/carrot/messagelog/{key}/change/").status_code == 302


def test_a_huge_argument_makes_a_page_without_colours(viewer: Client, make_task: MakeTask) -> None:
    text = text_of(viewer.get(page_url(make_task(args=["y" * 300_000]))))

    assert "y" * 300_000 in text


@pytest.mark.parametrize("key", ["9" * 5000, "9" * 20, "9" * 19, "0" * 19, "\u0663"])
@pytest.mark.parametrize("view", ["change", "delete", "history", "requeue"])
def test_a_key_that_no_task_can_have_is_not_found(log_in: LogIn, key: str, view: str) -> None:
    response = log_in(superuser=True).get(f"/admin/carrot/messagelog/{key}/{view}/")

    assert response.status_code in (302, 405)
