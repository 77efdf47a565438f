"""What a key of the settings may hold: one check for each kind of value.

Receives what a project wrote under a key; hands on the value to use, or writes to a `Report` what is wrong with it.
"""

from __future__ import annotations

import dataclasses
import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from carrot.broker_url import suggestion
from carrot.exceptions import CarrotConfigException
from carrot.virtual_host import VirtualHost

T = TypeVar("T")
_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
# What pika can write into an AMQP table, besides tables and lists. It has no floats.
_TABLE_VALUES = (str, bool, int, bytes, type(None))
# Of tables and lists in each other: a few are used, and one that contains itself has no end.
_LEVELS = 20


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something wrong or doubtful in the settings, as a system check reports it."""

    id: str
    message: str
    hint: str
    level: Literal["error", "warning"] = "error"


class FrozenMapping(Mapping[str, T], Generic[T]):
    """A mapping that does not change. A copy of it, also within `dataclasses.asdict`, is itself."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, T] | None = None) -> None:
        self._items = dict(items or {})

    def __getitem__(self, name: str) -> T:
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items))

    def __repr__(self) -> str:
        return repr(self._items)

    def __copy__(self) -> FrozenMapping[T]:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> FrozenMapping[T]:
        return self


@dataclass(frozen=True, kw_only=True)
class Report:
    """Where a check is in the settings, and where it writes down what it finds."""

    where: str
    id: str
    problems: list[Problem]
    allowed: str = ""
    hint: str = ""

    def wrong(self, found: str, *, hint: str = "") -> None:
        """Note an error: `found` continues the sentence that the key's place begins."""
        allowed = f" It must be {self.allowed}." if self.allowed else ""
        self.problems.append(Problem(id=self.id, message=f"{self.where} {found}.{allowed}", hint=hint or self.hint))

    def at(self, index: object) -> Report:
        """The same report, one level deeper."""
        return dataclasses.replace(self, where=f"{self.where}[{_quoted(index)}]")


@dataclass(frozen=True)
class Check:
    """What a key may hold: in words, and as a function that gives the value to use or writes to the report."""

    allowed: str
    read: Callable[[Any, Report], Any]


def shown(value: object) -> str:
    """A value for a message. Text that could hold a password, and what is large, is shown by its type alone."""
    if isinstance(value, int) and not -(10**60) < value < 10**60:
        return "a huge number"  # Python turns none of thousands of digits into text
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)[:60]
    if isinstance(value, str) and _may_be_shown(value):
        return ascii_quoted(value[:100])
    article = "an" if type(value).__name__[:1] in tuple("aeiou") else "a"
    return f"{article} {type(value).__name__}"


def _may_be_shown(text: str) -> bool:
    return len(text) <= 300 and not re.search(r"://|@", text)


def _is_unicode(text: str) -> bool:
    """Whether there are no lone surrogates in it, which have no UTF-8."""
    return text.encode("utf-8", "ignore").decode() == text


def ascii_quoted(text: str) -> str:
    """The text in double quotes, with what cannot be printed escaped."""
    return '"' + "".join(c if c.isprintable() else repr(c)[1:-1] for c in text) + '"'


def _quoted(index: object) -> str:
    return shown(index) if isinstance(index, str) else repr(index)


def number(minimum: float, maximum: float, *, whole: bool = False, optional: bool = False) -> Check:
    """A number within bounds; a bool is none. `whole` refuses floats, `optional` allows None."""
    kind = "a whole number" if whole else "a number"
    # Digits are grouped where they are hard to count, as one may write them in the settings.
    highest = f"{int(maximum):_}" if maximum >= 10_000 else f"{maximum:g}"
    allowed = f"{kind} from {minimum:g} to {highest}" + (", or None" if optional else "")

    def read(value: object, report: Report) -> float | None:
        if value is None and optional:
            return None
        right_type = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if not right_type or not isinstance(value, (int, float)):
            report.wrong(f"is {shown(value)}" + (", a string" if isinstance(value, str) else ""))
            return None
        if not (math.isfinite(value) if isinstance(value, float) else True) or not minimum <= value <= maximum:
            report.wrong(f"is {shown(value)}")
            return None
        return value if whole else float(value)

    return Check(allowed, read)


def flag() -> Check:
    """True or False, and nothing that merely looks so."""

    def read(value: object, report: Report) -> bool:
        if not isinstance(value, bool):
            report.wrong(f"is {shown(value)}")
        return value is True

    return Check("True or False", read)


def choice(*options: str) -> Check:
    """One of a few words."""

    def read(value: object, report: Report) -> str:
        if isinstance(value, str) and value in options:
            return value
        report.wrong(f"is {shown(value)}", hint=suggestion(value, options).strip())
        return ""

    return Check(" or ".join(f'"{option}"' for option in options), read)


