"""Schedules: whatever is asked for is made or refused, and however the clock jumps no slot comes twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from hypothesis import example, given
from hypothesis import strategies as st

from carrot import clock
from carrot.admin.forms import ScheduledTaskForm
from carrot.exceptions import PublishError
from carrot.models import MessageLog, Origin, ScheduledTask
from carrot.models.scheduled_task import OWNED
from carrot.models.slots import MAX_INTERVAL, UNITS
from carrot.scheduler import Scheduler, publish_due
from carrot.services import create_scheduled_task, run_scheduled_task
from tests.fuzz.strategies import HUGE, Wrapped, examples, json_values, nested, texts, undone, values
from tests.rows import ADD

pytestmark = pytest.mark.django_db

HERE = __name__
NOOP = "tests.app.tasks.noop"
FIRST = datetime(1, 1, 1, tzinfo=timezone.utc)
LAST = datetime(9999, 12, 31, tzinfo=timezone.utc)
START = datetime(2030, 1, 1, tzinfo=timezone.utc)
#: Rounds in which all that is due has to be published.
ROUNDS = 3


def takes_keywords(**kwargs: Any) -> None:
    """A task."""


class Clock:
    """The clock of the wall, in the hand of the test."""

    def __init__(self) -> None:
        self.time = START

    def jump(self, seconds: float) -> None:
        try:
            self.time = min(max(self.time + timedelta(seconds=seconds), FIRST), LAST)
        except OverflowError:
            self.time = FIRST if seconds < 0 else LAST


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    wall = Clock()
    monkeypatch.setattr(clock, "now", lambda: wall.time)
    return wall


# -- made from code ---------------------------------------------------------------------------------------------------

units = st.sampled_from([*UNITS, "weeks", "Seconds", "", None])
counts = st.integers() | st.sampled_from([0, 1, -1, MAX_INTERVAL, MAX_INTERVAL + 1, HUGE, True, 1.0, "5", None])
intervals = st.dictionaries(units, counts, min_size=1, max_size=2) | values | st.just({"hours": 1})


@examples(200)
@given(intervals.map(Wrapped), (texts | values).map(Wrapped), st.dictionaries(texts, values, max_size=2).map(Wrapped))
@example(Wrapped({"seconds": 1}), Wrapped("n" * 200), Wrapped({}))
@example(Wrapped({"days": 10_000}), Wrapped("é"), Wrapped({"self": 1}))
@example(Wrapped({"seconds": 0}), Wrapped("name"), Wrapped({}))
@example(Wrapped({"seconds": 5}), Wrapped("a\0b"), Wrapped({}))
@example(Wrapped({"seconds": 5}), Wrapped(""), Wrapped({}))
def test_a_schedule_is_made_as_asked_or_refused(interval: Wrapped, name: Wrapped, kwargs: Wrapped) -> None:
    reserved = ("task", "interval", "task_name", "queue", "update")
    keywords = {key: value for key, value in kwargs.value.items() if key not in reserved}
    for update in (False, True):
        with undone():
            try:
                row = create_scheduled_task(takes_keywords, interval.value, name.value, update=update, **keywords)
            except PublishError:
                assert not ScheduledTask.objects.exists()
                continue
            row.refresh_from_db()
            row.full_clean()
            assert run_scheduled_task(row).kwargs == row.kwargs


good: dict[str, Any] = {"task_name": "name", "task": NOOP}
#: What Django makes text of, without looking, must have a text.
cells = json_values | st.sampled_from([b"bytes", "x" * 300, 2**70, float("nan")])
arguments = st.sampled_from([HUGE, nested(3000), nested(3000, dict), nested(101)]) | st.one_of(
    cells, st.lists(values, max_size=3), st.dictionaries(texts, values, max_size=3)
)
rows = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(OWNED, cells),
        "args": arguments,
        "kwargs": arguments,
        "origin": st.sampled_from([Origin.CODE, Origin.ADMIN]),
    },
)


@examples(200)
@given(rows.map(Wrapped))
@example(Wrapped({"interval_type": []}))
@example(Wrapped({"interval_count": "abc"}))
@example(Wrapped({"priority": "x"}))
@example(Wrapped({"task_name": "a\0b"}))
@example(Wrapped({"task_name": "\udc80"}))
@example(Wrapped({"routing_key": None, "exchange": None}))
@example(Wrapped({"task": None, "origin": "admin"}))
@example(Wrapped({"args": nested(3000)}))
def test_any_row_is_valid_and_works_or_a_form_is_told_why_not(changes: Wrapped) -> None:
    with undone():
        row = ScheduledTask(**{**good, **changes.value})
        with suppress(ValidationError):
            row.full_clean()
            row.save()
            row.refresh_from_db()
            run_scheduled_task(row)


# -- made in the admin ------------------------------------------------------------------------------------------------

#: A browser sends no lone surrogates.
typed = st.text(max_size=20) | st.sampled_from(["", "\0", "a\0b", "[]", "{}", "NaN", '{"a": "\\ud800"}', '["\\u0000"]'])
numerals = st.integers().map(str) | st.sampled_from(["", "0", "1", "-1", "٣", "1e9", "1.5", "9" * 5000, "864000001"])
brackets = st.integers(1, 1200).map(lambda levels: "[" * levels + "]" * levels)
forms = st.fixed_dictionaries(
    {
        "task_name": typed | st.just("x" * 201),
        "task": st.sampled_from([ADD, NOOP, "os.system", "", "tests.app.tasks.gone"]) | typed,
        "args": typed | brackets | st.sampled_from(["[1, 2]", "[" * 100_000, "9" * 5000, '{"a": 1, "a": 2}']),
        "kwargs": typed | st.sampled_from(['{"a": 1, "b": 2}', '{"a": ' * 990 + "1" + "}" * 990]),
        "interval_count": numerals,
        "interval_type": st.sampled_from([*UNITS, "weeks", "[]"]),
        "queue": st.sampled_from(["default", "no such", ""]),
        "exchange": typed | st.just("é" * 200),
        "routing_key": typed,
        "priority": numerals,
    },
    optional={"active": st.just("on")},
)


@examples(100)
@given(forms, st.booleans())
def test_any_form_is_saved_or_shown_again_with_its_errors(data: dict[str, str], new: bool) -> None:
    with undone():
        row = ScheduledTask() if new else ScheduledTask.objects.create(task_name="before", task=ADD, args=[1, 2])
        form = ScheduledTaskForm(data, instance=row)
        form.has_changed()
        if form.is_valid():
            saved = form.save()
            saved.refresh_from_db()
            assert saved.origin == (Origin.ADMIN if new or saved.task != ADD else Origin.CODE)
            run_scheduled_task(saved)
        else:
            assert form.errors
            assert form.as_p()


# -- slots ------------------------------------------------------------------------------------------------------------

jumps = st.one_of(
    st.floats(0, 30),
    st.floats(-100_000, 100_000),
    st.sampled_from([0, 1, 3600, -3600, 86_400, -86_400, 1e12, -1e12, 1e9, -1e9]),
)
steps = st.one_of(
    st.tuples(st.just("jump"), jumps),
    st.tuples(st.just("every"), st.sampled_from([1, 7, 3600, 86_400, MAX_INTERVAL])),
    st.tuples(st.sampled_from(["disable", "enable", "rewind", "save"]), st.none()),
)


@examples(50)
@given(
    st.sampled_from([None, FIRST, START, START + timedelta(days=3), LAST, datetime.max.replace(tzinfo=timezone.utc)]),
    st.lists(steps, min_size=1, max_size=20),
)
@example(None, [("jump", 1e12), ("every", MAX_INTERVAL), ("jump", -2e11), ("rewind", None), ("jump", 864e6)])
@example(None, [("every", MAX_INTERVAL), ("jump", 1e12), ("jump", -2e11), ("rewind", None), ("jump", 864e6)])
@example(FIRST, [("jump", -1e9), ("jump", 1e9)])
@example(None, [("jump", 5), ("jump", 5), ("jump", -7), ("rewind", None), ("jump", 3)])
def test_no_slot_is_taken_twice_and_none_goes_back(
    wall: Clock, first: datetime | None, steps: list[tuple[str, Any]]
) -> None:
    wall.time = START
    schedules = ScheduledTask.objects.all()
    with undone():
        row = ScheduledTask.objects.create(task_name="name", task=NOOP, interval_count=5, next_run=first)
        grid = row.anchor, row.period
        taken: list[datetime] = []
        for what, value in steps:
            if what == "jump":
                wall.jump(value)
            elif what == "every":
                row.interval_count = value
                row.save()
            elif what == "save":
                ScheduledTask.objects.get().save()
            else:
                getattr(schedules, what)()
            schedules.realign()
            for _ in range(ROUNDS):
                published = MessageLog.objects.count()
                row.refresh_from_db()
                if (row.anchor, row.period) != grid or what == "enable":
                    grid, taken = (row.anchor, row.period), []
                if not publish_due(schedules, wall.time):
                    break
                row.refresh_from_db()
                assert MessageLog.objects.count() == published + 1
                assert row.last_slot is not None
                assert not taken or row.last_slot > taken[-1]
                taken.append(row.last_slot)
            else:
                pytest.fail("the same is due again and again")
            assert row.next_run is None or row.next_run > wall.time
            assert row.active == (row.next_run is not None)
            assert Scheduler().step() > 0
