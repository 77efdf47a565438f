"""The word of somebody who may write into a queue: no module is imported, and no function called, because of it."""

from __future__ import annotations

import importlib.abc
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import pytest
from django.contrib.auth.models import User
from pika import BasicProperties

from carrot import clock, operations, registry
from carrot.brokers.amqp.intake import Delivery, Intake, Taken
from carrot.conf import get_queue
from carrot.exceptions import CarrotError
from carrot.models import Installation, MessageLog, Origin, ScheduledTask, Status, StrayMessage
from carrot.serializers import DefaultMessageSerializer
from tests.admin.schedules import form_of, make_schedule
from tests.rows import ADD, new_row, new_worker, unsaved_row
from tests.security.visitor import Visitor
from tests.unit.bench import Bench

#: Names that a worker could import, and functions of modules that it has.
NAMES = [
    "tests.security.trap.spring",
    "tests.security.trap",
    "antigravity.fly",
    "os.system",
    "builtins.exec",
    "subprocess.run",
    "carrot.operations.purge_queue",
    "tests.app.tasks.os.system",
    "tests.app.tasks.Path.unlink",
    "tests.app.tasks.add.__globals__",
    "django.core.management.call_command",
    "__main__.x",
    "..",
    "tests.app.tasks.",
    "",
]
BODY = json.dumps({"task": "tests.security.trap.spring", "args": ["true"], "kwargs": {"command": "true"}}).encode()
SERIALIZER = DefaultMessageSerializer()


class Lookout(importlib.abc.MetaPathFinder):
    """Notes every module that anybody looks for."""

    def __init__(self) -> None:
        self.sought: list[str] = []

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        self.sought.append(name)


@pytest.fixture
def nothing_named_is_touched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails if one of the modules is looked for, or one of the functions is called."""

    def called(*args: Any, **kwargs: Any) -> None:
        raise AssertionError(f"called with {args} {kwargs}")

    for owner, name in ((os, "system"), (subprocess, "run"), (operations, "purge_queue")):
        monkeypatch.setattr(owner, name, called)
    registry.load()
    lookout, had = Lookout(), set(sys.modules)
    sys.meta_path.insert(0, lookout)
    yield
    sys.meta_path.remove(lookout)
    named = {".".join(name.split(".")[:length]) for name in NAMES for length in range(1, 5)} - had
    assert not named & {*lookout.sought, *set(sys.modules) - had}


pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("nothing_named_is_touched")]


def adopting(properties: Any, body: bytes) -> MessageLog:
    """The usual ``get_message_log()`` of a project."""
    args, kwargs = SERIALIZER.serialize_arguments(body)
    return MessageLog(task=SERIALIZER.get_task(properties, body), args=list(args), kwargs=kwargs)


def believing(properties: Any, body: bytes) -> MessageLog:
    """One that believes more than it should: the row says that code made it, of another queue, and is done."""
    row = unsaved_row(
        task=properties.headers["type"], args=["true"], origin=Origin.CODE, queue="other", fence=7, tries=3
    )
    row.status = Status.COMPLETED
    return row


def take(
    adopt: Callable[[Any, bytes], MessageLog | None] | None, *properties: BasicProperties, body: bytes = BODY
) -> Taken:
    deliveries = [Delivery(1, tag, each, body) for tag, each in enumerate(properties, start=1)]
    return Intake(get_queue("default"), adopt).take(deliveries, new_worker().pk)


def forged(name: str, **changes: Any) -> BasicProperties:
    """Names the function wherever a message can name anything."""
    headers = {"type": name, "task": name, "__module__": name, "py/object": name, "carrot": {"v": 2, "task": name}}
    values = {"message_id": str(uuid.uuid4()), "content_type": "application/json", "correlation_id": name[:255]}
    return BasicProperties(**{**values, "type": name, "reply_to": name, "headers": headers, **changes})


def ours(row: MessageLog, **headers: Any) -> BasicProperties:
    """A message that looks like one of carrot's own."""
    site = {"carrot": {"site": str(Installation.objects.site()), "v": 2}}
    return BasicProperties(message_id=str(row.uuid), type="django-carrot message", headers={**site, **headers})


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_function_that_is_named_by_a_message_without_a_row_is_a_stray(name: str) -> None:
    for properties in (forged(name), forged(name, headers={"type": name, "carrot": ours(new_row()).headers["carrot"]})):
        assert take(None, properties).claims == []
    assert StrayMessage.objects.count() == 2
    assert MessageLog.objects.filter(task=name).count() == 0


@pytest.mark.parametrize(
    "content_type", ["application/x-python-serialize", "application/x-yaml", "text/html", "", None]
)
def test_a_body_is_never_more_than_json(content_type: str | None) -> None:
    import pickle

    class Bomb:
        def __reduce__(self) -> Any:
            return os.getenv, ("HOME",)  # it would be a call all the same

    for body in (
        pickle.dumps(Bomb()),
        b"!!python/object/apply:os.system ['true']",
        b'{"py/reduce": [{"py/type": "os.system"}]}',
    ):
        taken = take(adopting, forged(ADD, content_type=content_type), body=body)
        assert all(claim.args == [] for claim in taken.claims)
    assert StrayMessage.objects.count() == 2  # the third is JSON, without arguments


