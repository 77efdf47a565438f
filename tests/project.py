"""Scratch projects for tests with real processes: the fixture ``project``.

    def test_a_published_task_is_run(project):
        site = project(database="postgresql", broker="amqp", lease=3.0, heartbeat=0.5)
        service = site.service("--processes", "2")
        service.wait_ready()
        site.publish("tests.app.tasks.add", 1, 2)
        site.wait_until("SELECT count(*) = 1 FROM carrot_messagelog WHERE status = 'COMPLETED'")

Each project has its own migrated database, its own broker (a fresh virtual host, or ``database://``) and a directory,
which is the working directory of its processes and on their import path. When the test ends every process of the
project is ended, found by a marker in its environment that all its descendants inherit, and everything is removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import psycopg

from tests.servers import PostgreSQL
from tests.servers.process import POLL, wait_until
from tests.service import Service, marked_processes

Database = Literal["sqlite", "postgresql"]
Broker = Literal["amqp", "database"]

CHECKOUT = Path(__file__).resolve().parent.parent
MARKER = "CARROT_TEST_PROJECT"


class Project:
    """One scratch project. Its methods do not need Django; what does runs in a process of the project."""

    def __init__(
        self,
        directory: Path,
        database: Database,
        database_name: str,
        server: PostgreSQL | None,
        carrot_settings: Mapping[str, Any],
        broker_url: str = "database://",
        database_port: int | None = None,
    ) -> None:
        self.directory = directory
        self.database = database
        self.database_name = database_name
        self.settings = dict(carrot_settings)
        #: Where the test itself finds the broker: the setting may lead through a proxy.
        self.broker_url = broker_url
        self.services: list[Service] = []
        self._server = server
        self._marker = f"{MARKER}={uuid.uuid4().hex}"
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("CARROT_", "PYTHON", "DJANGO"))
        }
        self.env = kept | {
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "PYTHONPATH": os.pathsep.join([str(CHECKOUT), str(directory)]),
            "PYTHONUNBUFFERED": "1",
            "PYTHONWARNINGS": "error",
            "CARROT_TEST_DATABASE": database,
            "CARROT_TEST_DATABASE_NAME": database_name,
            MARKER: self._marker.partition("=")[2],
        }
        if server is not None:
            self.env["CARROT_TEST_POSTGRES"] = server.url if database_port is None else _at(server.url, database_port)
        self.configure()

    def configure(self, **carrot_settings: Any) -> None:
        """Change keys of the setting CARROT for processes started from now on."""
        self.settings.update(carrot_settings)
        self.env["CARROT_TEST_SETTINGS"] = json.dumps(self.settings)

    # -- processes ------------------------------------------------------------------------------------------------

    def manage(self, *args: str | Path, check: bool = True, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run ``manage.py ARGS`` to its end, its output (both streams) in ``stdout``.

        With ``check`` a non-zero exit code fails the test and shows the output.
        """
        return self._run(["-m", "django", *map(str, args)], check, timeout)

    def python(self, code: str, check: bool = True, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run Python code in a fresh process after ``django.setup()``, its output (both streams) in ``stdout``."""
        return self._run(["-c", f"import django\ndjango.setup()\n{code}"], check, timeout)

    def publish(self, task: str, *args: Any, **kwargs: Any) -> int:
        """Publish with ``carrot.utilities.publish_message`` in a fresh process; return the row's primary key."""
        call = f"publish_message({task!r}, *{args!r}, **{kwargs!r})"
        done = self.python(f"from carrot.utilities import publish_message\nprint('pk', {call}.pk)")
        return int(re.findall(r"^pk (\d+)$", done.stdout, re.MULTILINE)[-1])

    def service(self, *args: str | Path, env: Mapping[str, str] | None = None) -> Service:
        """Start ``manage.py carrot ARGS`` in its own session and return at once; see ``Service.wait_ready``.

        The log file is ``carrot.log`` in the project's directory unless ``args`` names another; ``env`` is added to the
        environment.
        """
        words = [str(word) for word in args]
        if not any(word.startswith(("-l", "--logfile")) and not word.startswith("--loglevel") for word in words):
            words += ["--logfile", str(self.directory / "carrot.log")]
        output = self.directory / f"service-{len(self.services) + 1}.out"
        service = Service(
            [sys.executable, "-m", "django", "carrot", *words],
            self.env | dict(env or {}),
            self._marker,
            self.directory,
            output,
        )
        self.services.append(service)
        return service

    def end_processes(self) -> None:
        """End whatever of the project still runs: services get SIGTERM and five seconds, then all get SIGKILL."""
        for service in self.services:
            service.end()
        deadline = time.monotonic() + 10.0
        while left := marked_processes(self._marker):  # looked up again: a process may have forked at that moment
            for process in left:
                process.kill()
            if time.monotonic() > deadline:
                raise AssertionError(f"Processes survive SIGKILL: {[process.pid for process in left]}")
            time.sleep(POLL)

    def processes(self) -> list[int]:
        """Return the pids of all living processes of this project, daemons included (Linux)."""
        return [process.pid for process in marked_processes(self._marker)]

    # -- rows -----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def connect(self) -> Iterator[Any]:
        """A DB-API connection of the test itself, in autocommit: for transactions and locks say BEGIN."""
        if self._server is None:
            with contextlib.closing(
                sqlite3.connect(self.database_name, timeout=20, isolation_level=None)
            ) as connection:
                yield connection
        else:
            url = self._server.url_of(self.database_name)
            with psycopg.connect(url, autocommit=True) as other:
                yield other

    def sql(self, query: str, params: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Run one statement, with ``%s`` for parameters on both databases; return its rows."""
        with self.connect() as connection:
            if self._server is None:
                query = query.replace("%s", "?")
            cursor = connection.execute(query, tuple(params)) if params else connection.execute(query)
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()] if names else []

    def wait_until(self, condition: str | Callable[[], Any], timeout: float = 30.0, message: str = "") -> None:
        """Wait until a function, or the first column of a query's first row, is true; ``timeout`` in seconds.

        Fails the test when it does not come true, with the services' output.
        """
        held = condition if callable(condition) else lambda: self._first_value(condition)
        if not wait_until(lambda: bool(held()), timeout):
            wanted = message or (condition if isinstance(condition, str) else "the condition")
            raise AssertionError(f"After {timeout:g} s still not so: {wanted}\n{self._report()}")

    def _first_value(self, query: str) -> Any:
        rows = self.sql(query)
        return next(iter(rows[0].values())) if rows else None

    # -- inside ---------------------------------------------------------------------------------------------------

    def remove(self) -> None:
        """End all processes of the project, and delete its database and directory."""
        print(self._report())  # pytest shows it where the test has failed
        self.end_processes()
        if self._server is not None:
            self._server.start()  # the test may have stopped it
            self._server.drop_database(self.database_name)
        shutil.rmtree(self.directory)

    def _run(self, words: list[str], check: bool, timeout: float) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, *words],
            env=self.env,
            cwd=self.directory,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}")
        return done

    def _report(self) -> str:
        """What the services have said, but for the tasks that went well."""
        parts = []
        for service in self.services:
            lines = [line[:500] for line in service.output().splitlines() if " completed in " not in line]
            parts.append("\n".join([f"--- output of service {service.pid}", *lines[-60:]]))
        return "\n".join(parts)


class ProjectFactory:
    """Makes projects from a template per database, migrated once per test session."""

    def __init__(self, directory: Path, server: PostgreSQL) -> None:
        self._directory = directory
        self._server = server
        self._templates: dict[Database, str] = {}
        self._label = ""
        self._url_of_vhost: Callable[[], str] | None = None
        self._at_end: contextlib.ExitStack | None = None

    def for_one_test(self, label: str, url_of_vhost: Callable[[], str], at_end: contextlib.ExitStack) -> ProjectFactory:
        """Return a factory that shares the templates, and removes its projects when ``at_end`` is closed."""
        factory = ProjectFactory(self._directory, self._server)
        factory._templates = self._templates  # the same dict: what one test migrates serves all
        factory._label = re.sub(r"\W+", "-", label)[:40]
        factory._url_of_vhost, factory._at_end = url_of_vhost, at_end
        return factory

    def __call__(
        self,
        database: Database = "sqlite",
        broker: Broker = "database",
        database_port: int | None = None,
        broker_port: int | None = None,
        **carrot_settings: Any,
    ) -> Project:
        """Make a project; ``carrot_settings`` are keys of the setting CARROT.

        All projects of one test share its virtual host. ``database_port`` and ``broker_port``: where its processes find
        PostgreSQL and RabbitMQ, instead of at the servers' own ports, which the test itself goes on to use.
        """
        if self._url_of_vhost is None or self._at_end is None:
            raise AssertionError("Projects are made within a test, by its fixture `project`.")
        broker_url = str(carrot_settings.get("default_broker", ""))
        if not broker_url:
            broker_url = self._url_of_vhost() if broker == "amqp" else "database://"
            carrot_settings["default_broker"] = broker_url if broker_port is None else _at(broker_url, broker_port)
        if database == "postgresql":
            self._server.start()
        name = f"project_{uuid.uuid4().hex[:12]}"
        directory = self._directory / f"{self._label} {name}"  # with a space, as users have them
        directory.mkdir()
        database_name = self._copy(database, name, directory)
        project = self._make(directory, database, database_name, carrot_settings, broker_url, database_port)
        self._at_end.callback(project.remove)
        return project

    def remove_templates(self) -> None:
        """Delete the template database of PostgreSQL (the other one is a file in pytest's own directory)."""
        name = self._templates.get("postgresql")
        if name:
            self._server.start()
            self._server.drop_database(name)

    def _copy(self, database: Database, name: str, directory: Path) -> str:
        template = self._template(database)
        if database == "sqlite":
            shutil.copyfile(template, directory / "db.sqlite3")
            return str(directory / "db.sqlite3")
        self._server.create_database(name, template)
        return name

    def _template(self, database: Database) -> str:
        if database not in self._templates:
            name = f"template_{uuid.uuid4().hex[:12]}"
            if database == "sqlite":
                name = str(self._directory / f"{name}.sqlite3")
            else:
                self._server.create_database(name)
            self._make(self._directory, database, name, {"default_broker": "database://"}).manage("migrate")
            if database == "sqlite":
                with contextlib.closing(sqlite3.connect(name)) as connection:
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # everything into the one file we copy
            self._templates[database] = name
        return self._templates[database]

    def _make(
        self,
        directory: Path,
        database: Database,
        name: str,
        carrot_settings: Mapping[str, Any],
        broker_url: str = "database://",
        database_port: int | None = None,
    ) -> Project:
        server = self._server if database == "postgresql" else None
        return Project(directory, database, name, server, carrot_settings, broker_url, database_port)


def _at(url: str, port: int) -> str:
    """Return the URL of a server of ours (which has a port) with another port."""
    return re.sub(r":\d+/", f":{port}/", url, count=1)
