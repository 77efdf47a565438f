"""Searching tasks: what is found, what is not, and what it costs."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from carrot.admin import search
from carrot.admin.redaction import Redaction
from carrot.admin.search import secret_key
from carrot.models import MessageLog, Origin, Status

from .conftest import MakeTask, list_url, text_of
from .test_lists import tasks_in


def found(client: Client, term: str, name: str = "messagelog") -> list[int]:
    return tasks_in(text_of(client.get(list_url(name, f"?q={quote(term)}"))))


def test_tasks_are_found_by_name_arguments_id_and_exception(viewer: Client, make_task: MakeTask) -> None:
    task = make_task(
        status=Status.FAILED,
        task="tests.admin.samples.greet",
        args=["Café Müller", 4242424242],
        kwargs={"times": 7, "colour": "grün"},
        exception="ValueError: out of coffee",
    )
    make_task(task="tests.app.tasks.noop")

    for term in (
        "samples.greet",
        "GREET",
        "Müller",
        "café",
        "4242424242",
        "colour",
        "grün",
        "out of coffee",
        str(task.uuid),
    ):
        assert found(viewer, term) == [task.pk], term
        assert found(viewer, term, "failedtask") == [task.pk], term
        assert found(viewer, term, "completedtask") == [], term
    assert found(viewer, str(task.uuid)[:13]) == [task.pk]
    assert found(viewer, "Müller coffee") == [task.pk]
    assert found(viewer, '"out of coffee"') == [task.pk]
    assert found(viewer, "Müller tea") == []
    for odd in ('"', "'", "\\", "%", "_", "\x00x", "(", "[a", "🥕", "''"):
        assert viewer.get(list_url("messagelog", f"?q={quote(odd)}")).status_code == 200, odd


def test_percent_and_underscore_are_no_wildcards(viewer: Client, make_task: MakeTask) -> None:
    make_task(args=["plain"])
    task = make_task(args=["100% sure"])

    assert found(viewer, "%") == [task.pk]


def test_a_message_id_is_looked_up_by_its_index(viewer: Client, make_task: MakeTask) -> None:
    task = make_task()

    with CaptureQueriesContext(connection) as queries:
        assert found(viewer, str(task.uuid)) == [task.pk]

    assert not [query["sql"] for query in queries if search._URL_PASSWORD in query["sql"]]


# -- what is masked --------------------------------------------------------------------------------------------------

SECRET = "hunter2"


@pytest.mark.parametrize(
    "values",
    [
        {"kwargs": {"password": SECRET}},
        {"kwargs": {"user": "anna", "API_KEY": SECRET}},
        {"kwargs": {"account": {"deep": [{"my_token_2": SECRET}]}}},
        {"kwargs": {'odd "pass" key': SECRET}},
        {"kwargs": {"pass\nword": SECRET}},
        {"kwargs": {"password": {"old": SECRET}}},
        {"kwargs": {"Passwört": [SECRET]}},
        {"kwargs": {"url": f"amqp://app:{SECRET}@host/shop"}},
        {"args": [{"secret": SECRET}]},
        {"args": ["x", f"https://u:{SECRET}@host/"]},
        {"args": ["anna", SECRET], "task": "tests.admin.samples.log_in"},
        {"args": ["anna", {"a": SECRET}], "task": "tests.admin.samples.log_in"},
        {"args": [SECRET], "task": "a.module.that.is.gone"},
        {"kwargs": {"card": SECRET}, "task": "a.module.that.is.gone"},
        {"kwargs": {"card": SECRET}, "task": "tests.admin.samples.greet", "origin": Origin.MESSAGE},
        {"kwargs": {"card": SECRET}, "task": "tests.admin.samples.pay"},
        {"kwargs": {"amount": {"deep": [{"PIN": SECRET}]}}, "task": "tests.admin.samples.pay"},
        {"args": [SECRET, 3], "task": "tests.admin.samples.pay"},
        {"args": [{"Card": SECRET}, 3], "task": "tests.admin.samples.pay"},
        {"args": ["x", 3, SECRET], "task": "tests.admin.samples.pay"},
        {"args": [SECRET], "task": "tests.admin.samples.collect"},
        {"args": [SECRET], "task": "tests.admin.samples.greet", "origin": Origin.MESSAGE},
        {"exception": f"OperationalError: cannot reach postgres://app:{SECRET}@host/db", "status": Status.FAILED},
        {"exception": f"OperationalError: smtp://anna@corp.example:{SECRET}@mail", "status": Status.FAILED},
        {"exception": f"{'x' * 275} amqp://shop:{SECRET}{'y' * 30}@host/", "status": Status.FAILED},
        {"exception": f"cannot reach amqp://shop:{SECRET}", "status": Status.FAILED},
        {"args": [f"amqp://shop:{SECRET}"]},
        {"args": [f"amqp://shop:1{SECRET}"]},
        {"kwargs": {"url": f"amqp://shop:123456,{SECRET}"}},
        {"kwargs": {"url": f"amqp://shop:/{SECRET}"}},
    ],
)
def test_what_is_masked_is_neither_shown_nor_found(viewer: Client, make_task: MakeTask, values: dict[str, Any]) -> None:
    task = make_task(**values)

    for name in ("messagelog", "failedtask"):
        assert SECRET not in text_of(viewer.get(list_url(name)))
    assert SECRET not in text_of(viewer.get(f"/admin/carrot/messagelog/{task.pk}/change/"))
    for length in range(2, len(SECRET) + 1):
        assert found(viewer, SECRET[:length]) == [], SECRET[:length]
    assert found(viewer, f"{task.task} {SECRET}") == []
    assert found(viewer, f'"{SECRET}"') == []


@pytest.mark.parametrize("origin", [Origin.CODE, Origin.MESSAGE])
@pytest.mark.parametrize("values", [{"args": [SECRET]}, {"kwargs": {"card": SECRET}}])
def test_a_function_that_is_gone_hides_its_arguments_whatever_the_project_masks(
    viewer: Client, make_task: MakeTask, settings: Any, values: dict[str, Any], origin: str
) -> None:
    settings.CARROT = {"default_broker": "database://", "redact": []}
    task = make_task(task="a.module.that.is.gone", origin=origin, **values)

    assert SECRET not in text_of(viewer.get(list_url("messagelog")))
    assert SECRET not in text_of(viewer.get(f"/admin/carrot/messagelog/{task.pk}/change/"))
    assert found(viewer, SECRET) == []


def test_what_has_nothing_to_hide_is_found_though_its_words_look_secret(viewer: Client, make_task: MakeTask) -> None:
    task = make_task(
        task="tests.admin.samples.greet",
        args=["lib/getpass.py", "https://host:8080/a", "x@y.example"],
        kwargs={"name": "my passport, please: monkey", "times": 3},
    )

    for term in ("getpass", "passport", "monkey", "x@y", "8080"):
        assert found(viewer, term) == [task.pk], term


def test_registered_tasks_are_found_by_their_positional_arguments(
    viewer: Client, make_task: MakeTask, settings: Any
) -> None:
    settings.CARROT = {"default_broker": "database://", "task_modules": ["tests.admin.samples"]}
    greeting = make_task(task="tests.admin.samples.greet", args=["needle"], origin=Origin.ADMIN)
    make_task(task="tests.admin.samples.log_in", args=["needle", "pw"], origin=Origin.ADMIN)

    assert found(viewer, "needle") == [greeting.pk]


def test_patterns_of_the_project_count(viewer: Client, make_task: MakeTask, settings: Any) -> None:
    make_task(kwargs={"iban": "DE0012345"})
    assert len(found(viewer, "DE0012345")) == 1

    for pattern in ("iban", "^iban$", r"\biban\b", "ib[a]n", "(?i)IBAN"):
        settings.CARROT = {"default_broker": "database://", "redact": [pattern]}
        assert found(viewer, "DE0012345") == [], pattern
        assert "DE0012345" not in text_of(viewer.get(list_url("messagelog"))), pattern

    settings.CARROT = {"default_broker": "database://", "redact": []}
    assert len(found(viewer, "DE0012345")) == 1


def test_what_a_registered_task_hides_is_not_found_either(viewer: Client, make_task: MakeTask, settings: Any) -> None:
    for redact in (["password"], []):
        settings.CARROT = {
            "default_broker": "database://",
            "task_modules": ["tests.admin.samples"],
            "redact": redact,
        }
        for origin in Origin.values:
            MessageLog.objects.all().delete()
            pay = make_task(task="tests.admin.samples.pay", kwargs={"card": SECRET, "amount": 3}, origin=origin)
            greeting = make_task(task="tests.admin.samples.greet", kwargs={"name": SECRET}, origin=origin)
            make_task(task="tests.admin.samples.pay", args=[SECRET, 3], origin=origin)

            assert found(viewer, SECRET) == [greeting.pk]
            assert SECRET not in text_of(viewer.get(f"/admin/carrot/messagelog/{pay.pk}/change/"))


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ('{"password": 1}', True),
        ('{"a": {"my_key_x": 1}}', True),
        ('{"a pass\\"word": 1}', True),
        ('{"note": "pass", "x": 1}', False),
        ('{"note": "the key: is here"}', False),
        ('["pass", {"x": "token"}]', False),
    ],
)
def test_the_databases_expression_finds_secret_keys(make_task: MakeTask, text: str, secret: bool) -> None:
    task = make_task()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE carrot_messagelog SET kwargs = %s WHERE id = %s", [text, task.pk])

    assert MessageLog.objects.filter(kwargs__iregex=secret_key(Redaction().patterns)).exists() is secret
