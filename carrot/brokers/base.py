"""What a broker promises, whatever moves its messages.

Receives messages whose rows are committed; hands on claims, each of them a row that is ours to run. The contract is
tested once for every broker (``tests/brokers/test_contract.py``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, TypeAlias

from carrot.conf import QueueSettings
from carrot.message import Message
from carrot.models import MessageLog
from carrot.models.claim import Claim
from carrot.virtual_host import VirtualHost

#: Makes a row, saved or not, of a message of another program; None where it is no task.
Adopt: TypeAlias = Callable[[Any, bytes], MessageLog | None]


@dataclass(frozen=True, kw_only=True)
class Depth:
    """What the broker says of a queue: messages ready for delivery, and consumers of every service."""

    ready: int
    consumers: int


class Subscription(ABC):
    """What one worker process receives from one queue. Used by one thread, the claimer; no method waits for the
    broker."""

    @abstractmethod
    def claim(self, limit: int, worker_id: int) -> list[Claim]:
        """Up to ``limit`` tasks, claimed and committed, the highest priority first; an empty list where none came.

        A message is acknowledged only after its claim is committed. Raises ``DatabaseError`` with nothing claimed
        or, where the commit's fate is unknown, with rows the worker's self-audit finds; no message is lost by it.
        """

    @abstractmethod
    def has_work(self) -> bool:
        """Whether a claim is worth a statement now: messages are at hand, or it is time to look."""

    @abstractmethod
    def next_look(self) -> float:
        """Seconds until :meth:`has_work` may change without anything calling ``wake``."""

    @abstractmethod
    def demand(self, room: int) -> None:
        """How many tasks could soon run here. 0: hold nothing, hand back what was not claimed. Cheap to repeat."""

    @abstractmethod
    def close(self, timeout: float) -> None:
        """Stops receiving and hands back what was not claimed, waiting at most ``timeout`` seconds. Idempotent."""

    def problem(self) -> str:
        """Why nothing can be received at the moment, or what else is wrong with the queue; empty when all is well."""
        return ""


class Broker(ABC):
    """One virtual host as one process sees it. Thread-safe; holds no connection until it is used."""

    #: The rows are the messages: publishing needs no bell, and waiting rows may be claimed directly.
    rows_are_messages: ClassVar[bool]

    def __init__(self, host: VirtualHost) -> None:
        self.host = host

    @abstractmethod
    def ring(self, messages: Sequence[Message]) -> None:
        """Hands messages of committed rows over for sending. Never blocks, never raises; what is not confirmed stays
        armed in its row, and the relay rings it."""

    @abstractmethod
    def can_ring(self) -> bool:
        """Whether :meth:`ring` would reach the broker now. Begins to connect where it would not."""

    @abstractmethod
    def flush(self, timeout: float) -> bool:
        """Waits at most ``timeout`` seconds until everything handed over is settled; whether it is."""

    @abstractmethod
    def subscribe(self, queue: QueueSettings, wake: Callable[[], None], adopt: Adopt | None = None) -> Subscription:
        """Begins to receive from ``queue``; ``wake`` is called, from any thread, when something came.

        ``adopt`` makes rows of messages that other programs published (properties, body); see ``carrot.consumer``.
        """

    @abstractmethod
    def depth(self, queue: QueueSettings, timeout: float) -> Depth | None:
        """What is ready in ``queue``; None where the rows themselves are the only answer.

        Raises :class:`~carrot.exceptions.BrokerError` where the broker does not answer within ``timeout`` seconds.
        """

    @abstractmethod
    def purge(self, queue: QueueSettings, timeout: float) -> int:
        """Removes every message that is ready in ``queue``; how many. Raises
        :class:`~carrot.exceptions.BrokerError`."""

    @abstractmethod
    def send_marker(self, queue: QueueSettings, before: datetime) -> None:
        """Sends a message that comes out of ``queue`` after everything sent before it, and on its arrival arms the
        bells of the tasks whose messages should have come first: those that have waited since before ``before``."""

    @abstractmethod
    def describe(self) -> str:
        """What stands behind the address, for the operator: ``RabbitMQ 3.10.8``, or why it is not reached."""

    def healthy(self, awake_since: float = 0.0) -> bool:
        """False where a thread of this broker has died or does not move: the process has to be replaced.

        ``awake_since``: nobody is judged for a silence before (see :class:`carrot.clock.Awake`).
        """
        return True

    @abstractmethod
    def close(self, timeout: float) -> None:
        """Ends threads and connections within ``timeout`` seconds. Idempotent."""
