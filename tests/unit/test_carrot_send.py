"""``manage.py carrot_send``."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.management import CommandError, call_command

from carrot.models import MessageLog

pytestmark = pytest.mark.django_db

ADD = "tests.app.tasks.add"


def test_arguments_are_json_and_what_is_not_json_is_a_string(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("carrot_send", "tests.app.tasks.fail", "plain text")
    call_command("carrot_send", ADD, "1.5", '{"a": [null]}')
    first, second = MessageLog.objects.order_by("pk")
    assert (first.args, second.args) == (["plain text"], [1.5, {"a": [None]}])
    assert f"to queue default as {second.uuid}." in capsys.readouterr().out


def test_queue_and_priority_are_options(settings: Any) -> None:
    settings.CARROT = {"default_broker": "database://", "queues": [{"name": "default"}, {"name": "mail"}]}
    call_command("carrot_send", ADD, "1", "2", "--queue", "mail", "--priority", "7")
    row = MessageLog.objects.get()
    assert (row.queue, row.priority) == ("mail", 7)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["no.such.task"], "no.such"),
        ([ADD, "1"], "missing a required argument"),
        ([ADD, "1", "2", "--queue", "mial"], "There is no queue"),
        ([ADD, "1", "2", "--priority", "256"], "priority is 256"),
    ],
)
def test_what_cannot_be_published_is_an_error_and_leaves_nothing(words: list[str], text: str) -> None:
    with pytest.raises(CommandError, match=text):
        call_command("carrot_send", *words)
    assert not MessageLog.objects.exists()


def test_a_database_without_tables_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MessageLog._meta, "db_table", "not_migrated")
    from carrot.models import insertion

    insertion._statement.cache_clear()
    with pytest.raises(CommandError, match=r"manage\.py migrate"):
        call_command("carrot_send", ADD, "1", "2")
    insertion._statement.cache_clear()
