"""Runs tasks: the threads of one queue in one worker process.

Receives claims; hands on outcomes. Runs users' code, so nothing it does may end a thread: whatever a function raises
is an outcome. Knows no broker, and the database only to look after the connections of the code it runs; the end of an
atomic task is written here, as part of its transaction.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from queue import Empty, SimpleQueue
from types import FunctionType
from typing import NamedTuple

from carrot import atomic, clock, invocation, registry
from carrot.arguments import clean_text, encode_output
from carrot.board import Slot
from carrot.context import TaskContext, TaskLog, entered
from carrot.database import TaskConnections, closing
from carrot.invocation import DoesNotFit, Patience
from carrot.models.claim import Claim, Outcome
from carrot.not_json import type_name

logger = logging.getLogger(__name__)

#: Bytes of a traceback that are kept.
MAX_TRACEBACK = 32_768
MAX_EXCEPTION = 4_096
#: Files whose frames stand above those of a task.
_OWN_FILES = {__file__, atomic.__file__, invocation.__file__}
#: Weight of the newest task in the moving mean of run times.
NEWEST = 0.2


class Ended(NamedTuple):
    """What came of an attempt, the exception itself if there was one, and whether it is written already."""

    outcome: Outcome
    error: BaseException | None = None
    written: bool = False


class Executor:
    """``threads`` threads that run what is put in, in order. The claimer feeds it; every method is its, unless
    noted."""

    def __init__(
        self,
        name: str,
        threads: int,
        slot: Slot,
        first_cell: int,
        finished: Callable[[Ended], None],
        ended: Callable[[], None],
        *,
        log_limit: int,
        output_limit: int,
        patience: float,
    ) -> None:
        self.threads = threads
        #: Tasks that run, by thread; read by the recorder for the logs of long ones.
        self.running: list[TaskContext | None] = [None] * threads
        #: Moving mean of the seconds a task takes; negative until one has run.
        self.mean = -1.0
        self._slot = slot
        self._first_cell = first_cell
        self._finished = finished
        self._ended = ended
        self._log_limit = log_limit
        self._output_limit = output_limit
        self._patience = Patience(patience)
        self._ready: SimpleQueue[Claim | None] = SimpleQueue()
        self._refused: SimpleQueue[Claim | None] = SimpleQueue()
        self._misfits: SimpleQueue[tuple[Claim, str]] = SimpleQueue()
        self._given = 0
        # One counter a thread, so that none needs a lock.
        self._done = [0] * threads
        self._threads = [
            threading.Thread(target=self._work, args=(index,), name=f"carrot-{name}-{index + 1}", daemon=True)
            for index in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def load(self) -> int:
        """Tasks that were put in and have not ended."""
        return self._given - sum(self._done)

    def put(self, claim: Claim) -> None:
        self._given += 1
        self._ready.put(claim)

    def ended(self) -> int:
        """How many have ended so far."""
        return sum(self._done)

    def take_back(self) -> list[Claim]:
        """The tasks that no thread has begun. A thread that takes one at this moment keeps it."""
        taken = _drain(self._ready)
        self._given -= len(taken)
        return taken + _drain(self._refused) + [claim for claim, _why in self.misfits()]

    def refused(self) -> list[Claim]:
        """The tasks whose turn came while the lease could have been over; nobody runs them."""
        return _drain(self._refused)

    def misfits(self) -> list[tuple[Claim, str]]:
        """The tasks that the code of this process cannot start, and why; others may."""
        taken: list[tuple[Claim, str]] = []
        with suppress(Empty):
            while True:
                taken.append(self._misfits.get_nowait())
        return taken

    def waiting(self) -> bool:
        """Whether :meth:`take_back` would probably return anything."""
        return not (self._ready.empty() and self._refused.empty() and self._misfits.empty())

    def alive(self) -> bool:
        """Whether every thread lives. From any thread."""
        return all(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """The threads end after what they are running. Does not wait."""
        for _ in self._threads:
            self._ready.put(None)

    # -- the executor's threads -----------------------------------------------------------------------------------

    def _work(self, index: int) -> None:
        connections = TaskConnections()
        cell = self._first_cell + index
        with closing():
            while (claim := self._ready.get()) is not None:
                if not self._slot.may_start():
                    # The lease may be over and the task may run elsewhere: the claimer gives it back, if it is still
                    # ours.
                    self._refused.put(claim)
                    self._done[index] += 1
                    continue
                self._slot.running(cell, claim.id)
                try:
                    if ended := self._run(claim, index, connections):
                        self._finished(ended)
                finally:
                    # After the outcome was handed on: a process that stops counts on finding it there.
                    self._slot.running(cell, 0)
                    self._done[index] += 1
                self._ended()

    def _run(self, claim: Claim, index: int, connections: TaskConnections) -> Ended | None:
        """None: the task does not fit this process, and the claimer gives it back."""
        context = TaskContext(claim, TaskLog(self._log_limit))
        start_time = clock.now()

        def end(status: str, error: BaseException | None = None, output: str | None = None) -> Outcome:
            exception, trace = (describe(error), trace_of(error)) if error is not None else ("", "")
            # By the monotonic clock: a run time is never negative, whatever the wall clock did meanwhile.
            end_time = start_time + timedelta(seconds=clock.monotonic() - context.started_at)
            return Outcome(claim, status, start_time, end_time, output, context.log.text(), exception, trace)

        self.running[index] = context
        ended: Ended | None = None
        output: str | None = None
        error: BaseException | None = None
        given_back = False
        with entered(context):
            try:
                connections.before()
                function = invocation.function_of(claim)
                call = partial(self._output_of, function, claim)
                if registry.is_atomic(function):
                    context.atomic = True
                    outcome = atomic.run_atomic(
                        claim, lambda: end("COMPLETED", output=call()), partial(end, "PUBLISHED")
                    )
                    ended = Ended(outcome, written=True)
                else:
                    output = call()
            except DoesNotFit as misfit:
                error = misfit.error
                if self._patience.lasts(claim):
                    self._misfits.put((claim, str(error)))
                    given_back = True
            except BaseException as raised:  # SystemExit and KeyboardInterrupt too: the thread must live on
                error = raised
            try:
                connections.after()
            except BaseException:
                logger.exception("What the task left of its database connections could not be tidied up.")
            ended = ended or Ended(end("COMPLETED" if error is None else "FAILED", error, output), error)
        self.running[index] = None
        took = clock.monotonic() - context.started_at
        self.mean = took if self.mean < 0 else self.mean + NEWEST * (took - self.mean)
        return None if given_back else ended

    def _output_of(self, function: FunctionType, claim: Claim) -> str | None:
        result = invocation.call(function, claim)
        return None if result is None else encode_output(result, self._output_limit)


def _drain(source: SimpleQueue[Claim | None]) -> list[Claim]:
    """Takes out every claim; the words to stop stay, for the threads."""
    taken: list[Claim | None] = []
    with suppress(Empty):
        while True:
            taken.append(source.get_nowait())
    claims = [claim for claim in taken if claim is not None]
    for _ in range(len(taken) - len(claims)):
        source.put(None)
    return claims


def describe(error: BaseException) -> str:
    """``ValueError: text``; never raises, whatever the exception's own ``__str__`` does."""
    try:
        name, text = (
            type(error).__qualname__,
            str(error),
        )  # perhaps of classes of their own, whose methods raise as well
        return clean_text(f"{name}: {text}" if text else name, MAX_EXCEPTION)
    except BaseException:
        return f"{type_name(error)}: (its text could not be made)"


def trace_of(error: BaseException) -> str:
    """The traceback from the task's own frames on; never raises."""
    try:
        frames = error.__traceback__
        # The frames that lead to the task say nothing about it.
        while frames is not None and frames.tb_next is not None and frames.tb_frame.f_code.co_filename in _OWN_FILES:
            frames = frames.tb_next
        lines = traceback.format_exception(type(error), error, frames)
    except BaseException:
        lines = [describe(error)]
    return clean_text("".join(lines), MAX_TRACEBACK)
