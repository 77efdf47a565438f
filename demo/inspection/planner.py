"""Somebody who makes a schedule: with the chooser of functions and the fields for JSON."""

from __future__ import annotations

import hashlib
import secrets

from django.conf import settings
from django.db.models import QuerySet
from launcher.browser import Browser
from launcher.visits import INDEX
from library.sources import modules, source

from carrot.models import MessageLog, ScheduledTask
from inspection.steps import Steps, expect, wait_until

SCHEDULES = f"{INDEX}scheduledtask/"
ADD = f"{SCHEDULES}add/"
TASK = "library.tasks.checksum"
ALGORITHM = "sha512"
#: Seconds until a schedule of one second has run: the service sees it within two.
PATIENCE = 20.0


class Planner:
    """Makes a schedule, sees its task complete, and deletes it again."""

    def __init__(self, browser: Browser, steps: Steps) -> None:
        self._browser = browser
        self._steps = steps
        self._name = f"check {secrets.token_hex(3)}"
        self._module = modules()[0].name

    def work(self) -> None:
        """Every step. Whatever happens, no schedule is left."""
        try:
            self._mistype()
            self._make()
            self._run()
            self._delete()
        finally:
            self._schedules().delete()

    def _schedules(self) -> QuerySet[ScheduledTask]:
        return ScheduledTask.objects.filter(task_name=self._name)

    def _fields(self) -> dict[str, str]:
        return {
            "task_name": self._name,
            "task": TASK,
            "args": f'["{self._module}"]',
            "kwargs": f'{{"algorithm": "{ALGORITHM}"}}',
            "interval_count": "1",
            "interval_type": "seconds",
            "queue": settings.FILES,
        }

    def _mistype(self) -> None:
        with self._steps.step("a schedule with broken JSON is not taken", ADD):
            page = self._browser.get(ADD)
            offers = page.form("task_name").offers
            expect(TASK in offers["task"], f"the chooser lacks {TASK}")
            expect(settings.FILES in offers["queue"], f"the queues lack {settings.FILES}")
            page = self._browser.submit(page, "task_name", {**self._fields(), "args": f'["{self._module}"'})
            expect("This is not JSON" in page.text, f"it does not say so: {page.text[:300]}")
            kept = dict(page.form("task_name").fields)["args"]
            expect(kept == f'["{self._module}"', f"it does not keep what was typed: {kept}")
        with self._steps.step("nor one with arguments that do not fit", ADD):
            page = self._browser.submit(page, "task_name", {**self._fields(), "kwargs": '{"colour": "red"}'})
            expect(page.path == ADD and "colour" in page.text, f"it led to {page.path}: {page.text[:300]}")
            expect(not self._schedules().exists(), "it was made all the same")

    def _make(self) -> None:
        with self._steps.step("a schedule for every second is made", ADD):
            page = self._browser.submit(self._browser.get(ADD), "task_name", self._fields())
            expect(page.path == SCHEDULES and "was added successfully" in page.text, f"it says {page.text[:300]}")
            made = self._schedules().get()
            given = (made.task, made.args, made.kwargs, made.interval_count, made.interval_type, made.active)
            right = (TASK, [self._module], {"algorithm": ALGORITHM}, 1, "seconds", True)
            expect(given == right, f"the row has {given}")

    def _run(self) -> None:
        with self._steps.step("its task completes", SCHEDULES):
            schedule = self._schedules().get()
            found: list[MessageLog] = []

            def is_complete() -> bool:
                schedule.refresh_from_db()
                row = schedule.find_last_message()
                if row is not None and row.status == "COMPLETED":
                    found.append(row)
                return bool(found)

            wait_until(is_complete, PATIENCE, lambda: f"none has: {schedule.problem or 'the last one has not ended'}")
            right = hashlib.new(ALGORITHM, source(self._module).read_bytes()).hexdigest()
            expect(found[0].output == right, f"its output is wrong: {found[0].output!r:.200}")

    def _delete(self) -> None:
        path = f"{SCHEDULES}{self._schedules().get().pk}/delete/"
        with self._steps.step("it is deleted, after a question", path):
            question = self._browser.get(path)
            expect("Are you sure" in question.text and self._schedules().exists(), "it was not asked")
            page = self._browser.submit(question, "post", {})
            expect(page.path == SCHEDULES and "was deleted successfully" in page.text, f"it says {page.text[:300]}")
            expect(not self._schedules().exists(), "its row is still there")
