"""The log of RabbitMQ: which connections and errors there were on its side."""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import NamedTuple

from tests.servers import RabbitMQ
from tests.servers.process import wait_until

#: 2026-01-31 12:00:00.123456+00:00 [info] <0.9.0> connection <0.9.0> (127.0.0.1:1 -> 127.0.0.1:2 - carrot consumer
#: host:42): user 'guest' authenticated and granted access to vhost '/'
CONNECTED = re.compile(r"^(\S+ \S+) .* - carrot (\w+) \S+?:(\d+)\S* user .*granted access to vhost", re.MULTILINE)
LISTENING = re.compile(r"^(\S+ \S+) .*started TCP listener", re.MULTILINE)


class Connected(NamedTuple):
    """A connection of carrot that was let in: when (time.monotonic), what for, and of which process."""

    at: float
    purpose: str
    pid: int


class BrokerLog:
    """What RabbitMQ writes into its log from now on."""

    def __init__(self, rabbitmq: RabbitMQ) -> None:
        self._path = rabbitmq.log
        self._begin = self._path.stat().st_size

    def text(self) -> str:
        with open(self._path, "rb") as file:
            file.seek(self._begin)
            return file.read().decode("utf-8", "replace")

    def connected(self) -> list[Connected]:
        """The connections of carrot's processes, in their order."""
        return [Connected(_moment(at), purpose, int(pid)) for at, purpose, pid in CONNECTED.findall(self.text())]

    def listening(self, after: float) -> float:
        """When it began to take connections the last time, on time.monotonic; waits until one ``after`` is written.

        The log lags behind: a line about an earlier start may come late.
        """

        def found() -> list[float]:
            return [moment for written in LISTENING.findall(self.text()) if (moment := _moment(written)) > after]

        assert wait_until(lambda: bool(found()), 20.0)
        return found()[-1]


def _moment(written: str) -> float:
    return datetime.fromisoformat(written).timestamp() - time.time() + time.monotonic()
