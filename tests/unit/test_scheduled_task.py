"""Schedules as rows: slots, saving, checking and publishing by hand."""

from __future__ import annotations

import re
import sys
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, transaction
from django.utils import translation

from carrot import clock
from carrot.exceptions import InvalidArguments, PublishError, TaskAttributeError, TaskImportError, UnknownQueue
from carrot.models import MessageLog, ScheduledTask
from carrot.services import run_scheduled_task
from carrot.utilities import create_scheduled_task

pytestmark = pytest.mark.django_db

ADD = "tests.app.tasks.add"
NOOP = "tests.app.tasks.noop"
START = datetime(2030, 1, 1, 12, tzinfo=timezone.utc)
SECOND = timedelta(seconds=1)


class MovedClock:
    """The wall clock of carrot, where the test puts it."""

    def __init__(self) -> None:
        self.time = START

    def __call__(self) -> datetime:
        return self.time

    def forward(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


@pytest.fixture
def wall_clock(monkeypatch: pytest.MonkeyPatch) -> MovedClock:
    moved = MovedClock()
    monkeypatch.setattr(clock, "now", moved)
    return moved


def every_five_seconds(**kwargs: Any) -> ScheduledTask:
    values: dict[str, Any] = {"task_name": "five", "task": NOOP, "interval_count": 5}
    return ScheduledTask.objects.create(**{**values, **kwargs})


def stored(schedule: ScheduledTask) -> ScheduledTask:
    return ScheduledTask.objects.get(pk=schedule.pk)


def takes_ours(interval: int) -> None:
    """A task whose parameter is called like one of ``create_scheduled_task``."""


def takes_anything(**kwargs: Any) -> None:
    """A task with whatever keyword arguments."""


# -- slots ------------------------------------------------------------------------------------------------------------


def test_the_first_run_comes_one_interval_after_the_schedule_is_made(wall_clock: MovedClock) -> None:
    schedule = stored(every_five_seconds())
    assert (schedule.anchor, schedule.period, schedule.next_run) == (START, 5, START + 5 * SECOND)
    assert schedule.last_run is None


def test_the_first_slot_can_be_chosen_when_the_row_is_made(wall_clock: MovedClock) -> None:
    monday = START + timedelta(days=3)
    schedule = stored(every_five_seconds(next_run=monday))
    assert schedule.next_run == monday
    assert schedule.slot_after(monday) == monday + 5 * SECOND


def test_an_inactive_schedule_has_no_next_run(wall_clock: MovedClock) -> None:
    assert stored(every_five_seconds(active=False, next_run=START)).next_run is None


@pytest.mark.parametrize(
    ("moment", "slot"),
    [(0.0, 5), (4.999999, 5), (5.0, 10), (12.3, 15), (3600.0, 3605), (-0.5, 0), (-7.0, -5)],
)
def test_slots_follow_from_the_anchor_alone(wall_clock: MovedClock, moment: float, slot: int) -> None:
    schedule = every_five_seconds()
    assert schedule.slot_after(START + timedelta(seconds=moment)) == START + timedelta(seconds=slot)


def test_a_schedule_without_a_grid_says_so() -> None:
    with pytest.raises(ValueError, match="'five' has no slots"):
        ScheduledTask(task_name="five").slot_after(START)


@pytest.mark.parametrize(
    ("unit", "count", "text"),
    [
        ("seconds", 5, "Every 5 seconds"),
        ("seconds", 1, "Every second"),
        ("minutes", 1, "Every minute"),
        ("hours", 2, "Every 2 hours"),
        ("days", 1, "Every day"),
        ("days", 14, "Every 14 days"),
    ],
)
def test_the_interval_is_shown_in_words(unit: str, count: int, text: str) -> None:
    with translation.override("en"):
        assert ScheduledTask(interval_type=unit, interval_count=count).interval_display == text


@pytest.mark.parametrize(
    ("unit", "count"), [("seconds", 0), ("weeks", 1), ("days", 10_001), ("hours", 240_001), ("seconds", 864_000_001)]
)
def test_the_database_holds_no_interval_that_has_no_slots(unit: str, count: int) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        every_five_seconds(interval_type=unit, interval_count=count)
    schedule = every_five_seconds()
    with pytest.raises(IntegrityError), transaction.atomic():
        ScheduledTask.objects.filter(pk=schedule.pk).update(interval_type=unit, interval_count=count)


@pytest.mark.parametrize(("unit", "count"), [("seconds", 864_000_000), ("minutes", 14_400_000), ("days", 10_000)])
def test_the_longest_interval_is_ten_thousand_days(wall_clock: MovedClock, unit: str, count: int) -> None:
    assert stored(every_five_seconds(interval_type=unit, interval_count=count)).next_run == START + timedelta(10_000)


def test_the_look_for_due_schedules_uses_the_index(wall_clock: MovedClock) -> None:
    for number in range(200):
        ScheduledTask.objects.create(task_name=f"name {number}", task=NOOP, interval_type="days")
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("ANALYZE carrot_scheduledtask")
            cursor.execute("SET LOCAL enable_seqscan = off")
    plan = ScheduledTask.objects.due(START).order_by("next_run")[:10].explain()
    assert "carrot_schedule_due" in plan


# -- saving -----------------------------------------------------------------------------------------------------------


def test_a_form_saved_late_does_not_bring_a_slot_back(wall_clock: MovedClock) -> None:
    late = every_five_seconds()
    other = stored(late)
    wall_clock.forward(6)
    other.handle(wall_clock.time, None)
    ScheduledTask.objects.advance([other], wall_clock.time)
    late.queue = "default"
    late.priority = 3
    late.save()
    found = stored(late)
    assert found.priority == 3
    assert (found.next_run, found.last_slot) == (START + 10 * SECOND, START + 5 * SECOND)


def test_another_interval_begins_a_fresh_grid_at_once(wall_clock: MovedClock) -> None:
    schedule = every_five_seconds(interval_type="days")
    wall_clock.forward(100)
    schedule.interval_type, schedule.interval_count = "minutes", 2
    schedule.save()
    for seen in (schedule, stored(schedule)):
        assert (seen.anchor, seen.period) == (START + 100 * SECOND, 120)
        assert seen.next_run == START + 220 * SECOND


def test_the_same_interval_in_another_unit_keeps_the_slots(wall_clock: MovedClock) -> None:
    schedule = every_five_seconds(interval_count=60)
    wall_clock.forward(10)
    schedule.interval_type, schedule.interval_count = "minutes", 1
    schedule.save()
    assert stored(schedule).next_run == START + 60 * SECOND


def test_what_does_not_concern_the_interval_keeps_the_slots(wall_clock: MovedClock) -> None:
    schedule = every_five_seconds()
    wall_clock.forward(3)
    schedule.task, schedule.kwargs = ADD, {"a": 1, "b": 2}
    schedule.save()
    found = stored(schedule)
    assert (found.task, found.kwargs, found.next_run) == (ADD, {"a": 1, "b": 2}, START + 5 * SECOND)


def test_a_disabled_schedule_that_is_enabled_does_not_fire_for_the_past(wall_clock: MovedClock) -> None:
    schedule = every_five_seconds()
    schedule.active = False
    schedule.save()
    assert stored(schedule).next_run is None
    wall_clock.forward(1001)
    schedule.active = True
    schedule.save()
    assert stored(schedule).next_run == wall_clock.time + 5 * SECOND


def test_enable_and_disable_work_on_many_and_leave_alone_what_is_so_already(wall_clock: MovedClock) -> None:
    running, stopped = every_five_seconds(), every_five_seconds(task_name="stopped", active=False)
    wall_clock.forward(3)
    assert ScheduledTask.objects.all().enable() == 1
    assert stored(running).next_run == START + 5 * SECOND
    assert stored(stopped).next_run == START + 8 * SECOND
    assert ScheduledTask.objects.all().disable() == 2
    assert list(ScheduledTask.objects.values_list("active", "next_run")) == [(False, None)] * 2


def test_a_change_past_save_is_set_right_by_realign_once(wall_clock: MovedClock) -> None:
    rows = [ScheduledTask(task_name=f"name {number}", task=NOOP, interval_count=7) for number in range(3)]
    ScheduledTask.objects.bulk_create(rows)
    assert ScheduledTask.objects.realign() == 3
    assert set(ScheduledTask.objects.values_list("next_run", flat=True)) == {START + 7 * SECOND}
    wall_clock.forward(2)
    assert ScheduledTask.objects.realign() == 0
    ScheduledTask.objects.filter(task_name="name 0").update(interval_type="hours")
    ScheduledTask.objects.filter(task_name="name 1").update(active=False)
    assert ScheduledTask.objects.realign() == 2
    assert list(ScheduledTask.objects.values_list("next_run", flat=True)) == [
        wall_clock.time + timedelta(hours=7),
        None,
        START + 7 * SECOND,
    ]


def test_named_fields_are_written_as_asked(wall_clock: MovedClock) -> None:
    schedule = every_five_seconds()
    schedule.queue, schedule.priority = "other", 7
    schedule.save(update_fields=["priority"])
    found = stored(schedule)
    assert (found.queue, found.priority) == ("default", 7)


# -- taking slots -----------------------------------------------------------------------------------------------------


def test_a_slot_that_two_have_read_is_taken_by_the_first(wall_clock: MovedClock) -> None:
    schedule = every_five_seconds()
    wall_clock.forward(5)
    first, second = stored(schedule), stored(schedule)
    for row in (first, second):
        row.handle(wall_clock.time, row.to_message())
    ScheduledTask.objects.advance([first], wall_clock.time)
    with pytest.raises(Exception, match="Another service has taken a slot"):
        ScheduledTask.objects.advance([second], wall_clock.time)
    assert stored(schedule).last_message_id == first.last_message_id


def test_a_schedule_disabled_meanwhile_is_not_taken(wall_clock: MovedClock) -> None:
    schedule = every_five_seconds()
    wall_clock.forward(5)
    row = stored(schedule)
    ScheduledTask.objects.update(active=False)
    row.handle(wall_clock.time, row.to_message())
    with pytest.raises(Exception, match="Another service has taken a slot"):
        ScheduledTask.objects.advance([row], wall_clock.time)


def test_slots_set_by_a_clock_that_ran_ahead_are_taken_back_but_never_before_the_last_one(
    wall_clock: MovedClock,
) -> None:
    schedule = every_five_seconds()
    wall_clock.forward(86_401)
    row = stored(schedule)
    row.handle(wall_clock.time, None)
    ScheduledTask.objects.advance([row], wall_clock.time)
    wall_clock.time = START + 7 * SECOND
    assert ScheduledTask.objects.rewind() == 1
    assert stored(schedule).next_run == START + 10 * SECOND
    assert ScheduledTask.objects.rewind() == 0
    wall_clock.time = START + 2 * SECOND
    assert ScheduledTask.objects.rewind() == 0, "slots up to the last one handled are over"
    assert stored(schedule).next_run == START + 10 * SECOND


def test_a_first_slot_chosen_far_away_is_not_taken_back(wall_clock: MovedClock) -> None:
    every_five_seconds(next_run=START + timedelta(days=30))
    assert ScheduledTask.objects.rewind() == 0


# -- publishing by hand -----------------------------------------------------------------------------------------------


def test_publish_runs_the_task_now_and_leaves_the_slots(wall_clock: MovedClock) -> None:
    schedule = every_five_seconds(task=ADD, args=[1], kwargs={"b": 2}, priority=4, active=False)
    schedule.problem = "an old one"
    schedule.save(update_fields=["problem"])
    row = schedule.publish()
    assert isinstance(row, MessageLog)
    assert (row.task, row.positionals, row.keywords) == (ADD, (1,), {"b": 2})
    assert (row.queue, row.routing_key, row.priority, row.origin) == ("default", "default", 4, "schedule")
    found = stored(schedule)
    assert (found.last_run, found.last_message, found.next_run, found.last_slot) == (START, row, None, None)
    assert found.problem == ""
    assert schedule.publish(priority=9).priority == 9
    assert run_scheduled_task(schedule).priority == 4


def test_publish_takes_exchange_and_routing_key_of_the_schedule() -> None:
    row = every_five_seconds(exchange="events", routing_key="new.order").publish()
    assert (row.exchange, row.routing_key) == ("events", "new.order")


def test_publish_in_a_transaction_that_is_rolled_back_leaves_nothing() -> None:
    schedule = every_five_seconds()
    with pytest.raises(RuntimeError), transaction.atomic():
        schedule.publish()
        raise RuntimeError
    assert not MessageLog.objects.exists()
    assert stored(schedule).last_message_id is None


def test_a_schedule_made_in_the_admin_publishes_registered_tasks_only() -> None:
    with pytest.raises(TaskAttributeError, match="not registered"):
        every_five_seconds(task="os.getpid", origin="admin").publish()
    assert not MessageLog.objects.exists()
    assert every_five_seconds(task_name="good", task=NOOP, origin="admin").publish().origin == "admin"


def test_the_last_task_may_be_deleted() -> None:
    schedule = every_five_seconds()
    assert schedule.find_last_message() is None
    row = schedule.publish()
    assert stored(schedule).find_last_message() == row
    row.delete()
    assert stored(schedule).find_last_message() is None
    assert ScheduledTask.objects.select_related("last_message").get().last_message is None


# -- checking ---------------------------------------------------------------------------------------------------------


def faults(**values: Any) -> dict[str, list[str]]:
    """The errors of a form with these values, by field."""
    row = ScheduledTask(**{"task_name": "name", "task": ADD, "args": [1, 2], "origin": "admin", **values})
    with pytest.raises(ValidationError) as error:
        row.full_clean()
    found: dict[str, list[str]] = error.value.message_dict
    return found


@pytest.mark.parametrize("values", [{}, {"args": [1], "kwargs": {"b": 2}}, {"args": [], "kwargs": {"a": 1, "b": 2}}])
def test_a_good_schedule_passes(values: dict[str, Any]) -> None:
    ScheduledTask(**{"task_name": "name", "task": ADD, "args": [1, 2], "origin": "admin", **values}).full_clean()


@pytest.mark.parametrize(
    ("values", "field", "text"),
    [
        ({"task": "os.getpid", "args": []}, "task", "not registered"),
        ({"task": "tests.app.tasks.nothing"}, "task", "not registered"),
        ({"args": {"a": 1}}, "args", "A JSON list is needed"),
        ({"kwargs": [1]}, "kwargs", "A JSON object is needed"),
        ({"args": [1]}, "args", "missing a required argument: 'b'"),
        ({"args": [1, 2, 3]}, "args", "too many positional"),
        ({"args": [1, 2, 3], "kwargs": {"c": 1}}, "args", "tests.app.tasks.add"),
        ({"args": [1], "kwargs": {"c": 2}}, "kwargs", "unexpected keyword argument 'c'|missing a required"),
        ({"args": [1, 2], "kwargs": {"a": 2}}, "kwargs", "multiple values for argument 'a'"),
        ({"args": [], "kwargs": {"a": 1}}, "kwargs", "missing a required argument: 'b'"),
        ({"args": ["x" * 2_000_000, 1]}, "args", "bytes of JSON"),
        ({"kwargs": {"b": "\0"}, "args": [1]}, "kwargs", "NUL"),
        ({"queue": "nowhere"}, "queue", "There is no queue"),
        ({"queue": ""}, "queue", "blank"),
        ({"interval_count": 0}, "interval_count", "greater than or equal to 1"),
        ({"interval_count": 10_001, "interval_type": "days"}, "interval_count", "At most 10,000"),
        ({"interval_type": "weeks"}, "interval_type", "not a valid choice"),
        ({"priority": 256}, "priority", "less than or equal to 255"),
        ({"exchange": "é" * 200}, "__all__", "longer than the 255 bytes"),
        ({"task_name": "x" * 201}, "task_name", "at most 200"),
    ],
)
def test_an_error_is_told_at_the_field_to_mend(values: dict[str, Any], field: str, text: str) -> None:
    found = faults(**values)
    assert list(found) == [field]
    assert re.search(text, " ".join(found[field]))


def test_every_wrong_field_is_told_at_once() -> None:
    assert set(faults(queue="nowhere", args="text", interval_count=0)) == {"queue", "args", "interval_count"}


def test_the_check_of_arguments_does_not_import_an_unregistered_task() -> None:
    assert "this" not in sys.modules
    assert set(faults(task="this.d", args=[1])) == {"task"}
    assert "this" not in sys.modules


def test_a_schedule_from_code_may_name_any_function_that_can_be_imported() -> None:
    ScheduledTask(task_name="name", task=f"{__name__}.takes_anything", kwargs={"x": 1}).full_clean()
    found = faults(task="tests.app.tasks.nothing", origin="code")
    assert "no function 'nothing'" in found["task"][0]


def test_empty_arguments_of_a_form_are_none_at_all() -> None:
    row = ScheduledTask(task_name="name", task=NOOP, args=None, kwargs=None)
    row.clean()
    assert (row.args, row.kwargs) == ([], {})


def test_there_is_a_permission_to_run_a_schedule() -> None:
    names = set(Permission.objects.filter(content_type__model="scheduledtask").values_list("codename", flat=True))
    assert names == {f"{verb}_scheduledtask" for verb in ("add", "change", "delete", "view", "run")}


# -- create_scheduled_task --------------------------------------------------------------------------------------------


def test_the_dotted_path_is_the_name_if_none_is_given(wall_clock: MovedClock) -> None:
    created = create_scheduled_task(takes_anything, {"seconds": 5}, hello=True)
    found = stored(created)
    assert found.task == found.task_name == f"{__name__}.takes_anything"
    assert (found.kwargs, found.args, found.queue, found.active) == ({"hello": True}, [], "default", True)
    assert (found.interval_display, found.origin, found.next_run) == ("Every 5 seconds", "code", START + 5 * SECOND)
    row = found.publish()
    assert (row.keywords, row.routing_key) == ({"hello": True}, "default")


def test_name_and_queue_are_taken_by_position_as_in_1_x(settings: Any) -> None:
    settings.CARROT = {"default_broker": "database://", "queues": [{"name": "default"}, {"name": "mail"}]}
    created = create_scheduled_task(ADD, {"days": 1}, "nightly sum", "mail", a=1, b=2)
    assert (created.task_name, created.queue, created.interval_display) == ("nightly sum", "mail", "Every day")


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        ({"seconds": 0}, "1 to 864,000,000 are allowed"),
        ({"seconds": -5}, "1 to 864,000,000 are allowed"),
        ({"days": 10_001}, "1 to 10,000 are allowed"),
        ({"seconds": True}, "no whole number"),
        ({"seconds": 1.5}, "no whole number"),
        ({"seconds": "5"}, "no whole number"),
        ({"weeks": 1}, "unknown unit 'weeks'"),
        ({"second": 1}, "unknown unit 'second'"),
        ({3: 1}, "unknown unit 3"),
        ({"seconds": 1, "minutes": 1}, "2 units, not one"),
        ({}, "0 units, not one"),
        (5, "5, not a dict"),
        (None, "None, not a dict"),
        (timedelta(seconds=5), "not a dict"),
    ],
)
def test_a_wrong_interval_is_refused_with_the_cure_and_nothing_is_written(interval: Any, text: str) -> None:
    with pytest.raises(PublishError, match=text) as error:
        create_scheduled_task(NOOP, interval)
    assert '{"seconds": 5}' in str(error.value)
    assert "minutes, hours, days" in str(error.value)
    assert not ScheduledTask.objects.exists()


