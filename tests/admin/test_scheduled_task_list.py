"""The list of schedules: what it shows, finds, and does."""

from __future__ import annotations

import re
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from carrot import clock
from carrot.models import MessageLog, Origin, ScheduledTask

from .conftest import LogIn, text_of
from .schedules import ADD, BASE, FAIL, GONE, SITES, UNREGISTERED, make_schedule, page


@pytest.fixture
def operator(log_in: LogIn) -> Client:
    return log_in("view_scheduledtask", "change_scheduledtask", "run_scheduledtask", "view_messagelog")


@pytest.fixture
def viewer(log_in: LogIn) -> Client:
    return log_in("view_scheduledtask", "view_messagelog")


def rows(response: Any) -> list[str]:
    """The names in the list, in order."""
    return re.findall(r'class="field-task_name[^"]*"><a[^>]*>([^<]*)</a>', text_of(response))


def found(client: Client, query: str) -> list[str]:
    return rows(client.get(f"{BASE}?{query}"))


def act(client: Client, action: str, *chosen: ScheduledTask, across: bool = False, base: str = BASE) -> Any:
    data = {"action": action, "_selected_action": [schedule.pk for schedule in chosen], "select_across": int(across)}
    return client.post(base, data, follow=True)


def told(response: Any) -> list[str]:
    return [unescape(re.sub("<[^>]*>", "", str(message))) for message in response.context["messages"]]


# -- what it shows ---------------------------------------------------------------------------------------------------


def test_a_row_says_what_runs_how_often_and_when(viewer: Client) -> None:
    schedule = make_schedule("sums", interval_type="minutes", interval_count=5)
    task = schedule.publish()
    text = text_of(viewer.get(BASE))

    assert 'title="tests.app.tasks.add">add</span>' in text
    assert "Every 5 minutes" in text
    assert re.search(r'field-active"><img src="[^"]*icon-yes.svg" alt="True"', text)
    assert schedule.next_run is not None
    assert f'datetime="{schedule.next_run.isoformat()}"' in text
    last = text.split('class="field-last')[1].split("</td>")[0]
    assert f'href="/admin/carrot/messagelog/{task.pk}/change/"' in last
    assert "Queued" in last
    assert f'href="{page(schedule)}' in text


def test_the_last_run_is_no_link_where_its_task_is_gone_or_may_not_be_seen(viewer: Client, log_in: LogIn) -> None:
    schedule = make_schedule()
    task = schedule.publish()

    assert "/messagelog/" not in text_of(log_in("view_scheduledtask").get(BASE)).split('id="result_list"')[1]
    task.delete()
    text = text_of(log_in("view_scheduledtask", "view_messagelog").get(BASE)).split('id="result_list"')[1]
    assert "/messagelog/" not in text
    assert 'class="carrot-time"' in text.split('class="field-last')[1].split("</td>")[0]


def test_an_inactive_schedule_has_no_next_run(viewer: Client) -> None:
    make_schedule()
    ScheduledTask.objects.update(active=False)  # past save(): the scheduler has not looked at it yet

    assert re.search(r'class="field-next[^"]*">–</td>', text_of(viewer.get(BASE)))


def test_what_is_wrong_is_shown(viewer: Client) -> None:
    make_schedule("a", task=GONE)
    make_schedule("b", task=GONE, origin=Origin.CODE)
    make_schedule("c", task=UNREGISTERED, args=[], origin=Origin.CODE)
    make_schedule("d", problem='<b>no</b> "amqp://u:geheim@host/"')
    text = text_of(viewer.get(BASE))

    assert text.count("not found") == 2
    assert "&lt;b&gt;no&lt;/b&gt; &quot;amqp://u:••••••@host/" in text
    assert "geheim" not in text


def test_an_empty_list_says_so(viewer: Client) -> None:
    assert "No task is scheduled." in text_of(viewer.get(BASE))
    assert "Nothing here matches" in text_of(viewer.get(f"{BASE}?q=x"))


