"""Idle connections of others that take all PostgreSQL has to give."""

from __future__ import annotations

import threading
from types import TracebackType

import psycopg

from tests.servers import PostgreSQL

#: Seconds between two tries to get one more.
PAUSE = 0.01


class Crowd:
    """Within its block it takes every connection that is free, or becomes free: ``server`` lets nobody else in.

    ``full``: the server has refused one. Who is connected already stays so.
    """

    def __init__(self, server: PostgreSQL) -> None:
        self.full = threading.Event()
        self._url = server.url
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._crowd, name="crowd")

    def __enter__(self) -> Crowd:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def leave(self) -> None:
        """Close them all."""
        self._leaving.set()
        self._thread.join(30.0)

    def _crowd(self) -> None:
        taken: list[psycopg.Connection[object]] = []
        while not self._leaving.is_set():
            try:
                taken.append(psycopg.connect(self._url, application_name="others"))
            except psycopg.OperationalError:
                self.full.set()
                self._leaving.wait(PAUSE)
        for connection in taken:
            connection.close()
