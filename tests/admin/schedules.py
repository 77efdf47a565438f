"""Schedules, and what their form sends."""

from __future__ import annotations

import json
from typing import Any

from django.test import Client

from carrot.models import Origin, ScheduledTask

ADD = "tests.app.tasks.add"
FAIL = "tests.app.tasks.fail"
#: A function that only code may name: no module with registered tasks has it.
UNREGISTERED = "tests.admin.samples.greet"
#: One that is nowhere.
GONE = "tests.app.tasks.long_gone"

#: The sites that the monitor is on, by the URLconf that routes them; see ``own_site.py``.
SITES = {"tests.urls": "/admin/carrot/", "tests.admin.own_site": "/tasks/carrot/"}
BASE = SITES["tests.urls"] + "scheduledtask/"


def make_schedule(name: str = "sums", **values: Any) -> ScheduledTask:
    values = {"task": ADD, "args": [1, 2], "origin": Origin.ADMIN, "interval_type": "hours", **values}
    schedule = ScheduledTask(task_name=name, **values)
    schedule.save()
    return schedule


def page(schedule: ScheduledTask, view: str = "change", base: str = BASE) -> str:
    return f"{base}{schedule.pk}/{view}/"


def form_of(schedule: ScheduledTask | None = None, **changes: Any) -> dict[str, Any]:
    """What a browser sends for a schedule, or for one that adds 1 and 2 every five minutes; None leaves out."""
    values: dict[str, Any] = {
        "task_name": "every five",
        "active": "on",
        "task": ADD,
        "args": "[1, 2]",
        "kwargs": "{}",
        "interval_count": "5",
        "interval_type": "minutes",
        "queue": "default",
        "exchange": "",
        "routing_key": "",
        "priority": "0",
    }
    if schedule is not None:
        values = {name: getattr(schedule, name) for name in values}
        values |= {"args": json.dumps(schedule.args), "kwargs": json.dumps(schedule.kwargs)}
        values["active"] = "on" if schedule.active else None
    return {name: value for name, value in (values | changes).items() if value is not None}


def errors_of(client: Client, changes: dict[str, Any], url: str = f"{BASE}add/") -> dict[str, str]:
    """The errors of the form by field, joined, for what is refused; nothing is written."""
    before = list(ScheduledTask.objects.order_by("pk").values())
    response = client.post(url, form_of(**changes))
    assert response.status_code == 200, response
    assert list(ScheduledTask.objects.order_by("pk").values()) == before
    form = response.context["adminform"].form
    return {name: " ".join(map(str, errors)) for name, errors in form.errors.items()}
