"""The scheduler: every slot once, whoever publishes it, whatever the clock does."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, connection, connections, transaction
from django.test.utils import CaptureQueriesContext

from carrot import clock, registry
from carrot.exceptions import TaskImportError
from carrot.models import MessageLog, ScheduledTask
from carrot.scheduler import LOOK, TAKEN, Scheduler
from carrot.services import publish_many

pytestmark = pytest.mark.django_db(transaction=True)

ADD = "tests.app.tasks.add"
NOOP = "tests.app.tasks.noop"
START = datetime(2030, 1, 1, 12, tzinfo=timezone.utc)
SECOND = timedelta(seconds=1)


class MovedClock:
    """Both clocks of carrot, where the test puts them."""

    def __init__(self) -> None:
        self.time = START
        self.running = 1000.0

    def forward(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)
        self.running += max(seconds, 0.0)

    def step(self, seconds: float) -> None:
        """Somebody sets the wall clock."""
        self.time += timedelta(seconds=seconds)


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> MovedClock:
    moved = MovedClock()
    monkeypatch.setattr(clock, "now", lambda: moved.time)
    monkeypatch.setattr(clock, "monotonic", lambda: moved.running)
    return moved


def schedule(name: str = "name", **values: Any) -> ScheduledTask:
    return ScheduledTask.objects.create(**{"task_name": name, "task": NOOP, "interval_count": 5, **values})


def run(loop: Scheduler) -> float:
    """Steps until nothing is due; returns the pause asked for."""
    while (pause := loop.step()) == 0.0:
        pass
    return pause


def published() -> list[datetime]:
    return list(MessageLog.objects.order_by("pk").values_list("publish_time", flat=True))


# -- slots ------------------------------------------------------------------------------------------------------------


def test_a_due_schedule_is_published_once_a_slot(moved: MovedClock) -> None:
    row = schedule(task=ADD, args=[1], kwargs={"b": 2}, priority=3)
    loop = Scheduler()
    for _ in range(21):
        run(loop)
        moved.forward(1)
    assert published() == [START + n * SECOND for n in (5, 10, 15, 20)]
    task = MessageLog.objects.latest("pk")
    assert (task.task, task.args, task.kwargs, task.priority, task.origin) == (ADD, [1], {"b": 2}, 3, "schedule")
    row.refresh_from_db()
    assert (row.last_slot, row.last_run, row.next_run) == (*[START + 20 * SECOND] * 2, START + 25 * SECOND)
    assert row.last_message == task


def test_slots_do_not_drift_with_the_delay_of_each_run(moved: MovedClock) -> None:
    row = schedule()
    loop = Scheduler()
    for _ in range(100):
        moved.forward(5.04 if moved.time == START else 5.0)
        run(loop)
    row.refresh_from_db()
    assert (row.last_slot, row.last_run) == (START + 500 * SECOND, START + 500.04 * SECOND)


def test_the_pause_ends_with_the_next_slot_and_is_never_longer_than_a_look(moved: MovedClock) -> None:
    loop = Scheduler()
    assert loop.step() == LOOK
    schedule()
    assert loop.step() == LOOK
    moved.forward(4.8)
    assert loop.step() == pytest.approx(0.2)
    assert LOOK <= 1.0


def test_an_hour_without_a_service_is_made_up_for_by_one_run(moved: MovedClock) -> None:
    row = schedule()
    moved.forward(3603)
    run(Scheduler())
    run(Scheduler())
    assert published() == [START + 3603 * SECOND]
    row.refresh_from_db()
    assert row.next_run == START + 3605 * SECOND, "back on the grid"


def test_an_inactive_schedule_is_not_published(moved: MovedClock) -> None:
    schedule(active=False)
    moved.forward(60)
    run(Scheduler())
    assert published() == []


@pytest.mark.parametrize("step", [-3600, -86_400, -2.5])
def test_a_clock_set_back_publishes_no_slot_again(moved: MovedClock, step: float) -> None:
    row = schedule()
    loop = Scheduler()
    moved.forward(5)
    run(loop)
    moved.step(step)
    for _ in range(4):
        run(loop)
        moved.forward(1)
    assert len(published()) == 1
    moved.time = START + 10 * SECOND
    run(loop)
    row.refresh_from_db()
    assert row.last_slot == START + 10 * SECOND
    assert len(published()) == 2


@pytest.mark.parametrize("step", [3600, 86_400])
def test_a_clock_set_forward_is_one_run_and_set_right_again_costs_a_minute(moved: MovedClock, step: float) -> None:
    schedule()
    loop = Scheduler()
    run(loop)
    moved.step(step)
    for _ in range(10):
        run(loop)
    assert len(published()) == 1
    moved.step(-step)
    for _ in range(66):
        run(loop)
        moved.forward(1)
    times = published()[1:]
    assert len(times) in (1, 2)
    assert START + 60 * SECOND <= times[0] <= START + 65 * SECOND


def test_two_services_with_clocks_an_hour_apart_neither_double_nor_flood(moved: MovedClock) -> None:
    schedule()
    good, ahead = Scheduler(), Scheduler()
    for _ in range(300):
        run(good)
        moved.step(3600)
        run(ahead)
        moved.step(-3600)
        moved.forward(1)
    assert 1 <= len(published()) <= 61


# -- many services ----------------------------------------------------------------------------------------------------


def test_five_services_publish_each_slot_of_fifty_schedules_once(moved: MovedClock) -> None:
    for number in range(50):
        schedule(f"name {number}", task=ADD, args=[number, 0], interval_count=1)
    ticks, services = 12, 5
    barrier = threading.Barrier(services, action=lambda: moved.forward(1), timeout=60)
    problems: list[BaseException] = []

    def serve() -> None:
        loop = Scheduler()
        try:
            for _ in range(ticks):
                barrier.wait()
                _until_nothing_is_due(loop)
        except BaseException as error:
            problems.append(error)
            barrier.abort()
        finally:
            connections.close_all()

    threads = [threading.Thread(target=serve) for _ in range(services)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    slots = Counter((row.args[0], row.publish_time) for row in MessageLog.objects.all())
    assert set(slots.values()) == {1}
    assert len(slots) == 50 * ticks
    assert set(ScheduledTask.objects.values_list("last_slot", flat=True)) == {START + ticks * SECOND}


def _until_nothing_is_due(loop: Scheduler) -> None:
    """As the loop's thread does: others may hold what is due, and an error is tried again."""
    ends = time.monotonic() + 30
    while time.monotonic() < ends:
        try:
            loop.step()
        except DatabaseError:
            continue
        if not ScheduledTask.objects.due(clock.now()).exists():
            return
    raise AssertionError("Schedules are due after 30 s.")


