"""The call of a task's function, and what to do where the code of this process does not fit it.

Receives claims from the executor; hands on results. During a deployment workers with old and new code run side by side:
a task that one of them cannot start is given back for a while, so that another can.
"""

from __future__ import annotations

import inspect
from types import FunctionType
from typing import Any

from asgiref.sync import async_to_sync

from carrot import clock, registry
from carrot.exceptions import InvalidArguments, InvalidTask
from carrot.models import Origin
from carrot.models.claim import Claim

#: Tasks remembered at most; of more, the oldest begin to wait anew.
REMEMBERED = 10_000


class DoesNotFit(Exception):
    """The code of this process has no such task, or its function takes other arguments. ``error`` says it to users."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def function_of(claim: Claim) -> FunctionType:
    """The function to run. Raises :class:`DoesNotFit`."""
    try:
        return registry.resolve(claim.task, registered_only=claim.origin not in (Origin.CODE, Origin.SCHEDULE))
    except InvalidTask as error:
        raise DoesNotFit(error) from None


def call(function: FunctionType, claim: Claim) -> Any:
    """The function's result. Raises what it raises, and :class:`DoesNotFit`."""
    try:
        result = function(*claim.args, **claim.kwargs)
    except TypeError as error:
        # Asked only now, since it would cost every task.
        try:
            registry.check_call(claim.task, claim.args, claim.kwargs)
        except InvalidArguments as mismatch:
            raise DoesNotFit(mismatch) from error
        raise
    # Not asyncio.run: its database calls would run in a thread of asgiref's, whose connections nobody looks after.
    return async_to_sync(_awaited)(result) if inspect.iscoroutine(result) else result


async def _awaited(coroutine: Any) -> Any:
    return await coroutine


class Patience:
    """How long the tasks that do not fit this process have been coming back to it. Used by several threads at once."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: dict[int, float] = {}

    def lasts(self, claim: Claim) -> bool:
        """Whether the task may be given back once more; False ends its wait."""
        now = clock.monotonic()
        if now - self._since.setdefault(claim.id, now) < self._seconds:
            if len(self._since) > REMEMBERED:
                self._since.pop(next(iter(list(self._since))), None)
            return True
        self._since.pop(claim.id, None)
        return False
