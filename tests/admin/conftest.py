"""Rows and people of the monitor's tests."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from carrot import clock
from carrot.models import MessageLog, Status, WorkerProcess

MakeTask = Callable[..., MessageLog]
LogIn = Callable[..., Client]

#: Everything a page may be asked for by its name in the URL.
LISTS = {
    "messagelog": None,
    "queuedtask": Status.PUBLISHED,
    "runningtask": Status.IN_PROGRESS,
    "failedtask": Status.FAILED,
    "completedtask": Status.COMPLETED,
    "delayedtask": Status.WAITING,
}
OTHERS = ("workerprocess", "straymessage")


def list_url(name: str, query: str = "") -> str:
    return f"/admin/carrot/{name}/{query}"


def page_url(task: MessageLog, query: str = "") -> str:
    return f"/admin/carrot/messagelog/{task.pk}/change/{query}"


def new_task(**values: Any) -> MessageLog:
    """A row of this status and these values, not saved, with the times that belong to the status."""
    now = clock.now()
    status = values.setdefault("status", Status.COMPLETED)
    ended = {Status.FAILED: "failure_time", Status.COMPLETED: "completion_time"}.get(status)
    if ended:
        values.setdefault(ended, now)
        values.setdefault("start_time", now - timedelta(seconds=2))
    return MessageLog(
        **{
            "uuid": uuid.uuid4(),
            "task": "tests.app.tasks.add",
            "args": [],
            "kwargs": {},
            "broker": "database://",
            "queue": "default",
            "routing_key": "default",
            "publish_time": now - timedelta(seconds=3),
            "state_at": now,
            **values,
        }
    )


@pytest.fixture
def make_task(db: None) -> MakeTask:
    def make(**values: Any) -> MessageLog:
        task = new_task(**values)
        task.save()
        return task

    return make


@pytest.fixture
def worker(db: None) -> WorkerProcess:
    """A worker that lives."""
    now = clock.now()
    return WorkerProcess.objects.create(
        host="host-a",
        pid=41,
        service_pid=40,
        queues="default",
        concurrency=4,
        version="2.0.0",
        started_at=now,
        beat_at=now,
    )


@pytest.fixture
def log_in(db: None, client: Client) -> LogIn:
    """A client of a member of staff with these permissions of carrot, and no others."""

    def log_in(*permissions: str, superuser: bool = False) -> Client:
        name = f"staff-{uuid.uuid4().hex[:8]}"
        user = User.objects.create_user(name, password="secret", is_staff=True, is_superuser=superuser)
        user.user_permissions.set(Permission.objects.filter(content_type__app_label="carrot", codename__in=permissions))
        client.force_login(user)
        return client

    return log_in


@pytest.fixture
def viewer(log_in: LogIn) -> Client:
    """Somebody who may see everything of the monitor, and do nothing."""
    return log_in("view_messagelog", "view_workerprocess", "view_straymessage")


def text_of(response: Any, status: int = 200) -> str:
    assert response.status_code == status, response.content.decode()[:2000]
    text: str = response.content.decode()
    return text
