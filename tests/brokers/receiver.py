"""One worker's view of one queue, driven by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable

from carrot.brokers import make_broker
from carrot.conf import QueueSettings
from carrot.models.claim import Claim
from tests.rows import new_worker
from tests.servers.process import wait_until

#: room that makes a subscription fetch many messages ahead
MANY = 1000


class Receiver:
    """A subscription, a live worker and everything it has claimed so far, in order."""

    def __init__(self, queue: QueueSettings) -> None:
        self.worker = new_worker()
        self.woken = threading.Event()
        self.claims: list[Claim] = []
        self.broker = make_broker(queue.host)
        self.subscription = self.broker.subscribe(queue, self.woken.set)

    def claim(self, limit: int = MANY) -> list[Claim]:
        """What a claimer would do now: claims if there is work."""
        claims = self.subscription.claim(limit, self.worker.pk) if self.subscription.has_work() else []
        self.claims += claims
        return claims

    def collect(self, count: int, limit: int = MANY, timeout: float = 15.0) -> list[Claim]:
        """Claims until ``count`` tasks are here, and returns all of them; fails after ``timeout`` seconds."""
        self.until(lambda: len(self.claims) >= count, f"{count} claims", limit, timeout)
        return self.claims

    def until(
        self, condition: Callable[[], object], wanted: str = "", limit: int = MANY, timeout: float = 15.0
    ) -> None:
        """Claims until something is so."""

        def came() -> bool:
            self.claim(limit)
            return bool(condition())

        if not wait_until(came, timeout):
            raise AssertionError(f"After {timeout:g} s no {wanted}: {self.claims}; {self.subscription.problem()!r}")

    def arguments(self) -> list[object]:
        """The first argument of each task claimed."""
        return [claim.args[0] for claim in self.claims]

    def end(self) -> None:
        self.subscription.close(1.0)
        self.broker.close(2.0)
