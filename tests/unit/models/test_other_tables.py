"""Worker processes, stray messages, and the id of the installation."""

from __future__ import annotations

import threading
from typing import Any
from uuid import UUID

import pytest
from django.db.models import QuerySet

from carrot import clock
from carrot.database import closing
from carrot.models import Installation, StrayMessage, WorkerProcess
from carrot.models.stray_message import KEPT
from tests.marks import committing
from tests.rows import new_worker


@pytest.mark.django_db
def test_a_beat_raises_the_number_of_living_workers_and_names_them() -> None:
    here, lost, other = new_worker(), new_worker(), new_worker()
    WorkerProcess.objects.end(lost.pk, "lost")
    assert WorkerProcess.objects.beat([here.pk, lost.pk, 0]) == {here.pk}
    beats = dict(WorkerProcess.objects.values_list("pk", "beat"))
    assert beats == {here.pk: 1, lost.pk: 0, other.pk: 0}
    assert set(WorkerProcess.objects.alive()) == {here, other}


@pytest.mark.django_db
def test_a_worker_ends_once() -> None:
    worker = new_worker()
    assert WorkerProcess.objects.end(worker.pk, "first " * 100)
    assert not WorkerProcess.objects.end(worker.pk, "second")
    worker.refresh_from_db()
    assert worker.ending.startswith("first")
    assert len(worker.ending) == 255
    assert worker.ended_at is not None


@pytest.mark.django_db
def test_of_a_flood_of_stray_messages_the_newest_are_kept() -> None:
    def strays(first: int, count: int) -> list[StrayMessage]:
        return [
            StrayMessage(received_at=clock.now(), broker="b", queue="q", reason=f"number {number}")
            for number in range(first, first + count)
        ]

    StrayMessage.objects.keep(strays(0, KEPT - 1))
    StrayMessage.objects.keep(strays(KEPT - 1, 3))
    assert StrayMessage.objects.count() == KEPT
    assert StrayMessage.objects.order_by("pk").values_list("reason", flat=True)[0] == "number 2"
    StrayMessage.objects.keep(strays(5000, 2 * KEPT))
    assert StrayMessage.objects.count() == KEPT
    assert StrayMessage.objects.order_by("pk").values_list("reason", flat=True)[0] == f"number {5000 + KEPT}"


@committing
def test_all_who_ask_at_once_get_the_same_site(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[UUID] = []
    together = threading.Barrier(4)
    first = QuerySet.first

    def first_of_all(self: Any) -> Any:
        site = first(self)
        if site is None:
            together.wait(5.0)  # so that all have seen that there is none yet
        return site

    def ask() -> None:
        with closing():
            found.append(Installation.objects.site())

    monkeypatch.setattr(QuerySet, "first", first_of_all)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [Installation.objects.site()] * 4
    assert Installation.objects.count() == 1
