"""Each action with each permission, on the stock admin and on the monitor's own site."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client

from carrot.models import MessageLog, Status

from .conftest import MakeTask, text_of
from .test_task_actions import EVERYTHING, fields_of

SITES = {"stock": ("tests.urls", "/admin/"), "own": ("tests.admin.own_site", "/tasks/")}
STAFF = [(), ("view_messagelog",)]
STAFF += [(name,) for name in EVERYTHING[1:]]
STAFF += [("view_messagelog", name) for name in EVERYTHING[1:]]

#: Every way to do something: the permission it needs, the list or page, the status it starts from.
ACTIONS = [
    ("requeue", "failedtask", "requeue", Status.FAILED),
    ("requeue", "messagelog", "requeue", Status.CANCELLED),
    ("withdraw", "queuedtask", "withdraw", Status.PUBLISHED),
    ("withdraw", "delayedtask", "withdraw", Status.WAITING),
    ("withdraw", "messagelog", "withdraw", Status.PUBLISHED),
    ("run_again", "completedtask", "run_again", Status.COMPLETED),
    ("run_again", "messagelog", "run_again", Status.COMPLETED),
    ("delete", "failedtask", "delete_selected", Status.FAILED),
    ("delete", "completedtask", "delete_selected", Status.COMPLETED),
    ("delete", "messagelog", "delete_selected", Status.CANCELLED),
]
BUTTONS = [
    ("requeue", "requeue", Status.FAILED),
    ("withdraw", "withdraw", Status.PUBLISHED),
    ("run_again", "run-again", Status.COMPLETED),
    ("delete", "delete", Status.FAILED),
]
#: What a page that does something would be told, for short.
PRESS = {"action": "requeue", "post": "yes", "queue": "all"}

TOOLS = [("purge", "purge"), ("requeue", "requeue-pending")]


@pytest.fixture(params=SITES)
def root(request: pytest.FixtureRequest, settings: Any) -> str:
    """Where the pages are."""
    settings.ROOT_URLCONF, prefix = SITES[request.param]
    return prefix


@pytest.fixture
def strict_client(client: Client) -> Client:
    """A client that has to show its CSRF token, as a browser."""
    return Client(enforce_csrf_checks=True)


def rows() -> list[Any]:
    return list(MessageLog.objects.order_by("pk").values())


def allowed(permissions: tuple[str, ...], verb: str) -> bool:
    return {"view_messagelog", f"{verb}_messagelog"} <= set(permissions)


def try_everything(client: Client, root: str, make_task: MakeTask, permissions: tuple[str, ...]) -> None:
    """Does everything there is, and looks whether it was done."""
    for verb, name, action, status in ACTIONS:
        task, url = make_task(status=status), f"{root}carrot/{name}/"
        before, may = rows(), allowed(permissions, verb)
        asked = client.post(url, {"action": action, "_selected_action": [task.pk], "select_across": "0"})
        assert rows() == before, url
        if may:
            assert client.post(url, fields_of(asked)).status_code == 302, (url, action)
        else:
            assert "carrot-confirmation" not in asked.content.decode(), (url, action)
            forged = {"action": action, "_selected_action": [task.pk], "post": "yes", "question": "x"}
            assert client.post(url, forged).status_code in (200, 302, 403)
        assert (rows() != before) is may, (url, action)
    for verb, slug, status in BUTTONS:
        task = make_task(status=status)
        before, may, url = rows(), allowed(permissions, verb), f"{root}carrot/messagelog/{task.pk}/{slug}/"
        response = client.post(url)
        if may and slug == "delete":
            response = client.post(url, fields_of(response))
        assert response.status_code == (302 if may else 403), url
        assert (rows() != before) is may, url
        page = client.get(f"{root}carrot/messagelog/{make_task(status=status).pk}/change/").content.decode()
        assert (f"/{slug}/" in page) is may, url
    for verb, slug in TOOLS:
        make_task(status=Status.PUBLISHED)
        logged, may, url = LogEntry.objects.count(), allowed(permissions, verb), f"{root}carrot/queuedtask/{slug}/"
        assert client.get(url).status_code == (200 if may else 403), url
        assert client.post(url, {"queue": "queue:default"}).status_code == (302 if may else 403), url
        assert (LogEntry.objects.count() > logged) is may, url


@pytest.mark.parametrize("permissions", STAFF, ids="+".join)
def test_a_permission_opens_what_it_names_and_nothing_else(
    log_in: Any, make_task: MakeTask, root: str, permissions: tuple[str, ...]
) -> None:
    try_everything(log_in(*permissions), root, make_task, permissions)


def test_superusers_may_do_everything(log_in: Any, make_task: MakeTask, root: str) -> None:
    try_everything(log_in(superuser=True), root, make_task, EVERYTHING)


def addresses(root: str, task: MessageLog) -> list[str]:
    """Everything that changes something, and is told to."""
    lists = [f"{root}carrot/{name}/" for _verb, name, _action, _status in ACTIONS]
    buttons = [f"{root}carrot/messagelog/{task.pk}/{slug}/" for _verb, slug, _status in BUTTONS]
    return [*dict.fromkeys(lists), *buttons, *(f"{root}carrot/queuedtask/{slug}/" for _verb, slug in TOOLS)]


def test_nobody_does_anything_without_logging_in(client: Client, make_task: MakeTask, root: str) -> None:
    task = make_task(status=Status.FAILED)
    before = rows()

    for url in addresses(root, task):
        for response in (client.get(url), client.post(url, {**PRESS, "_selected_action": [task.pk]})):
            assert response.status_code == 302, url
            assert response["Location"].startswith(f"{root}login/"), url
    assert rows() == before


def test_people_who_are_no_staff_are_sent_to_the_login(
    client: Client, django_user_model: Any, make_task: MakeTask, root: str
) -> None:
    user = django_user_model.objects.create_user("visitor", password="secret", is_superuser=True)
    client.force_login(user)
    task = make_task(status=Status.FAILED)

    for url in addresses(root, task):
        assert client.post(url)["Location"].startswith(f"{root}login/"), url
    assert MessageLog.objects.get().status == Status.FAILED


def test_a_press_from_a_page_of_somebody_else_is_refused(
    strict_client: Client, django_user_model: Any, make_task: MakeTask, root: str
) -> None:
    django_user_model.objects.create_superuser("root", password="secret")
    assert strict_client.login(username="root", password="secret")
    task = make_task(status=Status.FAILED)
    before = rows()
    data = {"action": "requeue", "_selected_action": [task.pk], "post": "yes", "queue": "all"}

    for url in addresses(root, task):
        assert strict_client.post(url, data).status_code == 403, url
    assert rows() == before

    # with the tokens of the pages themselves all goes well
    page = text_of(strict_client.get(f"{root}carrot/messagelog/{task.pk}/change/"))
    form = page[page.index(f'action="{root}carrot/messagelog/{task.pk}/requeue/"') :]
    found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', form)
    assert found is not None
    token = {"csrfmiddlewaretoken": found.group(1)}
    asked = strict_client.post(f"{root}carrot/failedtask/", {**data, **token, "post": ""})
    fields = fields_of(asked)
    assert fields.pop("csrfmiddlewaretoken")
    assert strict_client.post(f"{root}carrot/failedtask/", {**fields, **token}).status_code == 302
    assert MessageLog.objects.get().status == Status.PUBLISHED


def test_looking_at_the_pages_of_actions_changes_nothing(log_in: Any, make_task: MakeTask, root: str) -> None:
    client = log_in(superuser=True)
    tasks = [make_task(status=status) for status in Status]
    before = rows()

    for task in tasks:
        for url in addresses(root, task):
            client.get(url, {**PRESS, "_selected_action": str(task.pk)})
    assert rows() == before
    assert not LogEntry.objects.exists()
