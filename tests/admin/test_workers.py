"""Workers and stray messages."""

from __future__ import annotations

import html
import re
from datetime import timedelta

import pytest
from django.test import Client

from carrot import clock
from carrot.models import Status, StrayMessage, WorkerProcess

from .conftest import LogIn, MakeTask, list_url, page_url, text_of
from .test_task_page import HOSTILE, assert_inert


def test_a_worker_is_alive_silent_or_ended(viewer: Client, worker: WorkerProcess) -> None:
    assert ">alive</span>" in text_of(viewer.get(list_url("workerprocess")))

    WorkerProcess.objects.update(beat_at=clock.now() - timedelta(minutes=5))
    assert "silent for 5 min" in text_of(viewer.get(list_url("workerprocess")))

    WorkerProcess.objects.all().end(worker.pk, "killed by signal 9")
    text = text_of(viewer.get(list_url("workerprocess")))
    assert "ended" in text
    assert "killed by signal 9" in text


def test_workers_are_filtered_by_state(viewer: Client, worker: WorkerProcess) -> None:
    assert "host-a:41" in text_of(viewer.get(list_url("workerprocess", "?state=alive")))
    for state in ("ended", "nonsense"):
        assert "host-a:41" not in text_of(viewer.get(list_url("workerprocess", f"?state={state}")))


def test_the_page_of_a_worker_lists_what_it_runs(viewer: Client, worker: WorkerProcess, make_task: MakeTask) -> None:
    running = make_task(status=Status.IN_PROGRESS, worker=worker)
    done = make_task(status=Status.COMPLETED, worker=worker)

    text = text_of(viewer.get(f"/admin/carrot/workerprocess/{worker.pk}/change/"))

    assert page_url(running) in text
    assert page_url(done) not in text


def test_a_worker_tells_its_tasks_only_to_those_who_may_see_tasks(
    log_in: LogIn, worker: WorkerProcess, make_task: MakeTask
) -> None:
    task = make_task(status=Status.IN_PROGRESS, worker=worker)

    text = text_of(log_in("view_workerprocess").get(f"/admin/carrot/workerprocess/{worker.pk}/change/"))

    assert "host-a" in text
    assert "Running tasks" not in text
    for part in (task.task, str(task.uuid), page_url(task)):
        assert part not in text


def test_hostile_text_of_workers_and_messages_is_inert(viewer: Client) -> None:
    now = clock.now()
    worker = WorkerProcess.objects.create(
        host=HOSTILE,
        pid=1,
        service_pid=1,
        queues=HOSTILE,
        concurrency=1,
        version="2",
        started_at=now,
        beat_at=now,
        notice=HOSTILE,
        ending=HOSTILE,
    )
    strays = [
        StrayMessage.objects.create(
            received_at=now, broker=HOSTILE, queue=HOSTILE, reason=HOSTILE, task=HOSTILE, message_id=HOSTILE, body=body
        )
        for body in (
            HOSTILE,
            '{"args": ["<script>alert(1)</script>"]}',
            "\ufffd\x01",
            "[" * 1000,
            "7",
            '{"args": 1}',
            '{"a": "\\ud800"}',
        )
    ]

    for url in (
        list_url("workerprocess"),
        list_url("straymessage"),
        f"/admin/carrot/workerprocess/{worker.pk}/change/",
        *(f"/admin/carrot/straymessage/{stray.pk}/change/" for stray in strays),
    ):
        assert_inert(text_of(viewer.get(url)))


def shown_of(viewer: Client, body: str, task: str = "a.b") -> str:
    stray = StrayMessage.objects.create(received_at=clock.now(), queue="q", reason="r", task=task, body=body)
    text = text_of(viewer.get(f"/admin/carrot/straymessage/{stray.pk}/change/"))
    field = text.rpartition("field-content")[2].partition("</fieldset>")[0]
    return html.unescape(re.sub(r"<[^>]*>", "", f"<{field}"))


@pytest.mark.parametrize(
    "body",
    [
        '{"args": [1, "swordfish"], "kwargs": {"password": "swordfish"}}',
        '{"args": {"card": "swordfish"}, "kwargs": ["swordfish"]}',
        '[["swordfish"], {"card": "swordfish"}, {}]',
        '"swordfish"',
        '{"kwargs": {"a": {"password": "swordfish"}, "b": "cut o',
        '{"kwargs": {"password": "swordfi',
        '{"args": ["4111-1111-1111-1111", "swordfish"], "kwargs": {"note": "' + "x" * 1900,
        '{"args": ["swordfi',
        "see amqp://u:swordfish@host/",
        "(lp0\nVswordfish\np1\na.",
    ],
)
def test_secrets_of_a_stray_message_are_masked(viewer: Client, body: str) -> None:
    shown = shown_of(viewer, body)

    assert "swordfi" not in shown
    assert "4111" not in shown


def test_what_is_no_secret_of_a_stray_message_is_shown(viewer: Client) -> None:
    assert '"colour": "blue"' in shown_of(viewer, '{"colour": "blue", "password": "swordfish"}')
    registered = shown_of(viewer, '{"args": [7, 35], "kwargs": {}}', task="tests.app.tasks.add")
    assert "35" in registered


def test_a_body_that_is_not_shown_is_measured(viewer: Client) -> None:
    assert "Not shown: 2.0\xa0KB that are not JSON" in shown_of(viewer, '{"args": ["' + "é" * 1000)
    assert "The message is empty." in shown_of(viewer, "")
