"""An executor without the worker process around it."""

from __future__ import annotations

from queue import SimpleQueue
from typing import Any

from carrot.board import Board, Slot
from carrot.executor import Ended, Executor
from carrot.models.claim import Outcome
from tests.rows import unsaved_claim

TIMEOUT = 10.0


class Bench:
    """An executor of two threads under a lease that holds, and the outcomes that came of it."""

    def __init__(self, threads: int = 2, patience: float = 0.0) -> None:
        self.slot: Slot = Board(1, 4).slots[0]
        self.slot.prolong(float("inf"), 30.0)
        self.outcomes: SimpleQueue[Ended] = SimpleQueue()
        self.ended = 0
        self.executor = Executor(
            "default",
            threads,
            self.slot,
            1,
            self._finished,
            self._ended,
            log_limit=4096,
            output_limit=4096,
            patience=patience,
        )

    def _finished(self, ended: Ended) -> None:
        self.outcomes.put(ended)

    def _ended(self) -> None:
        self.ended += 1

    def run(self, task: str, *args: Any, **changes: Any) -> Outcome:
        """Runs one task and returns what came of it."""
        self.executor.put(unsaved_claim(task, *args, **changes))
        return self.outcomes.get(timeout=TIMEOUT).outcome

    def end(self) -> None:
        self.executor.stop()
        for thread in self.executor._threads:
            thread.join(TIMEOUT)
        assert not any(thread.is_alive() for thread in self.executor._threads)