def test_hostile_text_is_inert(operator: Client) -> None:
    bad = "<script>alert(1)</script>"
    schedule = make_schedule(bad, task=bad, queue=bad, exchange=bad, args=[bad], problem=bad)

    for url in (BASE, page(schedule), page(schedule, "history"), f"{BASE}?q={bad}&task={bad}&queue={bad}&active={bad}"):
        text = text_of(operator.get(url))
        assert bad not in text
        assert "<script>alert" not in text
    response = act(operator, "run_now", schedule)
    assert bad not in text_of(response)
    assert len(told(response)) == 1


def test_the_list_costs_the_same_whatever_its_length(viewer: Client) -> None:
    def cost() -> int:
        with CaptureQueriesContext(connection) as queries:
            text_of(viewer.get(BASE))
        assert not [query for query in queries.captured_queries if "kwargs" in query["sql"]]
        return len(queries)

    make_schedule("first").publish()
    few = cost()
    for number in range(30):
        make_schedule(f"more {number}").publish()
    assert cost() == few <= 7


# -- what it finds ---------------------------------------------------------------------------------------------------


def test_schedules_are_found_by_name_function_and_arguments(viewer: Client) -> None:
    make_schedule("nightly sums", args=[17], kwargs={"b": "Café"})
    make_schedule("mails", task=FAIL, args=["hello"])

    assert found(viewer, "q=NIGHTLY") == ["nightly sums"]
    assert found(viewer, "q=tasks.fail") == ["mails"]
    assert found(viewer, "q=17") == ["nightly sums"]
    assert found(viewer, "q=Caf%C3%A9+sums") == ["nightly sums"]
    assert found(viewer, "q=sums+hello") == []


def test_searching_finds_nothing_masked_but_for_those_who_see_it(viewer: Client, log_in: LogIn) -> None:
    make_schedule("by name", kwargs={"password": "geheim", "a": "open"}, args=[])
    make_schedule("by place", task="tests.admin.samples.log_in", args=["ada", "geheim"], origin=Origin.CODE)
    make_schedule("unknown", task=GONE, args=["geheim"])

    assert found(viewer, "q=geheim") == []
    assert found(viewer, "q=open") == ["by name"]
    assert found(viewer, "q=ada") == ["by place"]
    editor = log_in("change_scheduledtask")
    assert found(editor, "q=geheim") == ["by name", "by place", "unknown"]


def test_filters(viewer: Client) -> None:
    make_schedule("on")
    make_schedule("off", active=False, task=FAIL, args=[], queue="old")

    assert found(viewer, "active=yes") == ["on"]
    assert found(viewer, "active=no") == ["off"]
    assert found(viewer, "active=perhaps") == []
    assert found(viewer, f"task={ADD}") == ["on"]
    assert found(viewer, "queue=old") == ["off"]
    for lookup in ("kwargs__contains=x", "args__regex=x", "problem__startswith=x", "last_message__kwargs__regex=x"):
        assert viewer.get(f"{BASE}?{lookup}").status_code == 400


def test_the_list_is_sorted_by_name_or_as_asked(viewer: Client) -> None:
    make_schedule("b", interval_count=1)
    make_schedule("a", interval_count=2)

    assert found(viewer, "") == ["a", "b"]
    assert found(viewer, "o=4") == ["b", "a"]
    assert found(viewer, "o=-4") == ["a", "b"]


