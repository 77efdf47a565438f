"""The whole of ``--check``: tasks, pages, work in the monitor, the daemon. Prints a table of each."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from launcher import DemoError
from launcher.browser import Browser
from launcher.processes import LOOK, Child
from launcher.tables import table
from launcher.visits import Detail, visit_all
from library.work import MISSING, Job

from carrot.models import MessageLog
from inspection.daemon import Daemon
from inspection.operator import Operator
from inspection.planner import Planner
from inspection.steps import Steps
from inspection.visitor import Visitor

#: Seconds until every task must have ended.
WORK_PATIENCE = 120.0
#: Seconds the service gets to end: its own grace and what it needs besides.
SERVICE_GRACE = 50.0
RIGHT = "as it should be"
#: An error in the log of a service that is not the failure of a task.
OWN_ERROR = re.compile(r" (ERROR|CRITICAL) (?!carrot\.tasks:)|^Traceback")
FINAL = ("COMPLETED", "FAILED", "CANCELLED")


class Check:
    """Works with a demo that runs. Each method prints what it saw, and returns what is wrong."""

    def __init__(self, service: Child, base: str, account: tuple[str, str], jobs: list[Job]) -> None:
        self._service = service
        self._base = base
        self._user, self._password = account
        self._jobs = jobs

    def tasks(self) -> list[str]:
        """Wait for every task, and compare what came of it with what must."""
        rows = self._wait_ended()
        lines, problems = [], []
        for job in self._jobs:
            row = rows[job.row.pk]
            wrong = _what_is_wrong(job, row)
            problems += [f"{row.task}({_arguments(row)}): {wrong}"] if wrong else []
            lines.append([row.task, _arguments(row), row.get_status_display(), _took(row), wrong or RIGHT])
        print(table("Tasks", ["task", "arguments", "status", "seconds", "result"], lines), flush=True)
        return problems

    def pages(self) -> list[str]:
        """Look at every page."""
        details = [Detail(pk=job.row.pk, name=job.row.task, shows=job.shows) for job in self._jobs]
        failure = Detail(pk=self._jobs[-1].row.pk, name="fail_on_purpose", shows=(MISSING,))
        lines, problems = [], []
        for visit in visit_all(self._base, self._user, self._password, details, failure):
            page = visit.page
            problems += [f"{page.path} ({visit.what}): {visit.problem}"] if visit.problem else []
            lines.append([visit.what, page.path, str(page.status), f"{page.took * 1000:.0f}", visit.problem or RIGHT])
        print(table("Pages", ["page", "path", "status", "ms", "result"], lines), flush=True)
        return problems

    def monitor(self) -> list[str]:
        """Requeue, delete and schedule in the monitor; be refused there."""
        browser = Browser(self._base)
        browser.log_in(self._user, self._password)
        steps = Steps()
        visitor = Visitor(self._base, self._jobs[-1].row, steps)
        steps.walk(Operator(browser, steps).work, Planner(browser, steps).work, visitor.work)
        return _told("Work in the monitor", steps)

    def daemon(self, manage: Path) -> list[str]:
        """End the service in the foreground, and let a daemon do its work."""
        self._service.end(SERVICE_GRACE)
        steps = Steps()
        daemon = Daemon(manage, settings.SITE)
        steps.walk(lambda: daemon.work(steps))
        log = daemon.log.read_text("utf-8", "replace") if daemon.log.exists() else ""
        return [*_told("The daemon", steps), *(f"the daemon logged: {line}" for line in own_errors(log))]

    def service(self) -> list[str]:
        """What was wrong with the service in its whole life, which is over: how it ended, and errors of its own."""
        service = self._service
        problems = [] if service.status == 0 else [f"the service ended with status {service.status}:\n{service.tail()}"]
        return [*problems, *(f"the service logged: {line}" for line in own_errors(service.output()))]

    def _wait_ended(self) -> dict[int, MessageLog]:
        published = MessageLog.objects.filter(pk__in=[job.row.pk for job in self._jobs])
        ends = time.monotonic() + WORK_PATIENCE
        while published.exclude(status__in=FINAL).exists():
            if self._service.status is not None:
                raise DemoError(f"The service has ended with status {self._service.status}:\n{self._service.tail()}")
            if time.monotonic() > ends:
                break  # the table shows which did not end
            time.sleep(LOOK)
        return {row.pk: row for row in published}


def own_errors(log: str) -> Iterator[str]:
    """The lines in which a service tells an error of its own."""
    return (line for line in log.splitlines() if OWN_ERROR.search(line))


def _told(title: str, steps: Steps) -> list[str]:
    lines = [[step.what, step.where, f"{step.took:.2f}", step.problem or RIGHT] for step in steps.taken]
    print(table(title, ["step", "where", "seconds", "result"], lines), flush=True)
    return [f"{step.what} ({step.where}): {step.problem}" for step in steps.taken if step.problem]


def _what_is_wrong(job: Job, row: MessageLog) -> str:
    if row.status != job.status:
        return f"{row.status} instead of {job.status}: {row.exception or row.note or 'no reason is given'}"
    if not job.is_right(row.output):
        return f"its output is wrong: {row.output!r:.200}"
    if len(row.log.splitlines()) < job.log_lines:
        return f"its log has {len(row.log.splitlines())} of {job.log_lines} lines"
    return ""


def _arguments(row: MessageLog) -> str:
    return ", ".join([*map(repr, row.positionals), *(f"{name}={value!r}" for name, value in row.keywords.items())])


def _took(row: MessageLog) -> str:
    ended = row.completion_time or row.failure_time
    return f"{(ended - row.start_time).total_seconds():.3f}" if ended and row.start_time else ""
