"""Rows to do something to, and everything that can be done to them with a single request."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.apps import apps
from django.contrib.admin.models import LogEntry
from django.db import connection, transaction
from django.test import Client

from carrot import clock
from carrot.admin import verbs
from carrot.admin.confirmation import Confirmation
from carrot.models import MessageLog, Status, StrayMessage, WorkerProcess
from tests.admin.conftest import new_task
from tests.admin.schedules import form_of, make_schedule
from tests.security.addresses import Route, routes
from tests.security.powers import ACTIONS


class World:
    """A task of each status, a schedule that is active and one that is not, a worker, a stray message."""

    def __init__(self, root: str) -> None:
        self.root = root
        now = clock.now()
        self.worker = WorkerProcess.objects.create(
            host="host-a", pid=1, service_pid=1, queues="default", concurrency=1, started_at=now, beat_at=now
        )
        self.stray = StrayMessage.objects.create(received_at=now, queue="q", reason="no JSON", body="{")
        self.tasks = {status: self._task(status) for status in Status}
        self.schedules = [make_schedule("active"), make_schedule("inactive", active=False)]
        #: All rows as they are before anything is done; looked at when it is needed first.
        self.content: list[Any] = []

    def _task(self, status: str) -> MessageLog:
        task = new_task(status=status, worker=self.worker if status == Status.IN_PROGRESS else None)
        task.save()
        return task

    def address(self, route: Route) -> str:
        """Where the route leads for the row that can be changed there."""
        name = route.path.rstrip("/").rpartition("/")[2]
        task = self.tasks[
            {"requeue": Status.FAILED, "withdraw": Status.PUBLISHED, "delete": Status.FAILED}.get(
                name, Status.COMPLETED
            )
        ]
        keys = {"scheduledtask": self.schedules[0], "workerprocess": self.worker, "straymessage": self.stray}
        object_id = keys.get(route.model, task).pk
        return self.root + route.filled(object_id=object_id, app_label="carrot", url="no/such", content_type_id=1)

    def data(self, route: Route) -> dict[str, Any]:
        """What changes something there, as the page of somebody who may do it would send it."""
        if route.key == "carrot/queuedtask/purge/":
            return {"queue": "queue:default"}
        if route.key == "carrot/scheduledtask/add/":
            return form_of()
        if route.key == "carrot/scheduledtask/*/change/":
            return form_of(self.schedules[0], priority="4")
        return {**sealed(verbs.DELETE), "task": "os.system", "status": "PUBLISHED", "queue": "default"}

    def pressed(self, name: str, action: str) -> dict[str, Any]:
        """An action of a list for all its rows, its question answered."""
        rows = self.schedules if name == "scheduledtask" else self.tasks.values()
        verb = next((verb for verb in verbs.VERBS if verb.action == action), None)
        return {
            "action": action,
            "_selected_action": [row.pk for row in rows],
            "select_across": "0",
            **(sealed(verb) if verb is not None and name != "scheduledtask" else {"post": "yes"}),
        }

    def changed_by(self, client: Client, url: str, data: dict[str, Any]) -> tuple[bool, Any]:
        """Whether a POST changes anything, and its answer. It is undone."""
        client.cookies.pop("messages", None)
        if not self.content:
            self.content = everything()
        writes = Writes()
        with undone(), connection.execute_wrapper(writes):
            response = client.post(url, data)
            # Reading all there is takes longer than to refuse somebody, so only after a statement that writes.
            return bool(writes.made) and everything() != self.content, response

    def routes(self) -> list[Route]:
        return routes(self.root)

    def lists(self) -> list[str]:
        """The names of the lists."""
        return [route.path.split("/")[1] for route in self.routes() if route.path.endswith("/add/")]


#: The names of all actions there are.
ALL_ACTIONS = sorted({action for _name, action in ACTIONS})


def sealed(verb: verbs.Verb) -> dict[str, str]:
    """The answer to a confirmation page that somebody who may do it was shown."""
    return {"post": "yes", "question": Confirmation.of(10**6, more=True).sealed(verb)}


def everything() -> list[Any]:
    """The content of all tables of carrot, and the admin's log."""
    models: list[Any] = [*apps.get_app_config("carrot").get_models(), LogEntry]
    return [list(model.objects.order_by("pk").values()) for model in models if not model._meta.proxy]


class Writes:
    """Notes the statements that write into a table of carrot or into the admin's log."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if re.match(r"\s*(INSERT|UPDATE|DELETE|REPLACE)\b.*(carrot_|django_admin_log)", sql, re.DOTALL):
            self.made.append(sql)
        return execute(sql, params, many, context)


@contextmanager
def undone() -> Iterator[None]:
    with transaction.atomic():
        yield
        transaction.set_rollback(True)
