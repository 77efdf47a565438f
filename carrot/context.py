"""The task that runs in the current context, and its log.

A context variable, not a thread's local: code the task starts with ``contextvars.copy_context()`` or ``asyncio`` logs
into the right task.
"""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from carrot import clock
from carrot.arguments import clean_text
from carrot.models.claim import Claim

#: Characters that a terminal obeys, or by which text is shown in another place than it stands. Tabs and line breaks are
#: none of them.
_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class TaskLog:
    """What was logged during one task: a line ``time level logger: message`` each, the first and the last kept.

    Further lines of a message are indented, so that a message cannot forge a line. ``limit`` in bytes, about.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._head: list[str] = []
        self._tail: deque[str] = deque()
        self._head_room = limit // 2
        self._tail_room = limit // 2
        self._tail_size = 0
        self._dropped = 0
        #: Raised by every line, so that a reader sees whether there is anything new.
        self.version = 0

    def add(self, line: str) -> None:
        self.version += 1
        size = len(line.encode("utf-8", "replace")) + 1
        if self._head_room >= size and not self._tail:
            self._head.append(line)
            self._head_room -= size
            return
        if size > self._tail_room:
            line = line.encode("utf-8", "replace")[: self._tail_room // 2].decode("utf-8", "ignore") + " …"
            size = len(line.encode("utf-8", "replace")) + 1
        self._tail.append(line)
        self._tail_size += size
        while self._tail_size > self._tail_room and len(self._tail) > 1:
            self._tail_size -= len(self._tail.popleft().encode("utf-8", "replace")) + 1
            self._dropped += 1

    def text(self) -> str:
        """The whole log, storable in any database."""
        if not self.version:
            return ""
        # Not indented, unlike all that a message may hold.
        dropped = [f"… {self._dropped} line(s) left out …"] if self._dropped else []
        return clean_text("\n".join([*self._head, *dropped, *list(self._tail)]), self._limit + 1024)


@dataclass(slots=True)
class TaskContext:
    """The attempt that runs: what its log handler, its progress and its end need to know."""

    claim: Claim
    log: TaskLog
    #: Its work and its end are one transaction.
    atomic: bool = False
    started_at: float = field(default_factory=clock.monotonic)


_current: ContextVar[TaskContext | None] = ContextVar("carrot_task", default=None)


def current() -> TaskContext | None:
    """The task that runs here; None outside of tasks."""
    return _current.get()


@contextmanager
def entered(context: TaskContext) -> Iterator[None]:
    """Inside, ``context`` is the current task."""
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)


class TaskLogFormatter(logging.Formatter):
    """``2026-01-31T12:00:00.123Z INFO shop.tasks: message``; what follows a line break is indented, see `as_entry`."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        return as_entry(super().format(record))


def as_entry(text: str) -> str:
    """A text as one entry of a log: what follows a line break is indented, and what a terminal obeys, or shows as the
    end of a line, is written out. So no message forges a line, or does anything to the terminal of its reader."""
    return _COMMANDS.sub(_written_out, text).replace("\n", "\n    ")


def _written_out(match: re.Match[str]) -> str:
    r"""``␛`` for the escape character; ``\u2028`` for what has no picture."""
    code = ord(match[0])
    return chr(0x2400 + code) if code < 0x20 else match[0].encode("unicode_escape").decode()


class TaskLogHandler(logging.Handler):
    """Puts every record made during a task into the task's log; outside of tasks it does nothing."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.setFormatter(TaskLogFormatter())

    def handle(self, record: logging.LogRecord) -> bool:
        # No lock, unlike the base class: a context belongs to one task, and deque and list append atomically.
        context = _current.get()
        if context is not None:
            self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        context = _current.get()
        if context is None:
            return
        try:
            context.log.add(self.format(record))
        except Exception:
            self.handleError(record)


def capture_logging() -> TaskLogHandler:
    """Makes every logger of this process feed the task logs; called once in a worker process.

    The root logger reaches all that propagate; loggers that do not get the handler themselves.
    """
    handler = TaskLogHandler()
    logging.getLogger().addHandler(handler)
    for logger in list(logging.Logger.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger) and not logger.propagate:
            logger.addHandler(handler)
    return handler
