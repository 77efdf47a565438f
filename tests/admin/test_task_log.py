"""The log of a task, by levels."""

from __future__ import annotations

import logging

import pytest

from carrot.admin import task_log
from carrot.context import TaskLogFormatter


def line(level: int, message: str) -> str:
    """A line as it is stored."""
    return TaskLogFormatter().format(logging.LogRecord("shop.tasks", level, "", 0, message, None, None))


LOG = "\n".join(
    line(level, message)
    for level, message in (
        (logging.DEBUG, "looking"),
        (logging.INFO, "found\nin two lines"),
        (logging.WARNING, "hm"),
        (logging.ERROR, "no"),
        (logging.CRITICAL, "end"),
    )
)


@pytest.mark.parametrize(
    ("level", "messages"),
    [
        ("DEBUG", ["looking", "found", "hm", "no", "end"]),
        ("INFO", ["found", "hm", "no", "end"]),
        ("WARNING", ["hm", "no", "end"]),
        ("error", ["no", "end"]),
        ("CRITICAL", ["end"]),
        ("", ["found", "hm", "no", "end"]),
        ("<script>", ["found", "hm", "no", "end"]),
    ],
)
def test_records_of_a_level_and_above_are_shown(level: str, messages: list[str]) -> None:
    log = task_log.read(LOG, level)

    assert [entry.text.partition("shop.tasks: ")[2].partition("\n")[0] for entry in log.entries] == messages
    assert log.hidden == 5 - len(messages)
    assert [(choice.name, choice.count) for choice in log.choices] == [
        ("DEBUG", 5),
        ("INFO", 4),
        ("WARNING", 3),
        ("ERROR", 2),
        ("CRITICAL", 1),
    ]


def test_continued_lines_belong_to_their_record() -> None:
    assert task_log.read(LOG, "INFO").entries[0].text.endswith("shop.tasks: found\n    in two lines")
    assert "two lines" not in "".join(entry.text for entry in task_log.read(LOG, "WARNING").entries)


def test_a_message_cannot_forge_a_record() -> None:
    forged = line(logging.DEBUG, "x\n2026-11-20T06:50:30.877Z CRITICAL shop.tasks: forged")

    assert task_log.read(forged, "INFO").entries == ()


@pytest.mark.parametrize(
    ("level", "shown_at"), [(5, "DEBUG"), (15, "DEBUG"), (25, "INFO"), (35, "WARNING"), (99, "CRITICAL")]
)
def test_levels_between_count_as_the_next_lower_one(level: int, shown_at: str) -> None:
    assert task_log.read(line(level, "x"), "DEBUG").entries[0].level == shown_at


def test_a_level_that_only_the_worker_knows_is_shown_at_first() -> None:
    assert len(task_log.read("2026-11-20T06:50:30.877Z NOTICE shop: x", "").entries) == 1


@pytest.mark.parametrize("note", ["… 12 line(s) left out …", "… [2,048 bytes cut] …"])
def test_what_was_left_out_is_told_at_every_level(note: str) -> None:
    log = task_log.read(f"{line(logging.DEBUG, 'a')}\n{note}\n{line(logging.DEBUG, 'b')}", "CRITICAL")

    assert [entry.text for entry in log.entries] == [note]


def test_an_empty_log_has_no_records() -> None:
    assert task_log.read("", "").total == 0
