"""Where a fault has to be survived."""

from __future__ import annotations

import pytest

from tests.project import Broker, Database

_ALL: list[tuple[Database, Broker]] = [
    ("sqlite", "database"),
    ("postgresql", "database"),
    ("sqlite", "amqp"),
    ("postgresql", "amqp"),
]


def _where(chosen: list[tuple[Database, Broker]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("database", "broker"), chosen, ids=["-".join(pair) for pair in chosen])


everywhere = _where(_ALL)
#: Both brokers and both databases, in two runs instead of four: for slow tests of what depends on neither.
corners = _where([_ALL[0], _ALL[3]])
on_postgresql = _where([pair for pair in _ALL if pair[0] == "postgresql"])
on_rabbitmq = _where([pair for pair in _ALL if pair[1] == "amqp"])
on_postgresql_and_rabbitmq = _where([("postgresql", "amqp")])
#: Both brokers on PostgreSQL, and SQLite as small sites have it: for scenarios with the whole workload.
on_postgresql_or_without_servers = _where([_ALL[3], _ALL[1], _ALL[0]])
