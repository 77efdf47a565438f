"""Somebody who looks after failures: finds them, requeues those that can be mended, and deletes the others."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from functools import partial
from urllib.parse import urlencode

from django.conf import settings
from django.db.models import QuerySet
from launcher.browser import Browser
from launcher.pages import Page
from launcher.visits import INDEX
from library import tasks

from carrot.models import MessageLog
from carrot.utilities import create_message, publish_many
from inspection.steps import Steps, expect, wait_until

FAILED = f"{INDEX}failedtask/"
#: Seconds for a task of a few milliseconds.
PATIENCE = 20.0


class Operator:
    """Works through the actions of the list of failures, with the confirmation that each asks for."""

    def __init__(self, browser: Browser, steps: Steps) -> None:
        self._browser = browser
        self._steps = steps
        unique = secrets.token_hex(3)
        self._later, self._never = f"later-{unique}.csv", f"never-{unique}.csv"
        self._mended: list[MessageLog] = []
        self._hopeless: list[MessageLog] = []

    def work(self) -> None:
        """Every step, on four tasks that count the rows of reports which are not there."""
        self._fail()
        self._refuse_forgery()
        self._requeue()
        self._delete()

    def _fail(self) -> None:
        with self._steps.step("four tasks fail for lack of a file", "publish_many"):
            names = [self._later, self._later, self._never, self._never]
            rows = publish_many(create_message(tasks.count_rows, settings.REPORTS, task_args=(name,)) for name in names)
            self._mended, self._hopeless = rows[:2], rows[2:]
            _wait_for("FAILED", rows)

    def _refuse_forgery(self) -> None:
        with self._steps.step("a form without its CSRF token is refused", FAILED):
            page = self._browser.post(FAILED, {"action": "requeue", "_selected_action": str(self._mended[0].pk)})
            expect(page.status == 403, f"status {page.status} instead of 403")
            expect(_statuses(self._mended) == {"FAILED"}, "the task was requeued all the same")

    def _requeue(self) -> None:
        path = f"{FAILED}?{urlencode({'q': f'count_rows {self._later}'})}"
        with self._steps.step("find two failures by function and argument", path):
            found = self._browser.get(path)
            keys = {str(row.pk) for row in self._mended}
            boxes = found.form("_selected_action").offers["_selected_action"]
            expect(set(boxes) == keys, f"it offers the tasks {boxes}, not {keys}")
            self._write_report()
        with self._steps.step("select both, choose Requeue: it asks first", path):
            fields = {"action": "requeue", "_selected_action": boxes}
            question = self._asked(found, fields, "Requeue 2 tasks?")
            expect(_statuses(self._mended) == {"FAILED"}, "they were requeued before the question was answered")
        with self._steps.step("confirm: both are requeued, and complete", path):
            self._confirm(question, path, "2 tasks were requeued.")
            _wait_for("COMPLETED", self._mended)
            for row in self._mended:
                row.refresh_from_db()
                expect(row.output == 1, f"the output of task {row.pk} is {row.output!r}")
                attempts = [attempt.exception for attempt in row.attempts.all()]
                kept = len(attempts) == 1 and "FileNotFoundError" in attempts[0]
                expect(kept, f"the earlier attempts of task {row.pk} are {attempts}")

    def _delete(self) -> None:
        path = f"{FAILED}?{urlencode({'q': self._never})}"
        with self._steps.step("select all, choose Delete: it asks first", path):
            found = self._browser.get(path)
            # The box of the list's head, and "Select all": one row is enough then.
            fields = {"action": "delete_selected", "_selected_action": str(self._hopeless[0].pk), "select_across": "1"}
            question = self._asked(found, fields, "Delete 2 tasks?")
            expect(_statuses(self._hopeless) == {"FAILED"}, "they were deleted before the question was answered")
        with self._steps.step("confirm: both are deleted, and no other", path):
            self._confirm(question, path, "2 tasks were deleted.")
            expect(not _rows(self._hopeless).exists(), "their rows are still there")
            expect(_rows(self._mended).count() == 2, "others were deleted, too")

    def _asked(self, page: Page, fields: Mapping[str, str | Sequence[str]], title: str) -> Page:
        action = str(fields["action"])
        expect(action in page.form("action").offers["action"], f"the list does not offer {action}")
        question = self._browser.submit(page, "action", fields)
        expect(question.status == 200, f"status {question.status}")
        expect(title in question.text, f"“{title}” was not asked: {question.text[:300]}")
        return question

    def _confirm(self, question: Page, back: str, message: str) -> None:
        page = self._browser.submit(question, "question", {})
        expect(page.status == 200 and page.path == back, f"it led to {page.path} with status {page.status}")
        expect(message in page.text, f"it does not say “{message}”: {page.text[:300]}")

    def _write_report(self) -> None:
        directory = settings.SITE / "reports"
        directory.mkdir(exist_ok=True)
        (directory / self._later).write_text("module,bytes\nast.py,1\n", "utf-8")


def _rows(rows: Sequence[MessageLog]) -> QuerySet[MessageLog]:
    return MessageLog.objects.filter(pk__in=[row.pk for row in rows])


def _statuses(rows: Sequence[MessageLog]) -> set[str]:
    return set(_rows(rows).values_list("status", flat=True))


def _wait_for(status: str, rows: Sequence[MessageLog]) -> None:
    wait_until(lambda: _statuses(rows) == {status}, PATIENCE, partial(_found, rows))


def _found(rows: Sequence[MessageLog]) -> str:
    return f"they are {', '.join(sorted(_statuses(rows)))}"
