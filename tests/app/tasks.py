"""Sample tasks."""

import logging
import os
import signal
import time
from pathlib import Path

from carrot import task
from tests.app.models import Effect

logger = logging.getLogger(__name__)


@task
def noop() -> None:
    """Do nothing."""


@task
def add(a: float, b: float) -> float:
    """Return a result."""
    return a + b


@task
def fail(text: str = "this task fails on purpose") -> None:
    """Raise ValueError."""
    raise ValueError(text)


@task
def log_lines(n: int) -> None:
    """Log ``n`` lines, to the project's own logger and to carrot's in turn."""
    for number in range(1, n + 1):
        log = logger if number % 2 else logging.getLogger("carrot")
        log.info("line %s of %s", number, n)


@task
def sleep(seconds: float) -> None:
    """Keep a thread busy."""
    time.sleep(seconds)


@task
def record_effect(name: str) -> int:
    """Write an ``Effect`` whose ``message_id`` is ``name``; its ``attempt`` counts the runs of that name."""
    effect = Effect(message_id=name, attempt=Effect.objects.filter(message_id=name).count() + 1, pid=os.getpid())
    effect.save()
    return effect.attempt


@task
def kill_self() -> None:
    """End the worker process the hard way."""
    os.kill(os.getpid(), signal.SIGKILL)


@task
def touch(path: str) -> None:
    """Make a file, or give an existing one the present time."""
    Path(path).touch()
