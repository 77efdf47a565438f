"""The connections of threads that live long."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import InterfaceError, OperationalError, connection, connections, transaction
from django.db.backends.signals import connection_created

from carrot import database
from carrot.database import POSTGRESQL, TaskConnections
from tests.app.models import Effect
from tests.marks import committing

pytestmark = committing
on_postgresql = pytest.mark.skipif("connection.vendor != 'postgresql'", reason="its settings")
needs_a_server = pytest.mark.skipif("connection.vendor == 'sqlite'", reason="a file has no connection to lose")


def in_a_thread(function: Callable[[], object]) -> object:
    """Runs a function in a thread with connections of its own, closed at its end; returns what it returns."""
    found: list[object] = []

    def run() -> None:
        with database.closing():
            found.append(function())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10.0)
    return found[0]


def break_connection() -> None:
    """What a server that restarted leaves behind."""
    connection.ensure_connection()
    connection.connection.close()


@needs_a_server
def test_a_connection_that_does_not_answer_is_dropped_and_the_next_use_makes_a_new_one() -> None:
    def use() -> int:
        break_connection()
        with pytest.raises((OperationalError, InterfaceError)):
            Effect.objects.count()
        database.drop_broken()
        return Effect.objects.count()

    assert in_a_thread(use) == 0


def test_after_an_error_even_a_connection_that_answers_is_made_anew() -> None:
    """Behind the same name may be another server by now, and the old one may only be read."""

    def use() -> bool:
        connection.ensure_connection()
        before = connection.connection
        database.drop_broken()
        connection.ensure_connection()
        return connection.connection is before

    assert in_a_thread(use) is False


def test_what_a_try_to_connect_leaves_in_its_error_is_dropped_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sockets: list[weakref.ref[Socket]] = []

    def fail(_params: object) -> None:
        socket = Socket()
        sockets.append(weakref.ref(socket))
        try:
            raise connection.Database.OperationalError("connection timeout expired")
        except connection.Database.OperationalError as error:
            last = error  # as psycopg does, which may try several addresses
        raise last

    def use() -> None:
        monkeypatch.setattr(connections["default"], "get_new_connection", fail)
        try:
            Effect.objects.count()
        except OperationalError:
            database.drop_broken()

    collects = gc.isenabled()
    gc.disable()
    try:
        in_a_thread(use)
        assert [socket() for socket in sockets] == [None]
    finally:
        if collects:
            gc.enable()


class Socket:
    """What the driver opened."""


def test_a_transaction_that_an_error_interrupted_is_dropped_with_its_connection() -> None:
    def use() -> tuple[bool, int]:
        transaction.atomic().__enter__()
        Effect.objects.create(message_id="x", attempt=1, pid=1)
        database.drop_broken()
        return connection.in_atomic_block, Effect.objects.count()

    assert in_a_thread(use) == (False, 0)


def test_a_thread_leaves_no_connection_behind_whatever_happens_in_it() -> None:
    seen: list[Any] = []

    def run() -> None:
        with pytest.raises(RuntimeError), database.closing():
            connection.ensure_connection()
            transaction.atomic().__enter__()
            raise RuntimeError
        seen.append(connection.connection)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10.0)
    assert seen == [None]


class TestBetweenTasks:
    @needs_a_server
    def test_a_connection_lost_while_it_rested_does_not_fail_the_next_task(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(database, "REST", -1.0)

        def use() -> int:
            connections = TaskConnections()
            connections.before()
            Effect.objects.count()
            connections.after()
            break_connection()
            connections.before()
            return Effect.objects.count()

        assert in_a_thread(use) == 0

    @needs_a_server
    def test_a_connection_lost_during_a_task_is_no_error_of_the_thread(self) -> None:
        def use() -> int:
            connections = TaskConnections()
            connections.before()
            transaction.atomic().__enter__()
            break_connection()
            connections.after()
            return Effect.objects.count()

        assert in_a_thread(use) == 0

    def test_a_task_finds_what_the_last_one_committed_and_not_what_it_left_open(self) -> None:
        def use() -> int:
            connections = TaskConnections()
            Effect.objects.create(message_id="committed", attempt=1, pid=1)
            transaction.atomic().__enter__()
            Effect.objects.create(message_id="open", attempt=1, pid=1)
            connections.after()
            connections.before()
            return Effect.objects.count()

        assert in_a_thread(use) == 1


@pytest.fixture
def options() -> Iterator[dict[str, Any]]:
    """The options of the database connection of a service, put back afterwards."""
    before = dict(connection.settings_dict["OPTIONS"])
    yield connection.settings_dict["OPTIONS"]
    connection.settings_dict["OPTIONS"] = before
    connection_created.disconnect(dispatch_uid="carrot.database")


def test_the_service_notices_a_database_host_that_vanished_and_keeps_what_the_project_set(
    options: dict[str, Any],
) -> None:
    options["connect_timeout"] = 99
    database.harden("worker")
    found = connection.settings_dict["OPTIONS"]
    if connection.vendor == "postgresql":
        assert {**found, "connect_timeout": 10} == {**found, **POSTGRESQL, "application_name": "carrot worker"}
        assert found["connect_timeout"] == 99
    else:
        assert found == options


SERVER_SIDE = ("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count", "tcp_user_timeout")


def server_side() -> dict[str, str]:
    """What PostgreSQL was told in this session."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT name, setting FROM pg_settings WHERE source = 'session' AND name = ANY(%s)", [list(SERVER_SIDE)]
        )
        return dict(cursor.fetchall())


@on_postgresql
@pytest.mark.parametrize(
    ("lease", "expected"),
    [(30.0, ["10", "5", "3", "20000"]), (300.0, ["10", "5", "3", "20000"]), (3.0, ["1", "1", "3", "2000"])],
)
def test_postgresql_gives_up_the_sessions_of_a_host_that_vanished_about_when_its_lease_is_over(
    options: dict[str, Any], settings: Any, lease: float, expected: list[str]
) -> None:
    settings.CARROT = settings.CARROT | {"lease": lease, "heartbeat": 0.5}
    database.harden("worker")
    assert in_a_thread(server_side) == dict(zip(SERVER_SIDE, expected, strict=True))


@on_postgresql
def test_a_task_may_leave_an_answer_of_postgresql_unread_for_as_long_as_it_likes(options: dict[str, Any]) -> None:
    def use() -> dict[str, str]:
        TaskConnections()
        return server_side()

    database.harden("worker")
    assert set(in_a_thread(use)) == set(SERVER_SIDE) - {"tcp_user_timeout"}  # type: ignore[call-overload]


@on_postgresql
def test_what_the_site_has_set_for_its_connections_stays(options: dict[str, Any]) -> None:
    options["options"] = "-c tcp_keepalives_idle=77"
    database.harden("worker")

    assert set(in_a_thread(server_side)) == set(SERVER_SIDE) - {"tcp_keepalives_idle"}  # type: ignore[call-overload]


@on_postgresql
def test_sessions_behind_a_pooler_are_left_alone(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """It greets with a number of its own, and answers with that of any server process."""
    connection.ensure_connection()
    monkeypatch.setattr(type(connection.connection.info), "backend_pid", 4711)
    database.harden("worker")
    assert in_a_thread(server_side) == {}
