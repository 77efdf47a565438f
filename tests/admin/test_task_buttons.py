"""The buttons of a task's page, each with an address of its own."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.messages import get_messages
from django.test import Client

from carrot import clock
from carrot.models import MessageLog, Status

from .conftest import LogIn, MakeTask, list_url, page_url, text_of
from .test_task_actions import EVERYTHING, fields_of, statuses

VERBS = ("requeue", "run-again", "withdraw", "delete")
OFFERED = {
    Status.WAITING: {"withdraw"},
    Status.PUBLISHED: {"withdraw"},
    Status.IN_PROGRESS: set(),
    Status.COMPLETED: {"run-again", "delete"},
    Status.FAILED: {"requeue", "delete"},
    Status.CANCELLED: {"requeue", "delete"},
    Status.HANDED_OVER: {"delete"},
}


@pytest.fixture
def operator(log_in: LogIn) -> Client:
    return log_in(*EVERYTHING)


def button_url(task: MessageLog, verb: str, query: str = "") -> str:
    return f"/admin/carrot/messagelog/{task.pk}/{verb}/{query}"


def said_after(response: Any) -> str:
    assert response.status_code == 302, response.content.decode()[:2000]
    return [str(message) for message in get_messages(response.wsgi_request)][-1]


@pytest.mark.parametrize("status", list(Status))
def test_a_page_offers_what_can_be_done_in_its_status(operator: Client, make_task: MakeTask, status: Status) -> None:
    task = make_task(status=status)

    text = text_of(operator.get(page_url(task)))

    assert {verb for verb in VERBS if f'"{button_url(task, verb)}"' in text} == OFFERED[status]
    assert text.count('class="deletelink"') == 0


@pytest.mark.parametrize("verb", ["requeue", "run-again", "withdraw"])
def test_a_button_takes_nothing_but_post(operator: Client, make_task: MakeTask, verb: str) -> None:
    for status in Status:
        task = make_task(status=status)
        for method in (operator.get, operator.head, operator.put, operator.options):
            assert method(button_url(task, verb)).status_code == 405
    assert statuses() == [str(status) for status in Status]


def test_a_failed_task_is_requeued_from_its_page(operator: Client, make_task: MakeTask) -> None:
    task = make_task(status=Status.FAILED, tries=1, exception="ValueError: once")

    response = operator.post(button_url(task, "requeue", "?_changelist_filters=q%3Dx"))

    assert response["Location"] == page_url(task, "?_changelist_filters=q%3Dx")
    assert said_after(response) == "1 task was requeued."
    assert statuses() == ["PUBLISHED"]
    text = text_of(operator.get(page_url(task)))
    assert "ValueError: once" in text  # as an earlier attempt
    assert LogEntry.objects.get().object_id == str(task.pk)

    assert said_after(operator.post(button_url(task, "requeue"))).endswith("1 task was skipped: status: Queued (1).")
    assert LogEntry.objects.count() == 1


def test_a_waiting_task_is_withdrawn_and_requeued(operator: Client, make_task: MakeTask) -> None:
    task = make_task(status=Status.PUBLISHED)
    assert said_after(operator.post(button_url(task, "withdraw"))) == "1 task was withdrawn."
    assert statuses() == ["CANCELLED"]
    assert said_after(operator.post(button_url(task, "requeue"))) == "1 task was requeued."
    assert statuses() == ["PUBLISHED"]


def test_running_again_leads_to_the_new_task_and_one_press_makes_one(operator: Client, make_task: MakeTask) -> None:
    old = make_task()
    found = re.search(r'name="token" value="(\w+)"', text_of(operator.get(page_url(old))))
    assert found is not None
    token = found.group(1)

    response = operator.post(button_url(old, "run-again"), {"token": token})
    new = MessageLog.objects.exclude(pk=old.pk).get()
    assert response["Location"] == page_url(new)

    response = operator.post(button_url(old, "run-again"), {"token": token})
    assert response["Location"] == page_url(new)
    assert said_after(response).endswith("run again already (1).")
    operator.post(button_url(old, "run-again"), {"token": "nonsense"})
    assert MessageLog.objects.count() == 3


@pytest.mark.parametrize("verb", ["requeue", "run-again", "withdraw", "delete"])
def test_a_task_that_is_gone_is_said_to_be_gone(operator: Client, db: None, verb: str) -> None:
    response = operator.post(f"/admin/carrot/messagelog/999999/{verb}/")

    assert response["Location"] == "/admin/"
    assert "999999" in said_after(response)


# -- deleting ----------------------------------------------------------------------------------------------------------


def test_deleting_asks_first_and_goes_back_to_the_list(operator: Client, make_task: MakeTask) -> None:
    task = make_task(status=Status.FAILED)
    url = button_url(task, "delete", "?_changelist_filters=q%3Dx")

    asked = operator.get(url)
    assert "Delete 1 task?" in text_of(asked)
    assert statuses() == ["FAILED"]
    operator.post(url)
    operator.post(url, {"post": "yes"})
    assert statuses() == ["FAILED"]

    response = operator.post(url, fields_of(asked))
    assert response["Location"] == list_url("failedtask", "?q=x")
    assert said_after(response) == "1 task was deleted."
    assert statuses() == []
    assert "Deleted." in LogEntry.objects.get().change_message


@pytest.mark.parametrize("status", [Status.WAITING, Status.PUBLISHED, Status.IN_PROGRESS])
def test_what_waits_or_runs_is_not_deleted(operator: Client, make_task: MakeTask, status: Status) -> None:
    task = make_task(status=status)

    asked = operator.get(button_url(task, "delete"))

    assert "1 task was skipped: status: " in said_after(operator.post(button_url(task, "delete"), fields_of(asked)))
    assert statuses() == [status]


def test_a_task_that_changed_since_the_question_is_not_deleted(operator: Client, make_task: MakeTask) -> None:
    task = make_task(status=Status.FAILED)
    asked = operator.get(button_url(task, "delete"))
    MessageLog.objects.filter(pk=task.pk).update(state_at=clock.now())

    response = operator.post(button_url(task, "delete"), fields_of(asked))

    assert "changed since you were asked" in said_after(response)
    assert statuses() == ["FAILED"]


@pytest.mark.parametrize("name", ["failedtask", "completedtask", "queuedtask"])
def test_addresses_of_the_other_lists_lead_to_the_tasks_page(operator: Client, make_task: MakeTask, name: str) -> None:
    task = make_task(status=Status.FAILED)

    response = operator.post(f"/admin/carrot/{name}/{task.pk}/delete/", {"post": "yes"})

    assert response["Location"] == page_url(task)
    assert statuses() == ["FAILED"]
