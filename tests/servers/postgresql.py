"""A private PostgreSQL server."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.servers import process
from tests.servers.install import SEARCH_PATH, faketime_library, postgresql_programs
from tests.servers.process import ServerError


class PostgreSQL:
    """One private PostgreSQL server, its data under ``base``.

    Two objects on the same ``base`` are two handles of the same server: what one started the other may stop.
    """

    USER = "carrot"

    def __init__(self, base: Path) -> None:
        self.directory = base / "postgresql"
        self.data = self.directory / "data"
        self.log = self.directory / "server.log"
        self._state = self.directory / "state.json"

    # -- life -----------------------------------------------------------------------------------------------------

    def start(self, timeout: float = 60.0, clock_offset: float = 0.0) -> None:
        """Start the server and wait until it takes connections; nothing happens if it runs.

        Keeps port, password and data of an earlier start. ``clock_offset``: seconds its clock is to go ahead of the
        machine's (behind, if negative), until it is stopped; this needs libfaketime. Raises ServerError, with the end
        of the log.
        """
        if self.is_running():
            return
        if not self._state.exists():
            self._create()
        if not process.is_free(self.port):
            raise ServerError(f"Port {self.port} of this PostgreSQL server is taken by another program; stop that one.")
        before = self.log.stat().st_size if self.log.exists() else 0
        try:
            self._pg_ctl(
                *("start", "-w", "-t", f"{timeout:.0f}", "-l", str(self.log), "-s"),
                timeout=timeout + 10,
                env=_shifted_clock(clock_offset) if clock_offset else {},
            )
        except ServerError as error:
            with open(self.log, encoding="utf-8", errors="replace") as log:
                log.seek(before)
                raise ServerError(f"PostgreSQL did not start: {error}\n{log.read()[-4000:]}") from error
        pid = int((self.data / "postmaster.pid").read_text().split()[0])
        self._remember(process.Process.of(pid))

    def stop(self, timeout: float = 30.0) -> None:
        """Stop the server in order: sessions are ended, their transactions rolled back."""
        self._stop("fast", timeout)

    def kill(self, timeout: float = 30.0) -> None:
        """Crash the server: nothing is written any more, and the next start recovers from the write-ahead log."""
        self._stop("immediate", timeout)

    def remove(self) -> None:
        """Crash the server, if it runs, and delete its data."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def is_running(self) -> bool:
        """Does the server process started by ``start`` live?"""
        return "pid" in self._read() and self.main_process().alive

    def main_process(self) -> process.Process:
        """Return the server process started last, the parent of all the others."""
        state = self._read()
        return process.Process(pid=state["pid"], started=state["started"])

    # -- use ------------------------------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        return int(self._read()["port"])

    @property
    def password(self) -> str:
        return str(self._read()["password"])

    @property
    def url(self) -> str:
        """The database ``postgres`` of this server, as a URL with user and password (a superuser)."""
        return self.url_of("postgres")

    def url_of(self, name: str) -> str:
        return f"postgresql://{self.USER}:{self.password}@127.0.0.1:{self.port}/{_checked(name)}"

    def psql(self, sql: str, database: str = "postgres", timeout: float = 60.0) -> str:
        """Run SQL and return what ``psql`` prints: one line a row, columns between ``|``."""
        command: list[str | Path] = [
            postgresql_programs() / "psql",
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-f",
            "-",
        ]
        env = self._environment() | {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": self.USER,
            "PGPASSWORD": self.password,
            "PGDATABASE": _checked(database),
            "PGCLIENTENCODING": "UTF8",
            "PGAPPNAME": "carrot tests",
        }
        done = process.call(command, env=env, account=self._account, cwd=self.directory, timeout=timeout, stdin=sql)
        return done.strip()

    def create_database(self, name: str, template: str | None = None) -> str:
        """Create a database, as a copy of ``template`` if given (which nobody may be connected to); return its URL."""
        self.psql(f"CREATE DATABASE {_checked(name)}" + (f" TEMPLATE {_checked(template)}" if template else ""))
        return self.url_of(name)

    def drop_database(self, name: str) -> None:
        """Drop a database and end the sessions on it; nothing happens if there is none."""
        self.psql(f"DROP DATABASE IF EXISTS {_checked(name)} WITH (FORCE)")

    def terminate_sessions(self, database: str) -> int:
        """End all sessions on a database, as an administrator would; return how many."""
        ended = self.psql(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            f" WHERE datname = '{_checked(database)}' AND pid <> pg_backend_pid()"
        )
        return int(ended)

    # -- inside ---------------------------------------------------------------------------------------------------

    @cached_property
    def _account(self) -> process.Account | None:
        return process.unprivileged_account("postgres", "nobody")

    def _create(self) -> None:
        process.make_directory(self.directory, self._account, mode=0o755)
        shutil.rmtree(self.data, ignore_errors=True)  # what an interrupted creation left
        password = secrets.token_urlsafe(16)
        password_file = process.write_file(self.directory / "password", password, self._account)
        locale = "C.UTF-8" if sys.platform == "linux" else "C"
        command: list[str | Path] = [postgresql_programs() / "initdb", "-D", self.data, "-U", self.USER]
        command += ["--auth=scram-sha-256", "--pwfile", password_file, "--encoding=UTF8", f"--locale={locale}"]
        command += ["--no-sync"]  # initdb's own files only; the server itself syncs as always
        process.call(command, env=self._environment(), account=self._account, cwd=self.directory, timeout=120)
        password_file.unlink()
        port = process.free_ports(1)[0]
        with open(self.data / "postgresql.conf", "a", encoding="utf-8") as configuration:
            configuration.write(f"\nlisten_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = ''\n")
        state = json.dumps({"port": port, "password": password})
        process.write_file(self._state, state, None)

    def _stop(self, mode: str, timeout: float) -> None:
        if self.is_running():
            self._pg_ctl("stop", "-m", mode, "-w", "-t", f"{timeout:.0f}", "-s", timeout=timeout + 10)
            # pg_ctl waits for the pid file to go, which the server removes a moment before it ends.
            if not process.wait_until(lambda: not self.is_running(), timeout):
                raise ServerError(f"PostgreSQL did not end within {timeout:g} s.\n{process.excerpt(self.log)}")

    def _pg_ctl(self, *words: str, timeout: float, env: Mapping[str, str] | None = None) -> None:
        command: list[str | Path] = [postgresql_programs() / "pg_ctl", "-D", self.data, *words]
        environment = self._environment() | dict(env or {})
        process.call(command, env=environment, account=self._account, cwd=self.directory, timeout=timeout)

    def _environment(self) -> dict[str, str]:
        """Return a clean environment: no PG* variable of the caller may redirect us."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
        return kept | {"PATH": SEARCH_PATH, "HOME": str(self.directory), "LC_ALL": "C", "TZ": "UTC"}

    def _read(self) -> dict[str, Any]:
        with contextlib.suppress(FileNotFoundError):
            state: dict[str, Any] = json.loads(self._state.read_text())
            return state
        return {}

    def _remember(self, server: process.Process | None) -> None:
        if server is None:
            raise ServerError(f"PostgreSQL ended right after its start.\n{process.excerpt(self.log)}")
        state = self._read() | {"pid": server.pid, "started": server.started}
        process.write_file(self._state, json.dumps(state), None)


def _shifted_clock(seconds: float) -> dict[str, str]:
    """Return the environment in which a program has another time of day, and the monotonic clock of everybody."""
    return {"LD_PRELOAD": str(faketime_library()), "FAKETIME": f"{seconds:+f}s", "DONT_FAKE_MONOTONIC": "1"}


def _checked(name: str) -> str:
    """Return ``name`` if it can stand in SQL as it is. Raises ValueError."""
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", name):
        raise ValueError(f"Not a plain database name (a-z, 0-9, _): {name!r}")
    return name
