"""What a service has in hand, in words."""

from __future__ import annotations

import socket
import uuid
from datetime import timedelta

import pytest

from carrot import clock
from carrot.models import MessageLog, WorkerProcess
from carrot.work_in_hand import RunningTask, WorkInHand, seconds_in_words


def worker(*, service_pid: int = 1000, alive: bool = True, host: str = "", queues: str = "default") -> WorkerProcess:
    now = clock.now()
    return WorkerProcess.objects.create(
        host=host or socket.gethostname(),
        pid=1001,
        service_pid=service_pid,
        queues=queues,
        concurrency=2,
        version="2",
        started_at=now,
        beat_at=now,
        alive=alive,
    )


def running(owner: WorkerProcess, name: str, seconds: float | None = 5.0) -> MessageLog:
    now = clock.now()
    return MessageLog.objects.create(
        uuid=uuid.uuid4(),
        status="IN_PROGRESS",
        task=name,
        queue="default",
        broker="database://",
        publish_time=now,
        state_at=now,
        start_time=None if seconds is None else now - timedelta(seconds=seconds),
        worker=owner,
    )


@pytest.mark.django_db(transaction=True)
def test_it_is_that_of_the_living_workers_of_this_service_on_this_host() -> None:
    mine = [worker(), worker(queues="default, mail")]
    others = [worker(service_pid=2000), worker(alive=False, queues="dead"), worker(host="elsewhere", queues="far")]
    for owner in (*mine, *others):
        running(owner, f"task_of_{owner.pk}")
    work = WorkInHand.of(1000)
    assert work.queues == ("default", "mail")
    assert work.threads == 4
    assert {task.task for task in work.tasks} == {f"task_of_{owner.pk}" for owner in mine}
    assert work.problem == ""


@pytest.mark.django_db(transaction=True)
def test_a_service_without_workers_is_said_to_have_none() -> None:
    work = WorkInHand.of(1000)
    assert list(work.lines()) == ["worker processes: 0, threads: 0", "queues: none yet", "running tasks: 0"]
    assert work.waiting_for() == ""


def tasks(count: int) -> tuple[RunningTask, ...]:
    since = clock.now() - timedelta(seconds=65)
    return tuple(RunningTask(task=f"shop.task_{number}", uuid=f"u{number}", since=since) for number in range(count))


def test_one_task_is_singular_and_many_are_cut_short() -> None:
    assert WorkInHand(tasks=tasks(1)).waiting_for() == "Waiting for 1 running task: shop.task_0"
    many = WorkInHand(tasks=tasks(12))
    assert many.waiting_for().startswith("Waiting for 12 running tasks: shop.task_0, shop.task_1,")
    assert many.waiting_for().endswith("shop.task_9 and 2 more")
    lines = list(many.lines())
    assert "  shop.task_0 u0 (1 min 5 s)" in lines
    assert lines[-1] == "  and 2 more"


def test_a_task_that_was_claimed_a_moment_ago_has_no_age() -> None:
    assert RunningTask(task="shop.task", uuid="u", since=None).age == "about to start"


def test_what_is_not_known_is_said_to_be_unknown() -> None:
    work = WorkInHand(problem="The database does not answer (gone).")
    assert work.waiting_for() == "Waiting for the running tasks. The database does not answer (gone)."
    (line,) = work.lines()
    assert line.endswith("are not known.")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (-3, "0 s"), (59.9, "59 s"), (60, "1 min 0 s"), (3725, "1 h 2 min"), (93_600, "1 d 2 h")],
)
def test_seconds_in_words(seconds: float, words: str) -> None:
    assert seconds_in_words(seconds) == words
