"""Who may see, add, change, delete and run schedules, on both sites."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client

from carrot.models import MessageLog, Origin, ScheduledTask

from .conftest import LogIn, text_of
from .schedules import ADD, BASE, SITES, form_of, make_schedule, page


@pytest.fixture(params=SITES)
def base(request: pytest.FixtureRequest, settings: Any) -> str:
    """The address of the schedules, on each site in turn."""
    settings.ROOT_URLCONF = request.param
    return f"{SITES[request.param]}scheduledtask/"


def test_anybody_has_to_log_in(db: None, client: Client, base: str) -> None:
    schedule = make_schedule()
    for url in (base, f"{base}add/", *(page(schedule, view, base) for view in ("change", "delete", "history", "run"))):
        for response in (client.get(url), client.post(url)):
            assert response.status_code == 302
            assert "/login/" in response["Location"]


#: What each permission opens: of the pages, the list, the form of a new one, the page, its deletion, and the run.
OPENED = {
    "view": {"list", "page"},
    "add": {"add"},
    "change": {"list", "page"},
    "delete": {"delete"},
    "run": {"run"},
}


@pytest.mark.parametrize("permission", OPENED)
def test_each_permission_opens_what_it_names(log_in: LogIn, base: str, permission: str) -> None:
    client = log_in(f"{permission}_scheduledtask")
    schedule = make_schedule()
    answers = {
        "list": client.get(base),
        "add": client.get(f"{base}add/"),
        "page": client.get(page(schedule, base=base)),
        "delete": client.get(page(schedule, "delete", base)),
        "run": client.post(page(schedule, "run", base)),
    }

    assert {name for name, response in answers.items() if response.status_code != 403} == OPENED[permission]
    assert MessageLog.objects.count() == (permission == "run")


@pytest.mark.parametrize("permission", ["view", "add", "delete", "run"])
def test_without_the_permission_to_change_nothing_is_changed(log_in: LogIn, base: str, permission: str) -> None:
    client = log_in("view_scheduledtask", f"{permission}_scheduledtask")
    schedule = make_schedule()
    before = list(ScheduledTask.objects.values())

    url = page(schedule, base=base)
    assert client.post(url, form_of(schedule, task_name="mine")).status_code == 403
    for action in ("enable", "disable"):
        client.post(base, {"action": action, "_selected_action": schedule.pk})
    assert list(ScheduledTask.objects.values()) == before
    text = text_of(client.get(url))
    assert 'name="_save"' not in text
    assert 'value="disable"' not in text_of(client.get(base))


def test_without_the_permission_to_run_nothing_is_run(log_in: LogIn, base: str) -> None:
    client = log_in(*(f"{name}_scheduledtask" for name in ("view", "add", "change", "delete")))
    schedule = make_schedule()

    assert 'value="run_now"' not in text_of(client.get(base))
    client.post(base, {"action": "run_now", "_selected_action": schedule.pk})
    assert client.post(page(schedule, "run", base)).status_code == 403
    assert "/run/" not in text_of(client.get(page(schedule, base=base)))
    assert not MessageLog.objects.exists()


def test_without_the_permissions_to_add_and_delete_neither_happens(log_in: LogIn, base: str) -> None:
    client = log_in("view_scheduledtask", "change_scheduledtask", "run_scheduledtask")
    schedule = make_schedule()

    assert client.post(f"{base}add/", form_of()).status_code == 403
    assert client.post(page(schedule, "delete", base), {"post": "yes"}).status_code == 403
    client.post(base, {"action": "delete_selected", "_selected_action": schedule.pk, "post": "yes"})
    assert ScheduledTask.objects.count() == 1


def test_the_whole_life_of_a_schedule(log_in: LogIn, base: str) -> None:
    client = log_in(*(f"{name}_scheduledtask" for name in ("view", "add", "change", "delete", "run")))

    response = client.post(f"{base}add/", form_of())
    assert response["Location"] == base
    schedule = ScheduledTask.objects.get()
    response = client.post(page(schedule, base=base), form_of(schedule, priority="4"))
    assert response["Location"] == base
    assert ScheduledTask.objects.get().priority == 4
    assert client.post(page(schedule, "delete", base), {"post": "yes"}).status_code == 302
    assert not ScheduledTask.objects.exists()
    second, third = make_schedule("b"), make_schedule("c")
    client.post(base, {"action": "delete_selected", "_selected_action": [second.pk, third.pk], "post": "yes"})
    assert not ScheduledTask.objects.exists()
    assert LogEntry.objects.count() == 5


# -- the button ------------------------------------------------------------------------------------------------------


def test_the_button_runs_the_schedule_and_comes_back(log_in: LogIn, base: str) -> None:
    client = log_in("view_scheduledtask", "run_scheduledtask", "view_messagelog")
    schedule = make_schedule(active=False)
    text = text_of(client.get(page(schedule, base=base)))
    [form] = re.findall(r'<form method="post" action="([^"]*)" class="carrot-tool">', text)

    response = client.post(form, follow=True)
    task = MessageLog.objects.get()
    assert (task.task, task.args, task.origin) == (ADD, [1, 2], Origin.ADMIN)
    assert response.redirect_chain == [(page(schedule, base=base), 302)]
    assert "The task of “sums” was published." in text_of(response)
    assert LogEntry.objects.get().change_message == "Run now."


def test_how_a_schedule_ended_last_is_told_to_those_who_may_see_tasks(log_in: LogIn, base: str) -> None:
    schedule = make_schedule()
    task = schedule.publish()
    MessageLog.objects.filter(pk=task.pk).update(status="FAILED")
    mark = "carrot-status-failed"

    for url in (base, page(schedule, base=base)):
        text = text_of(log_in("view_scheduledtask").get(url))
        assert f"{schedule.last_run:%Y-%m-%d}" in text
        assert mark not in text
        assert mark in text_of(log_in("view_scheduledtask", "view_messagelog").get(url))


def test_the_button_wants_a_post_with_a_token(log_in: LogIn, base: str) -> None:
    client = log_in("run_scheduledtask")
    schedule = make_schedule()
    url = page(schedule, "run", base)

    assert client.get(url).status_code == 405
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = client.cookies
    assert strict.post(url).status_code == 403
    assert client.post(url.replace(f"/{schedule.pk}/", "/12345/")).status_code == 404
    assert client.post(url.replace(f"/{schedule.pk}/", "/x/y/")).status_code == 404
    assert not MessageLog.objects.exists()
    assert client.post(url).status_code == 302


def test_decorators_close_every_page_and_verb(log_in: LogIn, base: str, settings: Any) -> None:
    client = log_in(superuser=True)
    schedule = make_schedule()
    settings.CARROT = {
        "default_broker": "database://",
        "monitor_authentication": ["tests.admin.decorators.nobody"],
    }
    for url in (base, f"{base}add/", *(page(schedule, view, base) for view in ("change", "delete", "history", "run"))):
        assert client.get(url).status_code == client.post(url, form_of()).status_code == 451, url
    client.post(base, {"action": "run_now", "_selected_action": schedule.pk})
    assert not MessageLog.objects.exists()


# -- what is masked --------------------------------------------------------------------------------------------------


def test_secrets_are_shown_to_those_who_may_change_them(log_in: LogIn, base: str) -> None:
    schedule = make_schedule(
        task="tests.admin.samples.log_in", args=["ada", "geheim1"], kwargs={"token": "geheim2"}, origin=Origin.CODE
    )
    gone = make_schedule("gone", task="no.such.function", args=["geheim3"], kwargs={"url": "amqp://u:geheim4@h/"})

    viewer = log_in("view_scheduledtask", "run_scheduledtask", "delete_scheduledtask")
    for each in (schedule, gone):
        for view in ("change", "delete", "history"):
            assert "geheim" not in text_of(viewer.get(page(each, view, base)))
    assert "geheim" not in text_of(viewer.get(base))
    assert "ada" in text_of(viewer.get(page(schedule, base=base)))
    editor = log_in("change_scheduledtask")
    assert "geheim1" in text_of(editor.get(page(schedule, base=base)))
    assert "geheim2" in text_of(editor.get(page(schedule, base=base)))


def test_the_address_of_a_schedule_that_is_gone_leads_back(log_in: LogIn) -> None:
    client = log_in("view_scheduledtask")

    for key in ("12345", "x", "1/2"):
        assert client.get(f"{BASE}{key}/change/").status_code == 302
