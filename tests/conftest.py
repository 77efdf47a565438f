"""The servers and scratch projects tests ask for.

A missing server fails the tests that need it; nothing is skipped.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import TypeVar

import pytest
from django.db import connections
from hypothesis import HealthCheck, settings

from tests.fuzz.strategies import LONG
from tests.project import ProjectFactory
from tests.servers import PostgreSQL, RabbitMQ, ServerError
from tests.servers.places import new_place, remove_place

# Loaded here, as each test takes the profile of the moment in which its module is imported.
settings.register_profile(
    "carrot",
    derandomize=not LONG,
    deadline=None,
    # The fixtures are made once for all examples of a test, and do not mind.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("carrot")

Server = TypeVar("Server", RabbitMQ, PostgreSQL)


@pytest.fixture(scope="session")
def place_of_servers() -> Iterator[Path]:
    """The directory of the servers: that of ``scripts/servers env`` if it was evaluated, else one for this run."""
    given = os.environ.get("CARROT_TEST_SERVERS")
    if given:
        yield Path(given)
        return
    place = new_place()
    yield place
    remove_place(place)


@pytest.fixture(scope="session")
def _rabbitmq(place_of_servers: Path) -> RabbitMQ:
    return RabbitMQ(place_of_servers)


@pytest.fixture(scope="session")
def _postgresql(place_of_servers: Path) -> PostgreSQL:
    return PostgreSQL(place_of_servers)


@pytest.fixture
def rabbitmq(_rabbitmq: RabbitMQ) -> RabbitMQ:
    """A private RabbitMQ server that runs when the test begins; the test may stop, suspend and crash it."""
    return _started(_rabbitmq)


@pytest.fixture
def postgresql(_postgresql: PostgreSQL) -> PostgreSQL:
    """A private PostgreSQL server that runs when the test begins; the test may stop and crash it."""
    return _started(_postgresql)


@pytest.fixture
def amqp_url(rabbitmq: RabbitMQ) -> Iterator[str]:
    """The URL of a fresh virtual host, deleted after the test with everything in it."""
    with _fresh_vhost(rabbitmq) as url:
        yield url


@pytest.fixture(scope="session")
def _templates(_postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProjectFactory]:
    factory = ProjectFactory(tmp_path_factory.mktemp("projects"), _postgresql)
    yield factory
    factory.remove_templates()


@pytest.fixture
def project(request: pytest.FixtureRequest, _templates: ProjectFactory) -> Iterator[ProjectFactory]:
    """A factory of scratch projects for tests with real processes; see ``tests/project.py``."""
    if "amqp_url" in request.fixturenames:
        request.getfixturevalue("amqp_url")  # now, so that it outlives the projects
    with ExitStack() as at_end:

        @cache
        def url_of_vhost() -> str:
            if "amqp_url" in request.fixturenames:
                url: str = request.getfixturevalue("amqp_url")
                return url
            return at_end.enter_context(_fresh_vhost(_started(request.getfixturevalue("_rabbitmq"))))

        yield _templates.for_one_test(request.node.name, url_of_vhost, at_end)


@pytest.fixture(scope="session")
def django_db_modify_db_settings(request: pytest.FixtureRequest) -> None:
    """Start a PostgreSQL server for the tests' own database where the environment names none (see pytest-django)."""
    default = connections["default"].settings_dict
    if default["ENGINE"].endswith(".postgresql") and "CARROT_TEST_POSTGRES" not in os.environ:
        server = _started(request.getfixturevalue("_postgresql"))
        default.update(HOST="127.0.0.1", PORT=server.port, USER=server.USER, PASSWORD=server.password)


@contextmanager
def _fresh_vhost(rabbitmq: RabbitMQ) -> Iterator[str]:
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield rabbitmq.add_vhost(name)
    rabbitmq.start()  # the test may have stopped it
    rabbitmq.delete_vhost(name)


def _started(server: Server) -> Server:
    try:
        server.start()
    except ServerError as error:
        pytest.fail(str(error), pytrace=False)
    return server
