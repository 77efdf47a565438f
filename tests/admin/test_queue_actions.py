"""What is done to whole queues."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.messages import get_messages
from django.db import DEFAULT_DB_ALIAS, connections
from django.test import Client

from carrot.admin import queue_actions
from carrot.models import MessageLog, Status

from .conftest import LogIn, MakeTask, list_url, text_of

PURGE = "/admin/carrot/queuedtask/purge/"
PENDING = "/admin/carrot/queuedtask/requeue-pending/"


@pytest.fixture
def operator(log_in: LogIn) -> Client:
    return log_in("view_messagelog", "purge_messagelog", "requeue_messagelog")


@pytest.fixture(autouse=True)
def two_queues(settings: Any) -> None:
    queues = [{"name": "default"}, {"name": "mails <b>"}]
    settings.CARROT = {"default_broker": "database://", "queues": queues}


def said_after(response: Any) -> str:
    assert response.status_code == 302, response.content.decode()[:2000]
    assert response["Location"] == list_url("queuedtask")
    return [str(message) for message in get_messages(response.wsgi_request)][-1]


def test_the_list_of_queued_tasks_leads_to_the_pages(operator: Client, log_in: LogIn) -> None:
    text = text_of(operator.get(list_url("queuedtask")))
    assert f'href="{PURGE}"' in text
    assert f'href="{PENDING}"' in text
    assert f'href="{PURGE}"' not in text_of(operator.get(list_url("failedtask")))

    text = text_of(log_in("view_messagelog").get(list_url("queuedtask")))
    assert PURGE not in text
    assert PENDING not in text


def test_a_queue_is_chosen_and_purged(operator: Client, make_task: MakeTask) -> None:
    waiting, other = make_task(status=Status.PUBLISHED), make_task(status=Status.PUBLISHED, queue="mails <b>")
    running, delayed = make_task(status=Status.IN_PROGRESS), make_task(status=Status.WAITING)

    text = text_of(operator.get(PURGE))
    assert "default: 1 task waits" in text
    assert "mails &lt;b&gt;: 1 task waits" in text
    assert "checked" not in text

    said = said_after(operator.post(PURGE, {"queue": "queue:default"}))
    assert said == "1 waiting task was withdrawn from the queue default."
    found = dict(MessageLog.objects.values_list("pk", "status"))
    assert found == {
        waiting.pk: "CANCELLED",
        other.pk: "PUBLISHED",
        running.pk: "IN_PROGRESS",
        delayed.pk: "WAITING",
    }
    assert LogEntry.objects.get().change_message == said

    assert said_after(operator.post(PURGE, {"queue": "queue:default"})).startswith("0 waiting tasks")
    assert said_after(operator.post(PURGE, {"queue": "all"})).startswith("1 waiting task ")


@pytest.mark.parametrize("queue", ["", "queue:", "queue:gone", "default", "everything"])
def test_without_a_queue_that_exists_nothing_is_purged(operator: Client, make_task: MakeTask, queue: str) -> None:
    make_task(status=Status.PUBLISHED, queue="gone")
    make_task(status=Status.PUBLISHED)

    assert "errorlist" in text_of(operator.post(PURGE, {"queue": queue}))
    assert not MessageLog.objects.exclude(status="PUBLISHED").exists()
    assert not LogEntry.objects.exists()


def test_pending_tasks_are_rung_again(operator: Client, make_task: MakeTask, settings: Any) -> None:
    settings.CARROT = {"default_broker": "amqp://localhost:1/"}
    make_task(status=Status.PUBLISHED)
    failed = make_task(status=Status.FAILED)

    assert "for a broker that lost" in text_of(operator.get(PENDING)).lower()
    assert not MessageLog.objects.filter(ring_at__isnull=False).exists()

    assert said_after(operator.post(PENDING)) == "The message of 1 waiting task is sent again."
    assert MessageLog.objects.get(ring_at__isnull=False).pk != failed.pk
    MessageLog.objects.filter(status=Status.PUBLISHED).withdraw()
    assert said_after(operator.post(PENDING)) == "No message had to be sent again: nothing waits for one."
    assert LogEntry.objects.count() == 2


def test_all_means_the_queues_consumed_here_and_is_told_so(
    operator: Client, make_task: MakeTask, settings: Any
) -> None:
    others = {"name": "others", "consumable": False}
    settings.CARROT = {**settings.CARROT, "queues": [*settings.CARROT["queues"], others]}
    for queue in ("default", "mails <b>", "others"):
        make_task(status=Status.PUBLISHED, queue=queue)

    assert re.search(r'value="all"[^>]*>\s*all queues consumed here<', text_of(operator.get(PURGE)))
    said = said_after(operator.post(PURGE, {"queue": "all"}))
    assert said == "2 waiting tasks were withdrawn from all queues consumed here."
    assert LogEntry.objects.get().change_message == said
    assert MessageLog.objects.get(status=Status.PUBLISHED).queue == "others"
    assert said_after(operator.post(PURGE, {"queue": "queue:others"})).startswith("1 waiting task ")

    settings.CARROT = {**settings.CARROT, "queues": [{"name": "default"}, others]}
    assert 'value="all"' not in text_of(operator.get(PURGE))


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_queues_are_worked_on_outside_of_the_transaction_of_a_request(
    operator: Client, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    """What was done stays done, though the request ends badly; the broker cannot undo it either."""
    settings.CARROT = {"default_broker": "amqp://localhost:1/"}
    monkeypatch.setitem(connections.settings[DEFAULT_DB_ALIAS], "ATOMIC_REQUESTS", True)
    operator.raise_request_exception = False

    def fails(*args: Any) -> None:
        raise ValueError("the end of the request")

    monkeypatch.setattr(queue_actions, "log_summary", fails)
    task = make_task(status=Status.PUBLISHED)
    assert operator.post(PENDING).status_code == 500
    assert MessageLog.objects.get().ring_at is not None

    assert operator.post(PURGE, {"queue": "queue:default"}).status_code == 500
    assert MessageLog.objects.get(pk=task.pk).status == Status.CANCELLED
