"""Text of strangers, in every field, on every page and in every message: shown, and nothing else."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from django.test import Client

from carrot import clock
from carrot.models import Attempt, MessageLog, Status, StrayMessage, WorkerProcess

from .conftest import LISTS, OTHERS, LogIn, MakeTask, text_of
from .test_task_actions import fields_of
from .test_task_page import HOSTILE, assert_inert

LINE = f"2026-11-20T06:50:30.878Z INFO {HOSTILE}: {HOSTILE}"


@pytest.fixture(params=["tests.urls", "tests.admin.own_site"])
def root(request: pytest.FixtureRequest, settings: Any) -> str:
    settings.ROOT_URLCONF = request.param
    settings.CARROT = {"default_broker": "database://", "queues": [{"name": "default"}, {"name": HOSTILE}]}
    return "/admin/" if request.param == "tests.urls" else "/tasks/"


@pytest.fixture
def tasks(make_task: MakeTask, db: None) -> list[MessageLog]:
    """A task of each status with hostile text in every column that takes any."""
    now = clock.now()
    worker = WorkerProcess.objects.create(
        host=HOSTILE, pid=1, service_pid=1, queues=HOSTILE, concurrency=1, version=HOSTILE[:32],
        started_at=now, beat_at=now, ending=HOSTILE, notice=HOSTILE, unsent=HOSTILE,
    )  # fmt: skip
    StrayMessage.objects.create(
        received_at=now, broker=HOSTILE, queue=HOSTILE, reason=HOSTILE, task=HOSTILE, message_id=HOSTILE, body=HOSTILE
    )
    columns = ("task", "queue", "broker", "exchange", "routing_key", "note", "exception", "traceback")
    texts: dict[str, Any] = dict.fromkeys(columns, HOSTILE)
    found = []
    for status in Status:
        for task in (HOSTILE, "tests.app.tasks.add"):
            values = {**texts, "task": task, "log": LINE, "args": [HOSTILE], "kwargs": {HOSTILE: HOSTILE}}
            found.append(make_task(**values, status=status, worker=worker, tries=2))
            Attempt.objects.create(
                message_log=found[-1], number=1, worker=HOSTILE, exception=HOSTILE, traceback=HOSTILE, log=LINE
            )
    return found


def test_on_every_page(log_in: LogIn, root: str, tasks: list[MessageLog]) -> None:
    client = log_in(superuser=True)
    lists = [f"carrot/{name}/" for name in (*LISTS, *OTHERS)]
    rows = [f"carrot/messagelog/{task.pk}/{page}/" for task in tasks for page in ("change", "history", "delete")]
    rows += [f"carrot/workerprocess/{row.pk}/change/" for row in WorkerProcess.objects.all()]
    rows += [f"carrot/straymessage/{row.pk}/change/" for row in StrayMessage.objects.all()]
    asked = [f"{page}?q={quote(HOSTILE)}&queue={quote(HOSTILE)}&task={quote(HOSTILE)}" for page in lists[:6]]

    for page in ["carrot/", *lists, *rows, *asked, "carrot/queuedtask/purge/", "carrot/queuedtask/requeue-pending/"]:
        assert_inert(text_of(client.get(root + page)))


@pytest.mark.parametrize("across", ["0", "1"])
def test_in_every_question_and_message(log_in: LogIn, root: str, tasks: list[MessageLog], across: str) -> None:
    client = log_in(superuser=True)
    url = f"{root}carrot/messagelog/?queue={quote(HOSTILE)}"
    for action in ("requeue", "run_again", "withdraw", "delete_selected"):
        selected = list(MessageLog.objects.values_list("pk", flat=True))
        asked = client.post(url, {"action": action, "_selected_action": selected, "select_across": across})
        assert_inert(text_of(asked))
        assert_inert(text_of(client.post(url, fields_of(asked), follow=True)))

    asked = client.post(f"{root}carrot/queuedtask/purge/", {"queue": HOSTILE})
    assert_inert(text_of(asked))
    assert_inert(text_of(client.post(f"{root}carrot/queuedtask/purge/", {"queue": f"queue:{HOSTILE}"}, follow=True)))
    assert_inert(text_of(client.get(f"{root}")))
    for task in MessageLog.objects.all():
        assert_inert(text_of(client.get(f"{root}carrot/messagelog/{task.pk}/history/")))


def test_in_what_was_skipped(log_in: LogIn, root: str, make_task: MakeTask) -> None:
    client: Client = log_in(superuser=True)
    task = make_task(status=Status.FAILED, queue=f"gone {HOSTILE}")

    text = text_of(client.post(f"{root}carrot/messagelog/{task.pk}/requeue/", follow=True))

    assert "queue gone &quot;&#x27;&gt;&lt;script&gt;" in text
    assert_inert(text)