def test_rows_in_the_hands_of_another_are_looked_at_again_soon(moved: MovedClock) -> None:
    if not connection.features.has_select_for_update_skip_locked:
        return  # one writer at a time: nothing can be in other hands
    held, free = schedule("held"), schedule("free", task=ADD, args=[1, 2])
    moved.forward(5)
    locked, done = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            ScheduledTask.objects.select_for_update().get(pk=held.pk)
            locked.set()
            done.wait(30)
        connections.close_all()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert locked.wait(30)
        loop = Scheduler()
        loop._realign_at = float("inf")
        assert loop.step() == 0.0
        assert MessageLog.objects.get().task == free.task
        assert loop.step() == TAKEN
    finally:
        done.set()
        thread.join()
    assert loop.step() == 0.0
    assert MessageLog.objects.count() == 2


def test_an_error_between_slot_and_task_leaves_both_as_they_were(
    moved: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = schedule()
    moved.forward(5)

    def fail(messages: Any) -> None:
        publish_many(messages)
        raise DatabaseError("the session was killed")

    monkeypatch.setattr("carrot.scheduler.publish_many", fail)
    with pytest.raises(DatabaseError):
        Scheduler().step()
    row.refresh_from_db()
    assert (row.next_run, row.last_slot, published()) == (START + 5 * SECOND, None, [])
    monkeypatch.setattr("carrot.scheduler.publish_many", publish_many)
    run(Scheduler())
    assert len(published()) == 1


def test_the_brokers_are_told_after_the_commit(moved: MovedClock, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def ring(messages: Any) -> None:
        seen.append((len(messages), connection.in_atomic_block))

    monkeypatch.setattr("carrot.publisher.ring", ring)
    schedule("one")
    schedule("two")
    moved.forward(5)
    run(Scheduler())
    assert seen == [(2, False)]


# -- changes ----------------------------------------------------------------------------------------------------------


def _raw(**values: Any) -> Callable[[ScheduledTask], Any]:
    return lambda row: ScheduledTask.objects.filter(pk=row.pk).update(**values)


def _saved(**values: Any) -> Callable[[ScheduledTask], Any]:
    def change(row: ScheduledTask) -> None:
        for name, value in values.items():
            setattr(row, name, value)
        row.save()

    return change


@pytest.mark.parametrize("how", [_raw, _saved])
def test_changes_count_within_two_seconds_however_they_are_made(moved: MovedClock, how: Any) -> None:
    row = schedule(interval_type="days")
    loop = Scheduler()
    run(loop)
    how(interval_type="seconds", interval_count=1)(row)
    for _ in range(9):
        moved.forward(0.25)
        run(loop)
    assert 1 <= len(published()) <= 2
    how(active=False)(row)
    MessageLog.objects.all().delete()
    for _ in range(9):
        moved.forward(0.25)
        run(loop)
    assert published() == []
    moved.forward(1000)
    how(active=True, task=ADD, args=[1, 2])(row)
    run(loop)
    assert published() == [], "not for the past"
    for _ in range(9):
        moved.forward(0.25)
        run(loop)
    assert 1 <= len(published()) <= 2
    assert set(MessageLog.objects.values_list("task", flat=True)) == {ADD}


def test_a_row_made_by_bulk_create_or_by_hand_gets_its_slots(moved: MovedClock) -> None:
    loop = Scheduler()
    run(loop)
    ScheduledTask.objects.bulk_create([ScheduledTask(task_name="bulk", task=NOOP)])
    ScheduledTask.objects.bulk_create([ScheduledTask(task_name="past", task=NOOP, next_run=START - SECOND)])
    for _ in range(2):
        run(loop)
        assert published() == []
        moved.forward(1)
    run(loop)
    assert len(published()) == 2


# -- trouble ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"task": "tests.app.tasks.gone"}, "no function 'gone'"),
        ({"task": "gone.tasks.task"}, "no module 'gone'"),
        ({"task": "os.getpid", "origin": "admin"}, "not registered"),
        ({"queue": "gone"}, "There is no queue"),
        ({"args": [1]}, "too many positional"),
        ({"args": 5}, "must be an iterable, not int"),
        ({"exchange": "é" * 200}, "255 bytes"),
    ],
)
def test_a_schedule_that_cannot_be_published_says_why_and_stops_nobody(
    moved: MovedClock, caplog: pytest.LogCaptureFixture, values: dict[str, Any], text: str
) -> None:
    bad = schedule("bad", **values)
    schedule("good")
    loop = Scheduler()
    with caplog.at_level(logging.INFO):
        for _ in range(4):
            moved.forward(5)
            run(loop)
    assert MessageLog.objects.count() == 4
    bad.refresh_from_db()
    assert text in bad.problem
    assert (bad.last_run, bad.last_message_id, bad.last_slot) == (None, None, START + 20 * SECOND)
    lines = [record for record in caplog.records if "bad" in record.getMessage()]
    assert len(lines) == 1
    assert lines[0].levelname == "ERROR"
    assert text in lines[0].getMessage()


