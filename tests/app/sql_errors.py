"""Errors of the database that pass when one tries again: in a share of carrot's own statements and commits.

The errors are those of the server, or what SQLite says, and leave the transaction as the real ones do: PostgreSQL has
ended it, SQLite has not. Statements and commits of the project's own are never hit.
"""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

#: Names the file with the shares of statements and of commits that fail, such as "0.05 0.01"; no file is none.
#: What failed is counted in a file beside it, with the name's ending ".tally": a letter each, s or c.
VARIABLE = "CARROT_TEST_SQL_ERRORS"

#: Deadlock and serialization failure.
STATES = ("40P01", "40001")


class Misfortune:
    """Of one connection."""

    def __init__(self, path: Path, connection: BaseDatabaseWrapper) -> None:
        self._path = path
        self._connection = connection
        self._commit = connection._commit
        #: The transaction, or the last statement, had to do with carrot's tables.
        self._concerned = False

    def statement(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        """Wraps every statement; see ``execute_wrappers`` in Django's documentation."""
        self._concerned = "carrot_" in sql or (self._concerned and self._connection.in_atomic_block)
        if "carrot_" in sql and self._strikes("s"):
            if self._connection.vendor == "postgresql":
                state = random.choice(STATES)
                raising = f"DO $$ BEGIN RAISE EXCEPTION 'made for a test' USING ERRCODE = '{state}'; END $$"
                context["cursor"]._execute(raising, None)
            self._locked()
        return execute(sql, params, many, context)

    def commit(self) -> None:
        """Stands in for the connection's own commit."""
        if self._concerned and self._strikes("c"):
            if self._connection.vendor == "postgresql":
                import psycopg

                self._connection._rollback()
                error = psycopg.errors.SerializationFailure("made for a test")
                raise OperationalError("made for a test") from error
            self._locked()
        self._commit()

    @staticmethod
    def _locked() -> None:
        raise OperationalError("database is locked") from sqlite3.OperationalError("database is locked")

    def _strikes(self, kind: str) -> bool:
        try:
            shares = self._path.read_text().split()
        except FileNotFoundError:
            return False
        struck = random.random() < float(shares["sc".index(kind)])
        if struck:
            tally = os.open(f"{self._path}.tally", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(tally, kind.encode())
            os.close(tally)
        return struck


def begin(path: str) -> None:
    """From now on every connection that this process opens, and those it forks, is concerned."""

    def meet(sender: object, connection: BaseDatabaseWrapper, **_: object) -> None:
        if any(isinstance(getattr(each, "__self__", None), Misfortune) for each in connection.execute_wrappers):
            return  # connected again
        misfortune = Misfortune(Path(path), connection)
        connection.execute_wrappers.append(misfortune.statement)
        connection._commit = misfortune.commit

    connection_created.connect(meet, weak=False)