@pytest.mark.parametrize(
    ("error", "text", "call"),
    [
        (TaskImportError, "no module 'nowhere'", lambda: create_scheduled_task("nowhere.task", {"seconds": 1})),
        (TaskAttributeError, "lambda", lambda: create_scheduled_task(lambda: None, {"seconds": 1})),
        (InvalidArguments, "missing a required argument: 'b'", lambda: create_scheduled_task(ADD, {"days": 1}, a=1)),
        (InvalidArguments, "`a`", lambda: create_scheduled_task(ADD, {"days": 1}, a=object(), b=1)),
        (UnknownQueue, "There is no queue", lambda: create_scheduled_task(NOOP, {"days": 1}, queue="nowhere")),
        (InvalidArguments, "task_name is ''", lambda: create_scheduled_task(NOOP, {"days": 1}, "")),
        (InvalidArguments, "task_name is 'x", lambda: create_scheduled_task(NOOP, {"days": 1}, "x" * 201)),
        (InvalidArguments, "task_name is 'nul", lambda: create_scheduled_task(NOOP, {"days": 1}, "nul\0")),
        (
            InvalidArguments,
            "for itself: interval. Use carrot.models.ScheduledTask",
            lambda: create_scheduled_task(takes_ours, {"days": 1}),
        ),
    ],
)
def test_what_cannot_be_published_cannot_be_scheduled(error: type[Exception], text: str, call: Any) -> None:
    with pytest.raises(error, match=text) as caught:
        call()
    assert isinstance(caught.value, PublishError)
    assert not ScheduledTask.objects.exists()


