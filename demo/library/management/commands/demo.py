"""``manage.py demo``: what ``scripts/demo`` does in its environment: service, site, work, and a look at them."""

from __future__ import annotations

import os
import secrets
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandParser
from inspection.check import SERVICE_GRACE, Check
from inspection.daemon import Daemon
from launcher import DemoError
from launcher.options import DEFAULT_PORT, port
from launcher.processes import LOOK, Child, catch_signals
from launcher.site import HOST, start_site
from launcher.visits import INDEX, MONITOR, TASKS

from carrot import publisher
from carrot.conf import get_settings
from carrot.exceptions import CarrotConfigException
from library.work import MISSING, Job, publish_work

MANAGE = Path(__file__).resolve().parents[3] / "manage.py"
USER = "admin"
#: Seconds for logging in to the broker, whose address is known to answer: so many for each of its hosts.
LOGIN_PATIENCE = 4.0
#: Seconds until the service must be ready.
START_PATIENCE = 60.0
#: Problems that are repeated after the tables.
SHOWN = 10


class Command(BaseCommand):
    help = "Runs the demo: the service, the site, and tasks on the sources of the standard library."
    requires_system_checks = ()  # migrate makes them, once there is a database

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--check", action="store_true", help="look at everything and end")
        parser.add_argument("--port", type=port, default=DEFAULT_PORT, metavar="N", help="the first port to try")

    def handle(self, *args: Any, check: bool, port: int, **options: Any) -> None:
        catch_signals()
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
        problems: list[str] = []
        status, staying = 0, False
        try:
            with ExitStack() as running:
                try:
                    service, base, password, jobs = self._start(port, running)
                    if check:
                        inspection = Check(service, base, (USER, password), jobs)
                        problems += inspection.tasks()
                        problems += inspection.pages()
                        problems += inspection.monitor()
                        problems += inspection.daemon(MANAGE)
                    else:
                        self._show(base, password, jobs)
                        staying = True
                        self._stay()
                except KeyboardInterrupt:
                    self._say("\nStopping: running tasks are finished first; another Ctrl+C does not wait for them.")
                    running.close()
                    self._say("Everything has ended.")
                    sys.exit(0 if staying else 130)
            if check:
                status = self._verdict([*problems, *inspection.service()])
        except DemoError as error:
            self._say(f"\nscripts/demo: {error}", sys.stderr)
            status = 1
        sys.exit(status)

    def _say(self, text: str, stream: Any = None) -> None:
        print(text, file=stream or sys.stdout, flush=True)

    # -- starting -------------------------------------------------------------------------------------------------

    def _start(self, port: int, running: ExitStack) -> tuple[Child, str, str, list[Job]]:
        call_command("migrate", verbosity=0)
        password = _account()
        try:
            broker = get_settings().default_broker
        except CarrotConfigException as error:
            raise DemoError(str(error)) from None
        if not broker.is_database:
            _try_broker()
        Daemon(MANAGE, settings.SITE).clear()  # of a check that was killed
        words = [str(MANAGE), "carrot", "--logfile", str(settings.SITE / "carrot.log"), "--loglevel", "INFO"]
        log = settings.SITE / "service.log"
        service = Child("service", [sys.executable, *words], env=os.environ, cwd=MANAGE.parent, log=log)
        self._children = [service]
        running.callback(service.end, SERVICE_GRACE)
        site, free_port = start_site(MANAGE, settings.SITE / "site.log", port, running)
        self._children.append(site)
        if free_port != port:
            self._say(f"Port {port} is taken; the site is on port {free_port}.")
        jobs = publish_work()
        _wait_ready(service)
        what = "the embedded broker" if broker.is_database else f"RabbitMQ at {broker}"
        self._say(f"The service runs on {what}; {len(jobs)} tasks were published.")
        return service, f"http://{HOST}:{free_port}", password, jobs

    # -- staying --------------------------------------------------------------------------------------------------

    def _show(self, base: str, password: str, jobs: list[Job]) -> None:
        long, failed = jobs[0].row, jobs[-1].row
        self._say(f"""
    {base}{INDEX}
    user {USER}, password {password}
    {base}{MONITOR} is the same on a site of its own, without the rest of the admin

What to see there:
    {base}{TASKS}{long.pk}/change/
        a long task, with its log while it runs
    {base}{TASKS}{failed.pk}/change/
        a task that fails on purpose, with its traceback
    {base}{TASKS}?q={MISSING}
        the search, by function or argument

{settings.SITE}/reports has the report that a task writes, {settings.SITE}/carrot.log the log of the service.
To publish more, in another terminal:
    '{settings.SITE}/manage' shell
    >>> from carrot.utilities import publish_message
    >>> from library import tasks
    >>> publish_message(tasks.checksum, "ast.py", algorithm="sha512")

Ctrl+C ends everything.""")

    def _stay(self) -> NoReturn:
        """Until a signal comes. Raises DemoError if a process ends before."""
        while True:
            for child in self._children:
                if child.status is not None:
                    raise DemoError(f"The {child.name} has ended with status {child.status}:\n{child.tail()}")
            time.sleep(0.5)

    # -- checking -------------------------------------------------------------------------------------------------

    def _verdict(self, problems: list[str]) -> int:
        if not problems:
            self._say("\nEvery task, every page and every step is as it should be.")
            return 0
        self._say(f"\n{len(problems)} thing(s) are not as they should be:")
        for problem in problems[:SHOWN]:
            self._say(f"  - {problem}")
        if len(problems) > SHOWN:
            self._say(f"  and {len(problems) - SHOWN} more, in the tables above.")
        self._say(f"The logs are in {settings.SITE}.")
        return 1


def _account() -> str:
    """Make sure that the account is there; return its password, which is the same in every run on this site."""
    kept = settings.SITE / "password"
    if not kept.exists():
        kept.touch(mode=0o600)
        kept.write_text(secrets.token_urlsafe(9), "ascii")
    password = kept.read_text("ascii")
    user = get_user_model().objects.filter(username=USER).first()
    if user is None:
        get_user_model().objects.create_superuser(USER, password=password)
    elif not user.check_password(password):
        user.set_password(password)
        user.save()
    return password


def _try_broker() -> None:
    """Raises DemoError if the broker refuses user, password or virtual host."""
    host = get_settings().default_broker
    broker = publisher.broker_of(host)
    ends = time.monotonic() + LOGIN_PATIENCE * len(host.hosts)
    while not broker.can_ring():
        if time.monotonic() > ends:
            raise DemoError(f"The broker {host} cannot be used ({broker.describe()}): correct --broker.")
        time.sleep(LOOK)


def _wait_ready(service: Child) -> None:
    ends = time.monotonic() + START_PATIENCE
    while "carrot is ready" not in service.output():
        if service.status is not None or time.monotonic() > ends:
            raise DemoError(f"The service does not start; it says\n{service.tail()}")
        time.sleep(LOOK)
