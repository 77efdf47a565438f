"""One message: what is to be called, with which arguments, and the way it takes through the broker.

Made by `carrot.utilities.create_message` and `publish_message`, which fill in the defaults; becomes a row, and later a
message in the broker.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

from carrot import clock, registry
from carrot.conf import get_settings
from carrot.exceptions import InvalidArguments, InvalidTask
from carrot.not_json import short

if TYPE_CHECKING:
    from carrot.models import MessageLog

#: what AMQP can carry as a name of a queue, an exchange or a routing key, in bytes
MAX_NAME = 255
MAX_PRIORITY = 255
#: what a row can hold as the path of a task, in characters
MAX_TASK = 255

_CALL_TEXT = 200
_MASK = "********"


class _Clock:
    """The state behind `uuid7`: the last millisecond and the counter within it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.millisecond = -1
        self.counter = 0

    def next(self) -> tuple[int, int]:
        """The next (millisecond, 42-bit counter), larger than every one before, whatever the wall clock does."""
        with self.lock:
            # Not carrot.clock: an id decides nothing, and is needed without settings and under a frozen test clock.
            now = time.time_ns() // 1_000_000
            if now > self.millisecond:
                self.millisecond = now
                # Starts in the lower half, which leaves room for two trillion ids in this millisecond.
                self.counter = int.from_bytes(os.urandom(6), "big") & 0x1FF_FFFF_FFFF
            else:
                self.counter += 1
                if self.counter > 0x3FF_FFFF_FFFF:
                    self.millisecond += 1
                    self.counter = 0
            return self.millisecond, self.counter


_clock = _Clock()


def _after_fork() -> None:
    # The child must neither go on with its parent's counter nor wait for a lock that a thread of the parent held.
    global _clock
    _clock = _Clock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def uuid7() -> UUID:
    """A time-ordered unique id (RFC 9562, version 7): new rows go to the end of the index.

    Within a process each id is larger than the one before, over clock steps too. Safe in threads and after a fork.
    """
    millisecond, counter = _clock.next()
    value = (millisecond & 0xFFFF_FFFF_FFFF) << 80
    value |= 7 << 76
    value |= (counter >> 30) << 64
    value |= 0b10 << 62
    value |= (counter & 0x3FFF_FFFF) << 32
    value |= int.from_bytes(os.urandom(4), "big")
    return UUID(int=value)


@dataclass(frozen=True, kw_only=True)
class Message:
    """A task to publish. Raises `InvalidArguments` when built with what no broker or row can hold.

    ``args`` and ``kwargs`` are what the function will receive, that is, what their JSON decodes to.
    """

    uuid: UUID = field(default_factory=uuid7)
    task: str
    args: tuple[Any, ...] = field(default=(), hash=False)
    kwargs: dict[str, Any] = field(default_factory=dict, hash=False)
    queue: str
    priority: int = 0
    exchange: str = ""
    #: what the exchange routes by; the queue's name for the default exchange
    routing_key: str
    #: not to run before this time
    run_after: datetime | None = None
    #: how often the row had been claimed when this message was made; a confirm disarms the bell of that life only
    fence: int = field(default=0, repr=False, compare=False)
    #: who asked for it: a task that was not published by "code" must be registered
    origin: str = "code"

    def __post_init__(self) -> None:
        if not isinstance(self.uuid, UUID):
            raise InvalidArguments(
                f"uuid is a {type(self.uuid).__name__}; it must be a uuid.UUID, as carrot.message.uuid7() makes."
            )
        _check_name("task", self.task, limit=None)
        if len(self.task) > MAX_TASK:
            raise InvalidArguments(f"task {short(self.task)} is longer than {MAX_TASK} characters; use a shorter path.")
        _check_name("queue", self.queue)
        _check_name("exchange", self.exchange, empty=True)
        _check_name("routing_key", self.routing_key, empty=True)
        _check_priority(self.priority)
        object.__setattr__(self, "run_after", _run_after(self.run_after))
        # The containers are the message's own: what the caller does to its lists later changes nothing here.
        object.__setattr__(self, "args", tuple(self.args))
        object.__setattr__(self, "kwargs", dict(self.kwargs))
        for name in self.kwargs:
            if not isinstance(name, str):
                raise InvalidArguments(
                    f"kwargs has the name {short(name)}; names of keyword arguments must be text (str)."
                )

    def publish(self) -> MessageLog:
        """Writes the row, in the caller's transaction if there is one, and returns it; the message follows on commit.

        Raises `PublishError` if the task, the arguments or the queue are refused; nothing was written then.
        """
        # A message knows how to publish itself for the sake of 1.x; the way to do it is above this module.
        from carrot import services

        return services.publish(self)

    def note_published(self) -> None:
        """Its row was inserted, in a transaction that may still be rolled back."""
        object.__setattr__(self, "_published", True)

    def was_published(self) -> bool:
        """Whether :meth:`note_published` was told so, of this object or one it is a plain copy of."""
        return "_published" in self.__dict__

    def call_text(self) -> str:
        """The call as a line for logs, ``app.tasks.add(1, b=2)``, at most 200 characters.

        Values under a name or key that the setting ``redact`` or the task itself calls secret are masked, and values of
        parameters that are called so.
        """
        names, own = self._parameters()
        patterns = (*_redaction(get_settings().redact), *own)
        parts = [
            _MASK if index < len(names) and _is_secret(names[index], patterns) else _value_text(value, patterns)
            for index, value in enumerate(self.args)
        ]
        parts += [
            f"{name}={_MASK if _is_secret(name, patterns) else _value_text(value, patterns)}"
            for name, value in self.kwargs.items()
        ]
        text = f"{self.task}({', '.join(parts)})"
        return text if len(text) <= _CALL_TEXT else f"{text[: _CALL_TEXT - 2]}…)"

    def _parameters(self) -> tuple[tuple[str, ...], tuple[re.Pattern[str], ...]]:
        """The parameters of the task, and the names that it calls secret itself."""
        if self.origin == "code":  # nothing is imported on the word of a stranger
            with suppress(InvalidTask):
                own = registry.task_options(self.task).redact
                exactly = tuple(re.compile(rf"\A{re.escape(name)}\Z", re.IGNORECASE) for name in own)
                return registry.parameter_names(self.task), exactly
        return (), ()