def text(allowed: str, problem_of: Callable[[str], str]) -> Check:
    """A string in which `problem_of` finds nothing wrong."""

    def read(value: object, report: Report) -> str:
        found = f"is {shown(value)}" if not isinstance(value, str) else problem_of(value)
        if found:
            report.wrong(found)
        return value if isinstance(value, str) else ""

    return Check(allowed, read)


def texts(allowed: str, problem_of: Callable[[str], str]) -> Check:
    """A list (or tuple) of strings, read as a tuple, each once."""

    def read(value: object, report: Report) -> tuple[str, ...]:
        if not isinstance(value, (list, tuple)):
            hint = f"Write it in brackets: [{shown(value)}]." if isinstance(value, str) else ""
            report.wrong(f"is {shown(value)}, not a list", hint=hint)
            return ()
        good: list[str] = []
        for index, item in enumerate(value):
            found = f"is {shown(item)}" if not isinstance(item, str) else problem_of(item)
            if not found and item in good:
                found = f"is {shown(item)}, which the list has already"
            if found:
                report.at(index).wrong(found)
            else:
                good.append(item)
        return tuple(good)

    return Check(allowed, read)


def not_dotted(value: str, least: int = 1) -> str:
    """What is wrong with a dotted path of at least `least` names; empty if nothing is."""
    if not _DOTTED.fullmatch(value) or value.count(".") + 1 < least:
        return f"is {shown(value)}, which is not a dotted path"
    return ""


def not_a_pattern(value: str) -> str:
    """What is wrong with a regular expression for names of keys; empty if nothing is."""
    try:
        pattern = re.compile(value)
    except (re.error, OverflowError, RecursionError) as error:
        reason = f" ({error})" if _may_be_shown(value) else ""  # it quotes the pattern
        return f"is {shown(value)}, which is not a regular expression{reason}"
    return f"is {shown(value)}, which matches every name" if pattern.search("") else ""


def not_a_queue_name(value: str) -> str:
    """What is wrong with the name of a queue; empty if nothing is."""
    if not value.strip():
        return "is empty"
    if value != value.strip():
        return f"is {shown(value)}, which begins or ends with a space"
    if value.startswith("amq."):
        return f"is {shown(value)}: names that begin with amq. are kept for RabbitMQ itself"
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in value):
        return f"is {shown(value)}, which holds a control character"
    size = len(value.encode())
    return f"is {size} bytes long" if size > 255 else ""


def broker() -> Check:
    """A broker's URL or dict, read as a `VirtualHost`."""

    def read(value: Any, report: Report) -> VirtualHost | None:
        try:
            return VirtualHost.parse(value)
        except CarrotConfigException as error:
            # The text of the error says what is allowed and what to do, and holds no password.
            dataclasses.replace(report, allowed="").wrong(f"is wrong: {str(error).rstrip('.')}")
        return None

    return Check("a URL or a dict", read)


def table() -> Check:
    """Arguments of a queue or an exchange: what an AMQP table can hold."""

    def plain(value: object, report: Report, level: int = 1) -> Any:
        """A copy in dicts and lists; what they must not hold is reported."""
        if isinstance(value, (Mapping, list)) and level > _LEVELS:
            report.wrong(f"is nested more than {_LEVELS} levels deep")
        elif isinstance(value, Mapping):
            copied = {}
            for name, item in value.items():
                if not isinstance(name, str) or not _is_unicode(name) or not 1 <= len(name.encode()) <= 128:
                    report.wrong(f"has the key {shown(name)}")
                else:
                    copied[name] = plain(item, report.at(name), level + 1)
            return copied
        elif isinstance(value, list):
            return [plain(item, report.at(index), level + 1) for index, item in enumerate(value)]
        elif not isinstance(value, _TABLE_VALUES) or (isinstance(value, str) and not _is_unicode(value)):
            report.wrong(f"is {shown(value)}")
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            report.wrong(f"is {shown(value)}, which has more than 64 bits")
        return value

    def read(value: object, report: Report) -> FrozenMapping[Any]:
        if not isinstance(value, Mapping):
            report.wrong(f"is {shown(value)}")
            return FrozenMapping()
        limit = value.get("x-max-priority", 1)
        if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= 255:
            dataclasses.replace(report.at("x-max-priority"), allowed="a whole number from 1 to 255").wrong(
                f"is {shown(limit)}", hint="Change it. RabbitMQ advises a single digit: each level costs a process."
            )
        return FrozenMapping(plain(value, report))

    return Check("a dict with strings as keys; values are strings, whole numbers, booleans, None, lists or dicts", read)
