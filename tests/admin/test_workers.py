"""Workers and stray messages."""

from __future__ import annotations

from datetime import timedelta

from django.test import Client

from carrot import clock
from carrot.models import Status, StrayMessage, WorkerProcess

from .conftest import MakeTask, list_url, page_url, text_of
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
        for body in (HOSTILE, '{"args": ["<script>alert(1)</script>"]}', "\ufffd\x01", "[" * 1000, "7", '{"args": 1}')
    ]

    for url in (
        list_url("workerprocess"),
        list_url("straymessage"),
        f"/admin/carrot/workerprocess/{worker.pk}/change/",
        *(f"/admin/carrot/straymessage/{stray.pk}/change/" for stray in strays),
    ):
        assert_inert(text_of(viewer.get(url)))


def test_secrets_of_a_stray_message_are_masked(viewer: Client) -> None:
    for body in (
        '{"args": [1, "swordfish"], "kwargs": {"password": "swordfish"}}',
        '{"kwargs": {"a": {"password": "swordfish"}, "b": "cut o',
        '{"kwargs": {"password": "swordfi',
        "see amqp://u:swordfish@host/",
    ):
        stray = StrayMessage.objects.create(received_at=clock.now(), queue="q", reason="r", task="a.b", body=body)
        text = text_of(viewer.get(f"/admin/carrot/straymessage/{stray.pk}/change/"))
        assert "swordfi" not in text
