"""A thread that does one thing again and again, and survives what the database and the broker do meanwhile."""

from __future__ import annotations

import logging
import threading

from django.db import Error as DatabaseFailure

from carrot import clock, database
from carrot.exceptions import BrokerError

logger = logging.getLogger(__name__)

#: Seconds to wait after a failure, doubled to the last.
FIRST_RETRY = 0.5
LAST_RETRY = 2.0


class Loop(threading.Thread):
    """Calls :meth:`step` until stopped, each time after the seconds that the last one asked for."""

    def __init__(self, name: str, last_retry: float = LAST_RETRY) -> None:
        super().__init__(name=f"carrot-{name}", daemon=True)
        #: When the thread was last seen to be well, by the monotonic clock.
        self.ticked_at = clock.monotonic()
        self._last_retry = last_retry
        self._complain = database.Complaint(logger)
        self._stopping = threading.Event()
        self._poked = threading.Event()

    def step(self) -> float:
        """Does the work; returns the seconds to wait before the next call."""
        raise NotImplementedError

    def poke(self) -> None:
        """Does not wait any longer. From any thread."""
        self._poked.set()

    def stop(self) -> None:
        self._stopping.set()
        self._poked.set()

    def run(self) -> None:
        retry = min(FIRST_RETRY, self._last_retry)
        with database.closing():
            while not self._stopping.is_set():
                self.ticked_at = clock.monotonic()
                try:
                    pause = self.step()
                    self._complain.over()
                    retry = min(FIRST_RETRY, self._last_retry)
                except (DatabaseFailure, BrokerError) as error:
                    self._complain("%s waits: %s", self.name, str(error).strip())
                    database.drop_broken()
                    pause, retry = retry, min(self._last_retry, retry * 2)
                except Exception:
                    # A mistake of ours must not take the other threads of the process with it: it would come again.
                    logger.exception("%s failed; it goes on.", self.name)
                    database.drop_broken()
                    pause, retry = retry, min(self._last_retry, retry * 2)
                # Cleared before the wait, set again by a poke during the step: none is missed.
                if pause > 0:
                    self._poked.wait(pause)
                self._poked.clear()
