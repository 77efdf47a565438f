"""One message, and the ids."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
import time
from datetime import datetime, timezone
from typing import Any
from uuid import RFC_4122, UUID

import pytest
from django.test import override_settings

from carrot.exceptions import InvalidArguments
from carrot.message import Message, uuid7


def message(**changes: Any) -> Message:
    return Message(**{"task": "app.tasks.add", "queue": "default", "routing_key": "default", **changes})


def test_an_id_is_a_uuid_of_version_7_that_begins_with_the_time() -> None:
    before = time.time_ns() // 1_000_000
    made = uuid7()
    after = time.time_ns() // 1_000_000
    assert made.version == 7
    assert made.variant == RFC_4122
    # An id made just before may have pushed the clock of ids a little ahead.
    assert before <= made.int >> 80 <= after + 1


def test_each_id_is_larger_than_the_one_before() -> None:
    ids = [uuid7() for _ in range(20_000)]
    assert ids == sorted(set(ids))


def test_ids_keep_their_order_when_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    first = uuid7()
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert first < uuid7() < uuid7()


def test_ids_of_many_threads_are_unique_and_ordered_in_each() -> None:
    found: list[list[UUID]] = []

    def make() -> None:
        found.append([uuid7() for _ in range(2000)])

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(ids == sorted(ids) for ids in found)
    assert len({one for ids in found for one in ids}) == 8000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes do not fork here")
def test_a_forked_process_does_not_repeat_the_counter_and_does_not_hang_on_its_lock() -> None:
    script = """
import os
from unittest import mock
from carrot import message
with mock.patch("time.time_ns", return_value=10**18):
    message.uuid7()
    message._clock.lock.acquire()
    pid = os.fork()
    if pid:
        message._clock.lock.release()
        os.waitpid(pid, 0)
    for _ in range(3):
        print(message.uuid7().int >> 32, flush=True)
os._exit(0)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert len(set(run.stdout.split())) == 6


def test_a_message_owns_its_containers() -> None:
    args, kwargs = [1], {"a": 2}
    made = message(args=args, kwargs=kwargs)
    args.append(2)
    kwargs["b"] = 3
    assert made.args == (1,)
    assert made.kwargs == {"a": 2}


def test_messages_are_immutable_and_can_be_members_of_sets() -> None:
    made = message(kwargs={"a": []})
    assert made in {made}
    assert made != message(kwargs={"a": []})
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.queue = "other"  # type: ignore[misc]


def test_a_message_fills_in_what_most_do_not_say() -> None:
    made = message()
    assert (made.args, made.kwargs, made.priority, made.exchange) == ((), {}, 0, "")
    assert (made.run_after, made.origin, made.uuid.version) == (None, "code", 7)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("uuid", "5"),
        ("task", ""),
        ("task", None),
        ("queue", ""),
        ("queue", None),
        ("queue", "q" * 256),
        ("queue", "é" * 128),
        ("queue", "a\0"),
        ("routing_key", "\ud800"),
        ("routing_key", None),
        ("exchange", 5),
        ("priority", -1),
        ("priority", 256),
        ("priority", 1.0),
        ("priority", True),
        pytest.param("priority", 10**5000, id="priority of 5000 digits"),
        ("priority", "1"),
        ("priority", None),
        ("run_after", "tomorrow"),
        ("kwargs", {1: 2}),
    ],
)
def test_what_no_broker_can_carry_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidArguments, match=f"^{name} "):
        message(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("priority", 0),
        ("priority", 255),
        ("queue", "q" * 255),
        ("exchange", ""),
        ("routing_key", ""),
        ("run_after", datetime(2030, 1, 1, tzinfo=timezone.utc)),
    ],
)
def test_what_a_broker_can_carry_is_taken(name: str, value: Any) -> None:
    assert getattr(message(**{name: value}), name) == value


def test_the_text_of_a_call_looks_like_the_call() -> None:
    assert message(args=(1, "x"), kwargs={"b": [2]}).call_text() == "app.tasks.add(1, 'x', b=[2])"
    assert message().call_text() == "app.tasks.add()"


def test_the_text_of_a_call_is_cut_to_200_characters() -> None:
    text = message(args=("x" * 500,)).call_text()
    assert len(text) == 200
    assert text.endswith("x…)")


def test_secrets_are_masked_in_the_text_of_a_call() -> None:
    text = message(args=({"api_key": "one"},), kwargs={"password": "two", "rows": [{"Token": "three"}]}).call_text()
    assert text == "app.tasks.add({'api_key': '********'}, password=********, rows=[{'Token': '********'}])"


@override_settings(CARROT={"redact": ["^iban$"]})
def test_the_setting_says_what_is_a_secret() -> None:
    assert message(kwargs={"iban": 1, "password": 2}).call_text() == "app.tasks.add(iban=********, password=2)"
