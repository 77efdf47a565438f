"""Somebody who may log in to the admin, and has no permission there: sees nothing of carrot, and changes nothing."""

from __future__ import annotations

import secrets

from django.contrib.auth.models import Permission, User
from launcher.browser import HOME, Browser
from launcher.pages import Page
from launcher.visits import INDEX, TASKS

from carrot.models import MessageLog, ScheduledTask
from inspection.operator import FAILED
from inspection.planner import ADD, SCHEDULES, TASK
from inspection.steps import Steps, expect

NAME = "visitor"
CSRF = "csrfmiddlewaretoken"


class Visitor:
    """Tries the pages, the actions and the buttons; then once more as one who may see tasks, and only that."""

    def __init__(self, base: str, failure: MessageLog, steps: Steps) -> None:
        self._browser = Browser(base)
        self._failure = failure
        self._steps = steps
        self._page = f"{TASKS}{failure.pk}/change/"
        self._button = f"{TASKS}{failure.pk}/requeue/"

    def work(self) -> None:
        """Every step. The account is there only meanwhile."""
        User.objects.filter(username=NAME).delete()
        password = secrets.token_urlsafe(12)
        user = User.objects.create_user(NAME, password=password, is_staff=True)
        try:
            with self._steps.step("somebody without permission is shown nothing", HOME):
                self._browser.log_in(NAME, password)
                home = self._browser.get(HOME)
                links = [link for link in home.links if link.startswith(INDEX)]
                expect(not links, f"the admin shows {', '.join(links)}")
            self._try_pages()
            self._try_changes()
            user.user_permissions.set(
                Permission.objects.filter(content_type__app_label="carrot", codename="view_messagelog")
            )
            self._look()
        finally:
            user.delete()

    def _try_pages(self) -> None:
        for path in (INDEX, FAILED, TASKS, self._page, SCHEDULES, ADD, "/carrot/carrot/failedtask/"):
            with self._steps.step("and is refused its pages", path):
                page = self._browser.get(path)
                # Of an app of which nothing may be seen, the admin says that there is none.
                allowed = (403, 404) if path == INDEX else (403,)
                expect(page.status in allowed, f"status {page.status} instead of 403")
                expect("phlogiston" not in page.text, "the refusal shows an argument")

    def _try_changes(self) -> None:
        schedule = {"task_name": NAME, "task": TASK, "interval_count": "1", "interval_type": "seconds"}
        for path, fields in ((FAILED, self._action()), (self._button, {}), (ADD, schedule)):
            with self._steps.step("and every change", path):
                page = self._send(path, fields)
                expect(page.status == 403, f"status {page.status} instead of 403")
                self._expect_unchanged()

    def _look(self) -> None:
        with self._steps.step("who may only see tasks sees them", FAILED):
            page = self._browser.get(FAILED)
            expect(self._page in page.links, f"status {page.status}, without the failure")
            expect(not any("action" in form.offers for form in page.forms), "and is offered actions")
        with self._steps.step("and requeues none, by action or button", FAILED):
            page = self._send(FAILED, self._action())
            expect("Requeue 1 task?" not in page.text, "the action asks as if it were allowed")
            page = self._send(self._button, {})
            expect(page.status == 403, f"the button answers {page.status} instead of 403")
            self._expect_unchanged()

    def _action(self) -> dict[str, str]:
        return {"action": "requeue", "_selected_action": str(self._failure.pk), "post": "yes", "index": "0"}

    def _send(self, path: str, fields: dict[str, str]) -> Page:
        """As this person, with a token that is right: what is refused is the person."""
        home = self._browser.get(HOME)
        token = dict(home.form(CSRF).fields)[CSRF]
        return self._browser.post(path, {**fields, CSRF: token})

    def _expect_unchanged(self) -> None:
        self._failure.refresh_from_db()
        expect(self._failure.status == "FAILED", "the task was requeued all the same")
        expect(not ScheduledTask.objects.filter(task_name=NAME).exists(), "the schedule was made all the same")