def _check_name(name: str, value: object, *, empty: bool = False, limit: int | None = MAX_NAME) -> None:
    if not isinstance(value, str):
        raise InvalidArguments(f"{name} is of type {type(value).__name__}; it must be text (str).")
    if not value and not empty:
        raise InvalidArguments(f"{name} is empty; it must be a name.")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        size = -1
    if size < 0 or "\0" in value:
        raise InvalidArguments(f"{name} {short(value)} holds a NUL character or a lone surrogate; use plain text.")
    if limit is not None and size > limit:
        raise InvalidArguments(
            f"{name} {short(value)} is longer than the {limit} bytes that AMQP allows; use a shorter one."
        )


def _run_after(value: object) -> datetime | None:
    """The time, in the zone of the present one, with which it will be compared."""
    if value is None:
        return None
    cure = "for instance timezone.now() + timedelta(minutes=5), or None"
    if not isinstance(value, datetime):
        raise InvalidArguments(f"run_after is a {type(value).__name__}; it must be a datetime, {cure}.")
    now = clock.now()
    try:
        return now + (value - now)
    except TypeError:
        found, wanted = ("naive", "aware") if value.utcoffset() is None else ("aware", "naive")
        raise InvalidArguments(f"run_after is {found}; by the setting USE_TZ it must be {wanted}, {cure}.") from None
    except OverflowError:
        raise InvalidArguments(f"run_after is {value}, which is no date in UTC; it must be one, {cure}.") from None


def _check_priority(value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_PRIORITY:
        raise InvalidArguments(
            f"priority is {short(value)}; it must be a whole number from 0 (last) to {MAX_PRIORITY} (first)."
        )


@lru_cache(maxsize=8)
def _redaction(patterns: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    """Each for itself: joined, their flags, groups and references to groups would get in each other's way."""
    return tuple(re.compile(pattern, re.IGNORECASE) for pattern in patterns)


def _is_secret(name: str, patterns: tuple[re.Pattern[str], ...]) -> bool:
    return any(pattern.search(name) for pattern in patterns)


def _value_text(value: object, patterns: tuple[re.Pattern[str], ...]) -> str:
    return repr(_masked(value, patterns)) if isinstance(value, (list, dict)) else repr(value)


def _masked(value: Any, patterns: tuple[re.Pattern[str], ...]) -> Any:
    if isinstance(value, Mapping):
        return {
            key: _MASK if _is_secret(str(key), patterns) else _masked(item, patterns) for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_masked(item, patterns) for item in value]
    return value