def test_a_taken_name_is_refused_and_the_callers_transaction_goes_on() -> None:
    create_scheduled_task(ADD, {"seconds": 5}, "name", a=1, b=2)
    with transaction.atomic():
        with pytest.raises(PublishError, match=r"named .name. already.*update=True"):
            create_scheduled_task(NOOP, {"minutes": 1}, "name")
        assert ScheduledTask.objects.get().task == ADD
    assert ScheduledTask.objects.get().interval_display == "Every 5 seconds"


def test_update_makes_the_call_repeatable(wall_clock: MovedClock) -> None:
    first = create_scheduled_task(ADD, {"seconds": 5}, "name", update=True, a=1, b=2)
    ScheduledTask.objects.update(active=False, priority=6)
    ScheduledTask.objects.all().enable()
    wall_clock.forward(3)
    again = create_scheduled_task(ADD, {"seconds": 5}, "name", update=True, a=3, b=4)
    found = ScheduledTask.objects.get()
    assert first.pk == again.pk == found.pk
    assert (found.kwargs, found.priority) == ({"a": 3, "b": 4}, 6)
    assert found.next_run == START + 5 * SECOND, "the slots stay"
    create_scheduled_task(ADD, {"seconds": 8}, "name", update=True, a=3, b=4)
    assert ScheduledTask.objects.get().next_run == START + 11 * SECOND


def test_update_leaves_a_disabled_schedule_disabled() -> None:
    create_scheduled_task(NOOP, {"seconds": 5}, update=True)
    ScheduledTask.objects.all().disable()
    create_scheduled_task(NOOP, {"minutes": 5}, update=True)
    found = ScheduledTask.objects.get()
    assert (found.active, found.next_run, found.interval_type) == (False, None, "minutes")


def test_update_with_a_mistake_changes_nothing() -> None:
    create_scheduled_task(ADD, {"seconds": 5}, "name", a=1, b=2)
    with pytest.raises(PublishError):
        create_scheduled_task(ADD, {"seconds": 0}, "name", update=True, a=1, b=2)
    with pytest.raises(PublishError):
        create_scheduled_task(ADD, {"seconds": 6}, "name", update=True, a=1)
    assert ScheduledTask.objects.get().interval_count == 5