@pytest.mark.parametrize("error", [RuntimeError, TaskImportError])
def test_a_problem_is_told_whatever_its_text_holds(
    moved: MovedClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: type[Exception]
) -> None:
    validate = registry.validate_task

    def fail(task: Any) -> str:
        if task == ADD:
            raise error("cannot read caf\udce9\0.ini")
        return validate(task)

    bad = schedule("bad", task=ADD)
    schedule("good")
    monkeypatch.setattr(registry, "validate_task", fail)
    loop = Scheduler()
    for _ in range(2):
        moved.forward(5)
        run(loop)
    assert MessageLog.objects.count() == 2
    bad.refresh_from_db()
    assert bad.problem.endswith(r"cannot read caf\udce9\x00.ini")
    assert caplog.text.count("cannot be published") == 1


def test_a_schedule_that_is_no_json_says_why_and_stops_nobody(moved: MovedClock) -> None:
    bad = schedule("bad")
    schedule("good")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE carrot_scheduledtask SET kwargs = 'no JSON' WHERE id = %s", [bad.pk])
    moved.forward(5)
    run(Scheduler())
    assert MessageLog.objects.count() == 1
    bad.refresh_from_db()
    assert "no JSON that this process can read" in bad.problem


def test_a_problem_that_is_mended_is_forgotten(moved: MovedClock) -> None:
    row = schedule(queue="gone")
    loop = Scheduler()
    moved.forward(5)
    run(loop)
    row.queue = "default"
    row.save()
    moved.forward(5)
    run(loop)
    row.refresh_from_db()
    assert (row.problem, row.last_run) == ("", START + 10 * SECOND)


# -- cost -------------------------------------------------------------------------------------------------------------


def test_the_statements_do_not_grow_with_the_schedules(moved: MovedClock) -> None:
    counts = []
    for round_, size in enumerate((2, 60)):
        for number in range(size):
            schedule(f"name {round_} {number}")
        loop = Scheduler()
        loop.step()
        moved.forward(5)
        with CaptureQueriesContext(connection) as queries:
            loop.step()
        counts.append(len(queries))
    # SQLite takes a thousand values a statement, so 62 tasks are two.
    assert counts[1] <= counts[0] + 1 <= 13


def test_a_thousand_schedules_are_published_without_a_pause_and_cost_less_than_0_6_seconds_of_work() -> None:
    rows = [ScheduledTask(task_name=f"name {n}", task=ADD, kwargs={"a": n, "b": 0}) for n in range(1000)]
    due = clock.now()
    for row in rows:
        row.anchor = row.next_run = due
        row.period = row.interval_count = 3600
    ScheduledTask.objects.bulk_create(rows)
    loop = Scheduler()
    begun = work()
    run(loop)
    assert MessageLog.objects.filter(publish_time__gte=due).count() == 1000
    assert work() - begun < 0.6


def work() -> float:
    """Seconds of a processor that this thread has used, and PostgreSQL for it: others on the machine do not count."""
    seconds = time.thread_time()
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            (pid,) = cursor.fetchone()
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        seconds += (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
    return seconds
