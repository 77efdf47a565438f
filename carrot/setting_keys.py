"""The keys of a section of the settings: how one is declared, and how a dict is read by them.

Receives a dict of the settings and the dataclass that describes it; hands on the values to use, and the problems found.
The dataclasses are in `carrot.conf`: their fields are declared with `key()`, so that type, default, check and help of a
setting stand in one place. The reference page `docs/settings.md` is made from there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from carrot.broker_url import suggestion
from carrot.setting_values import Check, Problem, Report, shown


@dataclass(frozen=True, kw_only=True)
class Key:
    """What `key()` keeps with a field: everything about a setting but its name and default, which are the field's."""

    check: Check
    id: str
    help: str
    unit: str = ""
    default_text: str = ""


def key(
    check: Check, *, id: str, help: str, unit: str = "", default: Any = dataclasses.MISSING, default_text: str = ""
) -> Any:
    """A dataclass field for a key of the settings. `default_text` says in words what a default that depends is."""
    metadata = {"key": Key(check=check, id=id, help=help, unit=unit, default_text=default_text)}
    return field(default=default, metadata=metadata)


def keys_of(section: type) -> dict[str, Key]:
    """The keys of a settings dataclass, in order."""
    return {each.name: each.metadata["key"] for each in dataclasses.fields(section)}


def is_required(section: type, name: str) -> bool:
    """Whether a key must be given: it has no default, not even one that depends on other keys."""
    each = next(each for each in dataclasses.fields(section) if each.name == name)
    return each.default is dataclasses.MISSING and not each.metadata["key"].default_text


def default_of(section: type, name: str) -> str:
    """The default of a key as the reference page and the hints write it; empty for a key that must be given."""
    each = next(each for each in dataclasses.fields(section) if each.name == name)
    text: str = each.metadata["key"].default_text
    if text or each.default is dataclasses.MISSING:
        return text
    value = each.default
    return repr(list(value) if isinstance(value, tuple) else value)


def read_section(section: type, raw: object, report: Report) -> dict[str, Any]:
    """The values that `raw` gives for the keys of `section`; what is wrong goes to the report, not into the values."""
    keys = keys_of(section)
    if not isinstance(raw, Mapping):
        report.wrong(f"is {shown(raw)}", hint=report.hint or "Write a dict, or leave it out for the defaults.")
        return {}
    for name in raw:
        if name not in keys:
            report.problems.append(
                Problem(
                    id="carrot.E002",
                    message=f"{report.where} has the unknown key {shown(name)}.{suggestion(name, keys)}",
                    hint=f"Allowed are: {', '.join(keys)}.",
                )
            )
    values = {}
    for name, each in keys.items():
        if name not in raw:
            if is_required(section, name):
                missing = dataclasses.replace(report, id=each.id, allowed="")
                missing.wrong(f"has no {name}", hint=f'Add "{name}": {each.check.allowed}.')
            continue
        default = default_of(section, name)
        deeper = dataclasses.replace(
            report.at(name),
            id=each.id,
            allowed=each.check.allowed,
            hint=f"Change it, or leave it out for the default: {default}." if default else "Change it.",
        )
        before = len(report.problems)
        value = each.check.read(raw[name], deeper)
        if not any(problem.level == "error" for problem in report.problems[before:]):
            values[name] = value
    return values


def section(section_class: type) -> Check:
    """A dict, read by the dataclass of a section as an instance of it."""

    def read(value: object, report: Report) -> Any:
        return section_class(**read_section(section_class, value, report))

    return Check(f"a dict with any of the keys {', '.join(keys_of(section_class))}", read)


