"""The actions of the lists: they ask, with the number, and then do exactly that."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.contrib.messages import get_messages
from django.db import DEFAULT_DB_ALIAS, connections
from django.test import Client

from carrot import admin as carrot_admin
from carrot import clock, models, operations
from carrot.admin import carrying_out, confirmation
from carrot.admin.ranges import MomentRangeFilter
from carrot.message import uuid7
from carrot.models import MessageLog, Status

from .conftest import LogIn, MakeTask, list_url, new_task, text_of

#: What each list offers; the other lists of the monitor offer nothing.
ACTIONS = {
    "MessageLogAdmin": ("requeue", "run_again", "withdraw", "delete_selected"),
    "QueuedTaskAdmin": ("withdraw",),
    "RunningTaskAdmin": (),
    "FailedTaskAdmin": ("requeue", "delete_selected"),
    "CompletedTaskAdmin": ("run_again", "delete_selected"),
    "DelayedTaskAdmin": ("withdraw",),
}

EVERYTHING = (
    "view_messagelog",
    "requeue_messagelog",
    "withdraw_messagelog",
    "run_again_messagelog",
    "purge_messagelog",
    "delete_messagelog",
)


@pytest.fixture
def operator(log_in: LogIn) -> Client:
    """Somebody who may do everything to tasks."""
    return log_in(*EVERYTHING)


def ask(client: Client, name: str, action: str, pks: list[int], query: str = "", *, across: bool = False) -> Any:
    data = {"action": action, "_selected_action": pks, "select_across": "1" if across else "0"}
    return client.post(list_url(name, query), data)


def fields_of(response: Any) -> dict[str, list[str]]:
    """What the form of a confirmation page would send."""
    text = text_of(response)
    form = text[text.rindex('<form method="post">') :]
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)"', form):
        found.setdefault(name, []).append(html.unescape(value))
    return found


def confirm(client: Client, asked: Any, name: str, query: str = "") -> list[str]:
    """Presses the button of a confirmation page; the messages on the page that follows."""
    response = client.post(list_url(name, query), fields_of(asked))
    assert response.status_code == 302, response.content.decode()[:2000]
    assert response["Location"] == list_url(name, query)
    return [str(message) for message in get_messages(response.wsgi_request)]


def do(client: Client, name: str, action: str, pks: list[int], query: str = "", *, across: bool = False) -> list[str]:
    return confirm(client, ask(client, name, action, pks, query, across=across), name, query)


def statuses() -> list[str]:
    return list(MessageLog.objects.order_by("pk").values_list("status", flat=True))


# -- the declarations --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ACTIONS)
def test_what_a_list_has_is_declared_on_its_class(name: str) -> None:
    declared: Any = getattr(carrot_admin, name)

    assert declared.actions == ACTIONS[name]
    assert declared.search_fields == ("task", "args", "kwargs", "uuid", "exception")
    for field in ("publish_time", "completion_time", "failure_time"):
        assert (field, MomentRangeFilter) in declared.list_filter
    for action in declared.actions:
        method = getattr(declared, action)
        assert method.allowed_permissions == [action.removesuffix("_selected")]
        assert method.short_description
        assert callable(getattr(declared, f"has_{method.allowed_permissions[0]}_permission"))


def test_each_verb_has_a_permission_of_its_own(db: None) -> None:
    from django.contrib.auth.models import Permission

    found = Permission.objects.filter(content_type__model="messagelog").values_list("codename", flat=True)

    assert set(EVERYTHING) <= set(found)


@pytest.mark.parametrize("name", ["queuedtask", "runningtask", "delayedtask", "workerprocess", "straymessage"])
def test_the_action_of_the_site_to_delete_is_nowhere(log_in: LogIn, make_task: MakeTask, name: str) -> None:
    for status in Status:
        make_task(status=status)

    assert "delete_selected" not in text_of(log_in(superuser=True).get(list_url(name)))


# -- one after the other -----------------------------------------------------------------------------------------------


def test_selected_failures_are_requeued_once_it_is_confirmed(operator: Client, make_task: MakeTask) -> None:
    tasks = [make_task(status=Status.FAILED, exception="ValueError") for _ in range(3)]

    asked = ask(operator, "failedtask", "requeue", [tasks[0].pk, tasks[1].pk])
    text = text_of(asked)
    assert "Requeue 2 tasks?" in text
    assert str(tasks[0].uuid) in text
    assert str(tasks[2].uuid) not in text
    assert statuses() == ["FAILED"] * 3

    assert confirm(operator, asked, "failedtask") == ["2 tasks were requeued."]
    assert statuses() == ["PUBLISHED", "PUBLISHED", "FAILED"]
    entries = LogEntry.objects.order_by("object_id")
    assert [(entry.object_id, entry.action_flag, entry.change_message) for entry in entries] == [
        (str(tasks[0].pk), CHANGE, "Requeued."),
        (str(tasks[1].pk), CHANGE, "Requeued."),
    ]
    assert "Requeued." in text_of(operator.get(f"/admin/carrot/messagelog/{tasks[0].pk}/history/"))


@pytest.mark.parametrize(
    ("name", "action", "before", "after", "message"),
    [
        ("failedtask", "requeue", Status.FAILED, [Status.PUBLISHED], "1 task was requeued."),
        ("messagelog", "requeue", Status.CANCELLED, [Status.PUBLISHED], "1 task was requeued."),
        ("queuedtask", "withdraw", Status.PUBLISHED, [Status.CANCELLED], "1 task was withdrawn."),
        ("delayedtask", "withdraw", Status.WAITING, [Status.CANCELLED], "1 task was withdrawn."),
        ("messagelog", "withdraw", Status.PUBLISHED, [Status.CANCELLED], "1 task was withdrawn."),
        (
            "completedtask",
            "run_again",
            Status.COMPLETED,
            [Status.COMPLETED, Status.PUBLISHED],
            "1 task was published again.",
        ),
        ("failedtask", "delete_selected", Status.FAILED, [], "1 task was deleted."),
        ("completedtask", "delete_selected", Status.COMPLETED, [], "1 task was deleted."),
        ("messagelog", "delete_selected", Status.HANDED_OVER, [], "1 task was deleted."),
    ],
)
def test_every_action_does_what_it_says(
    operator: Client, make_task: MakeTask, name: str, action: str, before: str, after: list[str], message: str
) -> None:
    task = make_task(status=before)

    assert do(operator, name, action, [task.pk]) == [message]

    assert statuses() == after
    entry = LogEntry.objects.get()
    assert entry.object_id == str(task.pk)
    assert entry.action_flag == (DELETION if "delete" in action else CHANGE)
    assert entry.content_type == ContentType.objects.get_for_model(MessageLog)


def test_what_was_skipped_is_said_with_its_reason(operator: Client, make_task: MakeTask) -> None:
    tasks = [make_task(status=Status.FAILED), make_task(status=Status.COMPLETED), make_task(status=Status.IN_PROGRESS)]
    tasks.append(make_task(status=Status.FAILED, queue="gone"))

    (said,) = do(operator, "messagelog", "requeue", [task.pk for task in tasks])

    assert said.startswith("1 task was requeued. 3 tasks were skipped: ")
    for reason in ("status: Completed (1)", "status: Running (1)", "queue gone is not in the settings any more (1)"):
        assert reason in said
    assert LogEntry.objects.count() == 1


def test_of_many_reasons_the_commonest_are_told(operator: Client, make_task: MakeTask) -> None:
    tasks = [
        make_task(status=Status.FAILED, queue=f"gone-{number}") for number in (*range(carrying_out.REASONS), 0, 99)
    ]

    (said,) = do(operator, "failedtask", "requeue", [task.pk for task in tasks])

    assert said.startswith(
        "Nothing was changed. 12 tasks were skipped: queue gone-0 is not in the settings any more (2); "
    )
    assert said.count("any more") == carrying_out.REASONS
    assert said.endswith("; ….")


def test_a_completed_task_runs_again_as_a_new_one(operator: Client, make_task: MakeTask) -> None:
    old = make_task(args=[1, "Café"], kwargs={"a": [1]}, priority=4, exchange="x", routing_key="r", origin="admin")

    do(operator, "completedtask", "run_again", [old.pk])

    new = MessageLog.objects.exclude(pk=old.pk).get()
    for name in ("task", "args", "kwargs", "priority", "queue", "exchange", "routing_key", "origin"):
        assert getattr(new, name) == getattr(old, name), name
    assert new.uuid.version == 7
    assert new.status == Status.PUBLISHED


def test_a_row_whose_arguments_cannot_be_read_does_not_stand_in_the_way(operator: Client, make_task: MakeTask) -> None:
    from django.db import connection

    good, bad = make_task(), make_task()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE carrot_messagelog SET args = 'oops' WHERE id = %s", [bad.pk])

    (said,) = do(operator, "completedtask", "run_again", [good.pk, bad.pk])

    assert said == "1 task was published again. 1 task was skipped: its arguments cannot be read (1)."


# -- pressing twice, and what happens in between -----------------------------------------------------------------------


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize(
    ("name", "action", "status"),
    [
        ("failedtask", "requeue", Status.FAILED),
        ("messagelog", "requeue", Status.FAILED),
        ("queuedtask", "withdraw", Status.PUBLISHED),
        ("completedtask", "run_again", Status.COMPLETED),
        ("completedtask", "delete_selected", Status.COMPLETED),
    ],
)
def test_pressing_twice_does_it_once(
    operator: Client, make_task: MakeTask, name: str, action: str, status: str, across: bool
) -> None:
    tasks = [make_task(status=status) for _ in range(2)]
    asked = ask(operator, name, action, [task.pk for task in tasks], across=across)

    confirm(operator, asked, name)
    after = list(MessageLog.objects.order_by("pk").values())
    (said,) = confirm(operator, asked, name)[-1:]

    assert list(MessageLog.objects.order_by("pk").values()) == after
    assert said.startswith("Nothing was changed. 2 tasks were skipped: ")
    assert LogEntry.objects.count() == 2


@pytest.mark.parametrize("name", ["failedtask", "messagelog"])
def test_what_arrives_after_the_question_is_left_alone(operator: Client, make_task: MakeTask, name: str) -> None:
    first = make_task(status=Status.FAILED)
    again = make_task(status=Status.FAILED)
    asked = ask(operator, name, "requeue", [first.pk], across=True)
    assert "Requeue 2 tasks?" in text_of(asked)
    late = make_task(status=Status.FAILED)
    backdated = make_task(status=Status.FAILED, state_at=first.state_at)
    MessageLog.objects.filter(pk=again.pk).update(state_at=clock.now())  # requeued by somebody, and failed again

    (said,) = confirm(operator, asked, name)

    assert said == "1 task was requeued. 1 task was skipped: changed since you were asked (1)."
    assert statuses() == ["PUBLISHED", "FAILED", "FAILED", "FAILED"]
    assert {late.pk, backdated.pk} <= set(MessageLog.objects.filter(status="FAILED").values_list("pk", flat=True))


def test_the_answer_to_another_question_only_asks_again(
    operator: Client, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(status=Status.FAILED)
    asked = ask(operator, "failedtask", "requeue", [task.pk])
    fields = fields_of(asked)

    for wrong in (
        {"question": [""]},
        {"question": ["x" * 5000]},
        {"question": [fields["question"][0] + "x"]},
        {"action": ["delete_selected"]},
        {"post": [""]},
    ):
        assert "?</h1>" in text_of(operator.post(list_url("failedtask"), {**fields, **wrong}))
    monkeypatch.setattr(confirmation, "MAX_AGE", -1)
    assert "?</h1>" in text_of(operator.post(list_url("failedtask"), fields))
    assert statuses() == ["FAILED"]


# -- all that match ----------------------------------------------------------------------------------------------------


def test_all_that_match_the_filter_and_the_search_are_named_in_words(operator: Client, make_task: MakeTask) -> None:
    wanted = [make_task(status=Status.FAILED, exception="ConnectionError: <b>", priority=3) for _ in range(2)]
    others = [make_task(status=Status.FAILED, exception="ValueError", priority=3)]
    others.append(make_task(status=Status.FAILED, exception="ConnectionError", priority=4))
    query = "?q=ConnectionError&priority=3&queue=default&failure_time__range__gte_0=2020-01-02"

    asked = ask(operator, "failedtask", "requeue", [wanted[0].pk], query, across=True)
    text = html.unescape(text_of(asked))
    assert "Requeue 2 tasks?" in text
    assert (
        "Failed tasks: queue: default; failed from 2020-01-02 00:00:00; priority: 3; search: “ConnectionError”" in text
    )

    assert confirm(operator, asked, "failedtask", query) == ["2 tasks were requeued."]
    assert statuses() == ["PUBLISHED", "PUBLISHED", "FAILED", "FAILED"]


def test_an_invalid_range_acts_on_nothing(operator: Client, make_task: MakeTask) -> None:
    task = make_task(status=Status.FAILED)
    query = "?failure_time__range__gte_0=nonsense"

    response = ask(operator, "failedtask", "requeue", [task.pk], query, across=True)

    assert response.status_code == 302
    assert statuses() == ["FAILED"]


def test_a_masked_value_cannot_be_guessed_by_an_action(operator: Client, make_task: MakeTask) -> None:
    task = make_task(status=Status.FAILED, kwargs={"password": "hunter2"})

    for across in (False, True):
        response = ask(operator, "failedtask", "requeue", [task.pk], "?q=hunter", across=across)
        assert response.status_code == 302
    response = ask(operator, "failedtask", "requeue", [task.pk], "?kwargs__contains=hunter", across=True)
    assert response.status_code in (302, 400)
    assert statuses() == ["FAILED"]


def test_a_confirmation_page_stays_small(operator: Client, make_task: MakeTask) -> None:
    MessageLog.objects.bulk_create([new_task(status=Status.FAILED) for _ in range(300)])
    pks = list(MessageLog.objects.values_list("pk", flat=True))

    across = fields_of(ask(operator, "failedtask", "requeue", pks[:100], across=True))
    assert len(across["_selected_action"]) == 1
    some = ask(operator, "failedtask", "requeue", pks[:100])
    assert len(fields_of(some)["_selected_action"]) == 100
    assert "and 80 more" in text_of(some)


def test_a_hundred_are_logged_one_by_one_and_more_in_one_entry(operator: Client, db: None) -> None:
    MessageLog.objects.bulk_create([new_task(status=Status.FAILED) for _ in range(100)])
    pk = MessageLog.objects.values_list("pk", flat=True)[0]
    do(operator, "failedtask", "delete_selected", [pk], across=True)
    assert LogEntry.objects.count() == 100

    LogEntry.objects.all().delete()
    MessageLog.objects.bulk_create([new_task(status=Status.FAILED) for _ in range(101)])
    pk = MessageLog.objects.values_list("pk", flat=True)[0]
    assert (
        do(operator, "failedtask", "delete_selected", [pk], "?queue=default", across=True)[-1]
        == "101 tasks were deleted."
    )
    entry = LogEntry.objects.get()
    assert (entry.object_id, entry.action_flag) == (None, DELETION)
    assert entry.change_message == "101 tasks were deleted. Failed tasks: queue: default"
    assert entry.content_type == ContentType.objects.get_for_model(MessageLog)


@pytest.mark.parametrize(
    ("status", "action", "cure"),
    [
        (Status.FAILED, "delete_selected", "repeat the action for them"),
        (Status.COMPLETED, "run_again", "filter the list for them"),  # those it reached would run once more
    ],
)
def test_work_that_takes_too_long_stops_and_says_so(
    operator: Client, db: None, monkeypatch: pytest.MonkeyPatch, status: Status, action: str, cure: str
) -> None:
    monkeypatch.setattr(carrying_out, "TIME", -1.0)
    MessageLog.objects.bulk_create([new_task(status=status) for _ in range(101)])
    pk = MessageLog.objects.values_list("pk", flat=True)[0]

    (said,) = do(operator, f"{status.lower()}task", action, [pk], across=True)

    assert said == f"Nothing was changed. 101 tasks were skipped: not reached in the time of one request; {cure} (101)."
    assert MessageLog.objects.count() == 101
    assert LogEntry.objects.count() == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "action", "status", "after"),
    [
        ("failedtask", "requeue", Status.FAILED, {"PUBLISHED": 12_000, "FAILED": 7}),
        ("failedtask", "delete_selected", Status.FAILED, {"FAILED": 7}),
        ("queuedtask", "withdraw", Status.PUBLISHED, {"CANCELLED": 12_000, "PUBLISHED": 7}),
        ("completedtask", "run_again", Status.COMPLETED, {"PUBLISHED": 12_000, "COMPLETED": 12_007}),
    ],
)
def test_twelve_thousand_at_once(
    operator: Client, db: None, monkeypatch: pytest.MonkeyPatch, name: str, action: str, status: str, after: Any
) -> None:
    monkeypatch.setattr(carrying_out, "TIME", 300.0)  # of a machine that has other things to do as well
    rows = (new_task(status=status, uuid=uuid7(), args=[1, 2]) for _ in range(12_000))
    MessageLog.objects.bulk_create(rows, batch_size=500)
    pk = MessageLog.objects.values_list("pk", flat=True)[0]

    page = text_of(operator.get(list_url(name)))
    assert "Select all 10,000+" in page
    asked = ask(operator, name, action, [pk], across=True)
    assert "at least 10,000 tasks" in text_of(asked)
    MessageLog.objects.bulk_create([new_task(status=status) for _ in range(7)])
    (said,) = confirm(operator, asked, name)

    assert said.startswith("12,000 tasks were ")
    assert {value: MessageLog.objects.filter(status=value).count() for value in after} == after
    assert LogEntry.objects.count() == 1


def test_every_model_of_the_monitor_is_known_to_these_tests() -> None:
    assert {type(admin).__name__ for admin in _admins()} == set(ACTIONS)


def _admins() -> list[Any]:
    from django.contrib.admin import site

    rows = (
        models.MessageLog,
        models.QueuedTask,
        models.RunningTask,
        models.FailedTask,
        models.CompletedTask,
        models.DelayedTask,
    )
    return [site.get_model_admin(model) for model in rows]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", ["failedtask", "messagelog"])
def test_each_slice_is_a_transaction_of_its_own_whatever_the_project_wants_of_requests(
    operator: Client, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    tasks = [make_task(status=Status.FAILED) for _ in range(3)]
    asked = ask(operator, name, "requeue", [task.pk for task in tasks])
    monkeypatch.setitem(connections.settings[DEFAULT_DB_ALIAS], "ATOMIC_REQUESTS", True)
    monkeypatch.setattr(carrying_out, "LOGGED_EACH", 1)
    monkeypatch.setattr(carrying_out, "SLICE", 1)
    requeue, calls = operations.requeue, []

    def fails_at_last(ids: Any) -> operations.Result:
        calls.append(ids)
        if len(calls) == 3:
            raise ValueError("the end of the request")
        return requeue(ids)

    monkeypatch.setattr(operations, "requeue", fails_at_last)
    operator.raise_request_exception = False

    assert operator.post(list_url(name), fields_of(asked)).status_code == 500
    assert statuses() == ["PUBLISHED", "PUBLISHED", "FAILED"]
    assert LogEntry.objects.get().change_message.startswith("2 tasks were requeued.")