@pytest.mark.parametrize("adopt", [adopting, believing])
@pytest.mark.parametrize("name", NAMES)
def test_a_consumer_that_makes_rows_of_messages_runs_no_function_that_is_not_registered(
    name: str, adopt: Callable[[Any, bytes], MessageLog]
) -> None:
    taken = take(adopt, forged(name), body=b'{"args": ["true"]}')
    for row in MessageLog.objects.all():
        assert (row.origin, row.queue, row.status) == (Origin.MESSAGE, "default", Status.IN_PROGRESS)
    bench = Bench()
    try:
        for claim in taken.claims:
            outcome = bench.run(name, *claim.args, origin=claim.origin)
            assert outcome.status == "FAILED"
            assert "not registered" in outcome.exception
    finally:
        bench.end()
    assert len(taken.claims) + StrayMessage.objects.count() == 1


def test_a_consumer_that_makes_rows_of_messages_runs_registered_functions() -> None:
    (claim,) = take(adopting, forged(ADD), body=b'{"args": [1, 2]}').claims
    bench = Bench()
    outcome = bench.run(claim.task, *claim.args, origin=claim.origin)
    bench.end()
    assert (claim.origin, outcome.status, outcome.output) == (Origin.MESSAGE, "COMPLETED", "3")


# -- rows of others ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adopt", [None, adopting, believing])
def test_in_the_name_of_a_row_its_own_task_runs_with_its_own_arguments(adopt: Any) -> None:
    row = new_row(args=[1, 2])
    properties = [
        ours(row, type="os.system"),
        forged("os.system", message_id=str(row.uuid)),
        forged("os.system", message_id=row.uuid.hex),
    ]
    (claim,) = take(adopt, *properties).claims
    assert (claim.id, claim.task, claim.args, claim.kwargs, claim.origin) == (row.pk, ADD, [1, 2], {}, Origin.CODE)
    assert MessageLog.objects.count() == 1


@pytest.mark.parametrize(
    "status", [status for status in Status if status not in (Status.PUBLISHED, Status.HANDED_OVER)]
)
@pytest.mark.parametrize("adopt", [None, adopting, believing])
def test_a_row_that_does_not_wait_for_a_message_is_left_as_it_is(status: str, adopt: Any) -> None:
    row = new_row(status=status, worker=new_worker() if status == Status.IN_PROGRESS else None)
    before = MessageLog.objects.values().get()
    taken = take(adopt, ours(row), forged("os.system", message_id=str(row.uuid)))
    assert taken.claims == []
    assert taken.back == set()
    assert MessageLog.objects.values().get() == before


@pytest.mark.parametrize("sent_at", ["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "2026-01-01", "", "x"])
def test_a_marker_of_somebody_else_rings_a_bell_at_most(sent_at: str) -> None:
    row = new_row(routing_key="default")
    site = ours(row).headers
    for headers in (site, {}, {"carrot": {"site": "another"}}):
        take(None, BasicProperties(type="django-carrot marker", headers=headers), body=sent_at.encode())
    row.refresh_from_db()
    assert (row.status, row.fence, row.args) == (Status.PUBLISHED, 0, [1, 2])


@pytest.mark.parametrize("site", ["another", "", "' OR 1=1 --", "x" * 10_000])
@pytest.mark.parametrize("adopt", [None, adopting, believing])
def test_what_another_installation_sent_goes_back_and_is_not_looked_into(site: str, adopt: Any) -> None:
    row = new_row()
    taken = take(
        adopt, BasicProperties(message_id=str(row.uuid), headers={"type": "os.system", "carrot": {"site": site}})
    )
    assert (taken.claims, taken.back, taken.foreign) == ([], {1}, True)
    assert StrayMessage.objects.count() == 0


# -- what people ask for ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", [Origin.ADMIN, Origin.MESSAGE])
def test_rows_of_strangers_are_shown_requeued_and_run_again_and_import_nothing(origin: str) -> None:
    statuses = [Status.FAILED, Status.COMPLETED]
    rows = [new_row(task=name or " ", origin=origin, status=status) for name in NAMES for status in statuses]
    strays = [
        StrayMessage.objects.create(received_at=clock.now(), queue="q", reason="r", task=name, body=BODY.decode())
        for name in NAMES
    ]
    visitor = Visitor(User.objects.create_superuser("root", password="secret"))
    for row in rows:
        visitor.get(f"/admin/carrot/messagelog/{row.pk}/change/")
        visitor.post(f"/admin/carrot/messagelog/{row.pk}/requeue/", {})
        visitor.post(f"/admin/carrot/messagelog/{row.pk}/run-again/", {})
    visitor.get("/admin/carrot/messagelog/", {"q": "true"})
    for stray in strays:
        visitor.get(f"/admin/carrot/straymessage/{stray.pk}/change/")
    waiting = MessageLog.objects.filter(status=Status.PUBLISHED)
    assert {row.origin for row in waiting} == {origin}
    assert waiting.count() == 2 * len(NAMES)


def test_a_schedule_made_by_a_person_names_registered_functions_only() -> None:
    visitor = Visitor(User.objects.create_superuser("root", password="secret"))
    schedule = make_schedule()
    url = f"/admin/carrot/scheduledtask/{schedule.pk}/"
    for name in NAMES:
        visitor.post("/admin/carrot/scheduledtask/add/", form_of(task=name))
        visitor.post(f"{url}change/", form_of(schedule, task=name))
        assert ScheduledTask.objects.get().task == ADD
    for name in NAMES:  # put there by a hand in the table, that is none in the code
        ScheduledTask.objects.update(task=name)
        visitor.get(f"{url}change/")
        visitor.post(f"{url}run/", {})
        with pytest.raises(CarrotError):
            ScheduledTask.objects.get().to_message()
    assert not MessageLog.objects.exists()