def sections(section_class: type, problems_of: Callable[[list[dict[str, Any]]], Iterable[Problem]]) -> Check:
    """A list of dicts, read as a list of values: what builds them knows the defaults that depend on other keys."""

    def read(value: object, report: Report) -> list[dict[str, Any]]:
        if not isinstance(value, (list, tuple)) or not value:
            report.wrong("is an empty list" if isinstance(value, (list, tuple)) else f"is {shown(value)}")
            return []
        deeper = dataclasses.replace(report, allowed="a dict", hint="Change it, or remove it.")
        found = [read_section(section_class, item, deeper.at(index)) for index, item in enumerate(value)]
        report.problems.extend(problems_of(found))
        return found

    return Check("a list of one or more dicts", read)


def name_problems(queues: list[dict[str, Any]]) -> Iterator[Problem]:
    """What is wrong or doubtful with the names of the queues taken together."""
    names = [queue["name"] for queue in queues if "name" in queue]
    for index, name in enumerate(names):
        if name in names[:index]:
            yield Problem(
                id="carrot.E006",
                message=f'CARROT["queues"] has the name {shown(name)} twice.',
                hint="Give each queue its own name, or remove one of the entries.",
            )
            continue
        for other in names[:index]:
            if other.casefold() == name.casefold():
                yield Problem(
                    id="carrot.W001",
                    level="warning",
                    message=f'CARROT["queues"] has the names {shown(other)} and {shown(name)}, '
                    "which differ only by case.",
                    hint="RabbitMQ keeps them apart, people and some databases do not: rename one of them.",
                )
    if names and "default" not in names:
        yield Problem(
            id="carrot.W002",
            level="warning",
            message='CARROT["queues"] has no queue "default": publish_message() without queue= is refused.',
            hint='Add {"name": "default"}, or name a queue in every call and silence carrot.W002.',
        )


def lease_problems(lease: float, heartbeat: float) -> Iterator[Problem]:
    """A lease that a heartbeat or two that come late could end."""
    if lease < 3 * heartbeat:
        yield Problem(
            id="carrot.E018",
            message=f'CARROT["lease"] is {lease:g} and CARROT["heartbeat"] is {heartbeat:g} seconds. The lease must be '
            "at least three times the heartbeat, or a service that is merely slow is taken for dead.",
            hint=f"Raise the lease to {3 * heartbeat:g} or more, or lower the heartbeat.",
        )


def queue_problems(queue: str, durable: bool, arguments: Mapping[str, Any], max_priority: int) -> Iterator[Problem]:
    """Arguments of a queue that work against carrot, or against what is published."""
    limit = arguments.get("x-max-priority", max_priority)
    if limit < max_priority:
        yield Problem(
            id="carrot.W003",
            level="warning",
            message=f'The queue {shown(queue)} has x-max-priority {limit}, but CARROT["max_priority"] is '
            f"{max_priority}: priorities from {limit} to {max_priority} are all the same there.",
            hint="Raise x-max-priority (the queue must be deleted and declared anew), or lower max_priority.",
        )
    kind = arguments.get("x-queue-type", "classic")
    if kind not in ("classic", "quorum"):
        yield Problem(
            id="carrot.E028",
            message=f"The queue {shown(queue)} has x-queue-type {shown(kind)}. Carrot hands messages back and needs "
            "priorities, so it works with queues of the types classic and quorum.",
            hint='Make "x-queue-type" one of these, or leave it out: it is what RabbitMQ uses by default then.',
        )
    if not durable:
        yield Problem(
            id="carrot.W004",
            level="warning",
            message=f"The queue {shown(queue)} is not durable: RabbitMQ 4.3 and later refuses such queues, and after "
            "its restart every waiting task has to be sent again.",
            hint='Leave "durable" out (the queue must be deleted and declared anew).',
        )
    for name in ("x-message-ttl", "x-max-length", "x-max-length-bytes", "x-expires"):
        if name in arguments:
            yield Problem(
                id="carrot.W009",
                level="warning",
                message=f"The queue {shown(queue)} has {name}: a message that RabbitMQ drops is sent again, because "
                "its row still waits.",
                hint="Remove it, and let tasks that come too late expire: that is said when they are published.",
            )
