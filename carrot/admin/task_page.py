"""What the page of one task shows, ready for its template. Everything is masked here, and escaped there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from django.template.defaultfilters import filesizeformat
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from carrot.admin import display, highlighting, task_log
from carrot.admin.redaction import Redaction, url_passwords_masked
from carrot.arguments import MARK
from carrot.models import Attempt, MessageLog, Status

#: Earlier attempts that are shown; each has a log and a traceback.
MAX_ATTEMPTS = 20


@dataclass(frozen=True, kw_only=True)
class Block:
    """A value as text. ``note`` says what is special about it."""

    text: SafeString | str
    note: str = ""
    lines: int = 0


@dataclass(frozen=True, kw_only=True)
class EarlierAttempt:
    number: int
    worker: str
    started: SafeString | str
    ended: SafeString | str
    took: str
    exception: str
    traceback: SafeString | str
    log: task_log.TaskLog


@dataclass(frozen=True, kw_only=True)
class TaskPage:
    args: Block
    kwargs: Block
    output: Block | None
    exception: str
    traceback: SafeString | str
    log: task_log.TaskLog
    log_empty: str
    attempts: list[EarlierAttempt]
    attempts_left_out: int
    function_missing: bool


def page_of(task: Any, level: str) -> TaskPage:
    """The page of a task, its logs from ``level`` on. The task was read by ``MessageLogAdmin.get_object``."""
    redaction = Redaction()
    earlier = list(task.attempts.order_by("-number", "-pk")[: MAX_ATTEMPTS + 1])
    left_out = task.attempts.count() - MAX_ATTEMPTS if len(earlier) > MAX_ATTEMPTS else 0
    return TaskPage(
        args=_args(task, redaction),
        kwargs=_kwargs(task, redaction),
        output=_output(task.output_text),
        exception=url_passwords_masked(task.exception),
        traceback=highlighting.traceback(url_passwords_masked(task.traceback)),
        log=task_log.read(url_passwords_masked(task.log), level),
        log_empty=_log_empty(task),
        attempts=[_attempt(each, level) for each in earlier[:MAX_ATTEMPTS]],
        attempts_left_out=left_out,
        function_missing=redaction.parameters(task.task, task.origin) is None,
    )


def _args(task: Any, redaction: Redaction) -> Block:
    try:
        values = json.loads(task.args_text)
        shown = redaction.positional(task.task, task.origin, values)
    except (ValueError, TypeError, RecursionError):
        return _unreadable(task.args_text)
    return _json(shown.values, _why_hidden() if shown.hidden else "")


def _kwargs(task: Any, redaction: Redaction) -> Block:
    try:
        values = json.loads(task.kwargs_text)
        shown = redaction.keyword(task.task, task.origin, values)
    except (ValueError, TypeError, RecursionError):
        return _unreadable(task.kwargs_text)
    return _json(shown.values, _why_hidden() if shown.hidden else "")


def _why_hidden() -> str:
    return _(
        "The function of this task is not found here, so nobody can tell which of its arguments are secret. "
        "The values are hidden, as any may be."
    )


def _output(text: str | None) -> Block | None:
    """The result of a task; what :func:`carrot.arguments.encode_output` marked is shown as what it is."""
    if text is None:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return Block(text=url_passwords_masked(text), note=_("This is not JSON."))
    mark = value.get(MARK) if isinstance(value, dict) else None
    if mark == "repr":
        note = _("The result is not JSON. This is the repr() of a value of type %s.") % str(value.get("type", ""))[:200]
        return _text(str(value.get("text", "")), note)
    if mark == "cut":
        note = _("The result was too large to be stored: %s. This is its head and its tail.")
        return _text(str(value.get("text", "")), note % filesizeformat(value.get("size", 0)))
    return _json(value.get("value") if mark == "json" else value)


def _json(value: Any, note: str = "") -> Block:
    text = highlighting.json_value(_passwords_masked(value))
    return Block(text=text, note=note, lines=text.count("\n") + 1)


def _passwords_masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _passwords_masked(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_passwords_masked(item) for item in value]
    return url_passwords_masked(value) if isinstance(value, str) else value


def _text(text: str, note: str) -> Block:
    return Block(text=url_passwords_masked(text), note=note, lines=text.count("\n") + 1)


def _unreadable(text: str) -> Block:
    """What is no JSON, because somebody changed the row by hand, cannot be masked, and is not shown."""
    return Block(text="", note=_("%s of text that is not JSON, and is not shown.") % filesizeformat(len(text)))


def _log_empty(task: MessageLog) -> str:
    if task.status in (Status.WAITING, Status.PUBLISHED):
        return _("This attempt has not begun.")
    if task.status == Status.IN_PROGRESS:
        return _("Nothing has been logged so far. The log of a running task is stored every second or so.")
    return _("Nothing was logged.")


def _attempt(attempt: Attempt, level: str) -> EarlierAttempt:
    return EarlierAttempt(
        number=attempt.number,
        worker=attempt.worker,
        started=display.moment(attempt.start_time),
        ended=display.moment(attempt.end_time),
        took=display.between(attempt.start_time, attempt.end_time),
        exception=url_passwords_masked(attempt.exception),
        traceback=highlighting.traceback(url_passwords_masked(attempt.traceback)),
        log=task_log.read(url_passwords_masked(attempt.log), level),
    )
