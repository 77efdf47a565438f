"""Copies of completed tasks: one for each press, whatever arrives how often."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import uuid4

import pytest

from carrot.admin import copies
from carrot.message import Message, uuid7
from carrot.models import MessageLog, Status
from carrot.services import publish_many

from .conftest import MakeTask


def test_the_id_of_a_copy_follows_from_the_press_and_the_task() -> None:
    token, original = uuid7(), uuid4()

    found = copies.copy_id(original, token)

    assert found == copies.copy_id(original, token)
    assert found not in (copies.copy_id(uuid4(), token), copies.copy_id(original, uuid7()), token, original)
    assert (found.version, found.variant) == (7, token.variant)
    assert found.int >> 80 == token.int >> 80  # the time: new rows go to the end of the index


def test_of_two_presses_at_once_one_makes_the_copies(make_task: MakeTask, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [make_task(), make_task()]

    def another_request_is_quicker(messages: Iterable[Message]) -> Any:
        monkeypatch.setattr(copies, "publish_many", publish_many)
        publish_many(messages)
        return publish_many(messages)

    monkeypatch.setattr(copies, "publish_many", another_request_is_quicker)

    result = copies.run_again([task.pk for task in tasks], uuid7())

    assert (result.done, dict(result.skipped)) == (0, {"run again already": 2})
    assert MessageLog.objects.filter(status=Status.PUBLISHED).count() == 2


def test_only_completed_tasks_of_queues_that_exist_are_copied(make_task: MakeTask) -> None:
    tasks = [make_task(), make_task(status=Status.FAILED), make_task(queue="gone")]

    result = copies.run_again([*(task.pk for task in tasks), 999_999], uuid7())

    assert result.done == 1
    assert dict(result.skipped) == {
        "status: Failed": 1,
        "queue gone is not in the settings any more": 1,
        "not there any more": 1,
    }
