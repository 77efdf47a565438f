"""Filters and ranges of the lists."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import DjangoAssertNumQueries

from carrot.admin import MessageLogAdmin
from carrot.admin.filters import PriorityFilter, QueueFilter, TaskFilter, VirtualHostFilter
from carrot.admin.ranges import MomentRangeFilter
from carrot.models import Status

from .conftest import MakeTask, list_url, text_of
from .test_lists import tasks_in

NOON = datetime(2026, 5, 4, 12, 0, 0, tzinfo=timezone.utc)


def shown(client: Client, query: str, name: str = "messagelog") -> list[int]:
    return tasks_in(text_of(client.get(list_url(name, query))))


def test_the_lists_declare_their_filters_and_search() -> None:
    assert MessageLogAdmin.search_fields == ("task", "args", "kwargs", "uuid", "exception")
    for name in ("publish_time", "completion_time", "failure_time"):
        assert (name, MomentRangeFilter) in MessageLogAdmin.list_filter
    for each in (QueueFilter, TaskFilter, PriorityFilter, VirtualHostFilter):
        assert each in MessageLogAdmin.list_filter


def test_filters_by_queue_task_priority_virtual_host_and_status(viewer: Client, make_task: MakeTask) -> None:
    task = make_task(
        queue="q1", task="shop.tasks.pay", priority=7, broker="amqp://host:5672/shop", status=Status.FAILED
    )
    make_task()

    for query in (
        "queue=q1",
        "task=shop.tasks.pay",
        "priority=7",
        "virtual_host=amqp://host:5672/shop",
        "status=FAILED",
        "status=FAILED&queue=q1&priority=7",
    ):
        assert shown(viewer, f"?{query}") == [task.pk], query
    assert shown(viewer, "?priority=high") == []
    assert shown(viewer, "?priority=99999999999") == []


def test_choices_come_from_settings_and_registry_without_a_query(
    viewer: Client, make_task: MakeTask, settings: Any
) -> None:
    settings.CARROT = {
        "default_broker": "database://",
        "queues": [{"name": "default"}, {"name": "mails", "host": "amqp://app:swordfish@rabbit.example/shop"}],
    }
    make_task()

    with CaptureQueriesContext(connection) as queries:
        text = text_of(viewer.get(list_url("messagelog")))

    assert "?queue=mails" in text
    assert "?task=tests.app.tasks.add" in text
    assert "?virtual_host=amqp%3A%2F%2Frabbit.example%3A5672%2Fshop" in text
    assert "swordfish" not in text
    assert not [query["sql"] for query in queries if "DISTINCT" in query["sql"]]


def test_a_value_that_is_no_choice_is_shown_as_chosen(viewer: Client, make_task: MakeTask) -> None:
    task = make_task(queue="old-queue")

    text = text_of(viewer.get(list_url("messagelog", "?queue=old-queue")))

    assert tasks_in(text) == [task.pk]
    assert "old-queue (not in the settings)" in text


@pytest.mark.parametrize(
    ("name", "field"),
    [("messagelog", "publish_time"), ("completedtask", "completion_time"), ("failedtask", "failure_time")],
)
def test_a_range_includes_both_of_its_ends(viewer: Client, make_task: MakeTask, name: str, field: str) -> None:
    status = Status.FAILED if name == "failedtask" else Status.COMPLETED
    at = [NOON + timedelta(seconds=seconds) for seconds in (-1, 0, 10.75, 11)]
    tasks = [make_task(status=status, **{field: moment}).pk for moment in at]

    def between(*parts: str) -> list[int]:
        names = ("gte_0", "gte_1", "lte_0", "lte_1")
        query = "&".join(f"{field}__range__{part}={value}" for part, value in zip(names, parts, strict=True))
        return sorted(shown(viewer, f"?{query}", name))

    assert between("2026-05-04", "12:00:00", "2026-05-04", "12:00:10") == tasks[1:3]
    assert between("2026-05-04", "12:00:00", "", "") == tasks[1:]
    assert between("", "", "2026-05-04", "11:59:59") == tasks[:1]
    assert between("", "", "", "") == tasks


def test_a_day_alone_means_all_of_it(viewer: Client, make_task: MakeTask) -> None:
    day = NOON.replace(hour=0)
    tasks = [make_task(publish_time=day + timedelta(hours=hours)).pk for hours in (-0.001, 0, 23.9999, 24)]

    query = "?publish_time__range__gte_0=2026-05-04&publish_time__range__lte_0=2026-05-04"

    assert sorted(shown(viewer, query)) == tasks[1:3]


@pytest.mark.parametrize(
    "query",
    [
        "publish_time__range__gte_0=nonsense",
        "publish_time__range__gte_0=2026-13-45&publish_time__range__gte_1=00:00:00",
        "publish_time__range__gte_1=12:00:00",
        "publish_time__range__lte_0=2026-05-04&publish_time__range__lte_1=25:00",
        "publish_time__range__gte_0=2026-05-05&publish_time__range__lte_0=2026-05-04",
    ],
)
def test_a_range_that_is_not_valid_shows_nothing_and_says_so(viewer: Client, make_task: MakeTask, query: str) -> None:
    make_task(publish_time=NOON)

    text = text_of(viewer.get(list_url("messagelog", f"?{query}")))

    assert tasks_in(text) == []
    assert "Nothing is shown, because the range of “published” is not valid." in text


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
@pytest.mark.parametrize("value", ["lte_0=9999-12-31", "lte_0=9999-12-30", "gte_0=0001-01-01", "gte_0=0001-01-02"])
def test_a_moment_at_the_end_of_the_calendar_is_no_error(
    viewer: Client, make_task: MakeTask, settings: Any, zone: str, value: str
) -> None:
    settings.TIME_ZONE = zone
    task = make_task()
    beyond = (zone, value) in (("America/New_York", "lte_0=9999-12-31"), ("Asia/Tokyo", "gte_0=0001-01-01"))

    text = text_of(viewer.get(list_url("messagelog", f"?publish_time__range__{value}")))

    assert tasks_in(text) == ([] if beyond else [task.pk])
    assert ("is not valid" in text) is beyond


def test_a_range_keeps_search_and_other_filters(viewer: Client, make_task: MakeTask) -> None:
    make_task()

    text = text_of(viewer.get(list_url("messagelog", "?queue=default&q=add&o=6")))

    form = text.partition('data-filter-title="published"')[2].partition("</form>")[0]
    for name, value in (("queue", "default"), ("q", "add"), ("o", "6")):
        assert f'<input type="hidden" name="{name}" value="{value}">' in form


def test_a_filtered_list_takes_one_query_more(
    viewer: Client, make_task: MakeTask, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    make_task(publish_time=NOON)
    with CaptureQueriesContext(connection) as plain:
        viewer.get(list_url("messagelog"))

    with django_assert_num_queries(len(plain) + 1):  # for the end of what is looked through
        assert shown(viewer, "?queue=default&publish_time__range__gte_0=2026-05-04")
