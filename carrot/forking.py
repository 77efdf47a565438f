"""Child processes of the service: how they are made, told things, and understood when they end."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from queue import Empty, SimpleQueue
from types import FrameType
from typing import TypeAlias

logger = logging.getLogger(__name__)

Handler: TypeAlias = Callable[[int, "FrameType | None"], None]

#: What the master tells the maintenance process to end it. Not SIGTERM, which may be sent to the whole group: the
#: maintenance process outlives the workers, to release what they leave.
END = signal.SIGUSR1

#: Held back from a child until it can handle them; none is lost.
_HELD = {signal.SIGTERM, signal.SIGQUIT, END}

#: The exit status of a child whose life ended in an error.
BROKEN = 4


class WakeUp:
    """Ends the waiting of a process's main thread, from a signal handler too.

    A handler runs in the thread that waits, at any moment: a ``threading.Event`` would wait for its own lock then.
    """

    def __init__(self) -> None:
        self._rings: SimpleQueue[None] = SimpleQueue()

    def ring(self) -> None:
        self._rings.put(None)  # reentrant, as its documentation promises

    def wait(self, seconds: float) -> None:
        """Until it rings, which it may have done before, or so many seconds have passed."""
        with contextlib.suppress(Empty):
            self._rings.get(timeout=seconds)


def fork(life: Callable[[], int]) -> int:
    """Runs ``life`` in a child process, which ends with its result; returns the child's pid.

    ``life`` begins with :func:`handle`. The parent must have one thread and no open connection.
    """
    _flush()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return pid
    status = BROKEN
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        status = life()
    except BaseException:
        logger.exception("This process ends over an error.")
    finally:
        # Without the interpreter's own end, which would wait for threads that run users' code; and whatever happens,
        # not back into the parent's code.
        try:
            logging.shutdown()
            _flush()
        finally:
            os._exit(status)


def handle(handlers: Mapping[int, Handler]) -> None:
    """In a child, first of all: handles these signals, and ignores what a terminal or a process group sends to all."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, _nothing)  # not SIG_IGN, which the programs that a task starts would inherit
    os.register_at_fork(after_in_child=_as_usual)
    for wanted, handler in handlers.items():
        signal.signal(wanted, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """What a signal that is not for us does."""


def _as_usual() -> None:
    """In a process that a task forks: signals do what they do everywhere."""
    for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, END):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def send(pid: int, number: int) -> None:
    """Signals a child that may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def words(status: int) -> str:
    """What ``waitpid`` said of a process: ``was ended by SIGKILL``, ``ended with status 1``."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        return f"was ended by {name}"
    return f"ended with status {os.WEXITSTATUS(status)}"


def _flush() -> None:
    """Standard output may be a pipe whose reader is gone, or closed: no reason to end."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