# -- what it does ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("urlconf", SITES)
def test_run_now_publishes_the_task_and_leaves_the_times(operator: Client, settings: Any, urlconf: str) -> None:
    settings.ROOT_URLCONF = urlconf
    schedule = make_schedule(active=False, priority=3)
    before = schedule.next_run
    response = act(operator, "run_now", schedule, base=f"{SITES[urlconf]}scheduledtask/")
    task = MessageLog.objects.get()

    assert (task.task, task.args, task.priority, task.origin) == (ADD, [1, 2], 3, Origin.ADMIN)
    assert told(response) == ["The task of “sums” was published. See the task"]
    assert f'href="{SITES[urlconf]}messagelog/{task.pk}/change/"' in text_of(response)
    schedule.refresh_from_db()
    assert (schedule.next_run, schedule.last_message_id) == (before, task.uuid)
    entry = LogEntry.objects.get()
    assert (entry.object_id, entry.change_message) == (str(schedule.pk), "Run now.")


def test_what_cannot_be_run_is_named_and_the_others_are_run(operator: Client) -> None:
    chosen = [make_schedule("good"), make_schedule("gone", task=GONE), make_schedule("fine")]
    chosen += [make_schedule(f"old {number}", queue="old") for number in range(6)]
    messages = told(act(operator, "run_now", *chosen))

    assert messages[0] == "2 tasks were published."
    assert len(messages) == 7
    assert any(text.startswith(f"“gone” was not run: Unknown task '{GONE}'") for text in messages)
    assert messages[-1] == "2 others were not run either."
    assert MessageLog.objects.count() == LogEntry.objects.count() == 2


def test_enable_and_disable_change_what_is_to_be_changed(operator: Client) -> None:
    on, off = make_schedule("on"), make_schedule("off", active=False)
    before = on.next_run

    assert told(act(operator, "enable", on, off)) == ["1 schedule was enabled. 1 had been active already."]
    on.refresh_from_db()
    off.refresh_from_db()
    assert on.next_run == before
    assert off.active
    assert off.next_run is not None
    assert off.next_run > clock.now() + timedelta(minutes=59)
    assert [(entry.object_repr, entry.change_message) for entry in LogEntry.objects.all()] == [("off", "Enabled.")]

    assert told(act(operator, "disable", on, off)) == ["2 schedules were disabled."]
    assert not ScheduledTask.objects.filter(active=True).exists()
    assert not ScheduledTask.objects.filter(next_run__isnull=False).exists()
    assert LogEntry.objects.filter(change_message="Disabled.").count() == 2


def test_actions_reach_all_that_match(operator: Client) -> None:
    ScheduledTask.objects.bulk_create(ScheduledTask(task_name=f"mails {n}", task=FAIL) for n in range(600))
    first = make_schedule("sums")
    response = operator.post(
        f"{BASE}?task={FAIL}",
        {
            "action": "disable",
            "_selected_action": [ScheduledTask.objects.exclude(pk=first.pk)[0].pk],
            "select_across": 1,
        },
        follow=True,
    )

    assert told(response) == ["600 schedules were disabled."]
    assert list(ScheduledTask.objects.filter(active=True)) == [first]
    [entry] = LogEntry.objects.all()
    assert (entry.object_repr, entry.change_message, entry.object_id) == ("600 scheduled tasks", "Disabled.", None)


def test_too_many_are_not_deleted_at_once(log_in: LogIn, settings: Any) -> None:
    client = log_in("view_scheduledtask", "delete_scheduledtask")
    ScheduledTask.objects.bulk_create(ScheduledTask(task_name=f"mails {n}", task=FAIL) for n in range(25))
    some = list(ScheduledTask.objects.all())
    settings.DATA_UPLOAD_MAX_NUMBER_FIELDS = 30

    messages = told(act(client, "delete_selected", some[0], across=True))
    assert messages == ["At most 20 schedules can be deleted at once. Select fewer, or filter the list."]
    text = text_of(act(client, "delete_selected", *some[:20]))
    assert text.count('name="_selected_action"') == 20
    data = {"action": "delete_selected", "_selected_action": [row.pk for row in some[:20]], "post": "yes"}
    assert told(client.post(BASE, data, follow=True)) == ["Successfully deleted 20 scheduled tasks."]
    assert ScheduledTask.objects.count() == 5
