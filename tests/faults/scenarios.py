"""The fault scenarios, by their ids. Each has tests marked with its id, or says why not.

The ids have gaps: what they named turned out to be part of another one. That a health command tells of a thread that
has died (F10) waits for that command.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

NO_BROKER = "there is no broker to lose: the rows are the queue"
NO_MESSAGES = "there are no messages: the rows are the queue"
TIME_LIMITS = "waits for hard time limits"
CRON = "waits for cron schedules"
CATCH_UP = "waits for a policy for missed runs"
SOAK = "is not a test of seconds: scripts/soak"


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One fault. ``why_not``: broker -> why it has no test there."""

    fault: str
    why_not: Mapping[str, str] = field(default_factory=dict)


def _on_rabbitmq(fault: str, why: str = NO_BROKER) -> Scenario:
    return Scenario(fault=fault, why_not={"database": why})


def _nowhere(fault: str, why: str) -> Scenario:
    return Scenario(fault=fault, why_not={"amqp": why, "database": why})


SCENARIOS: Mapping[str, Scenario] = {
    "F01": Scenario(fault="worker child killed again and again"),
    "F02": Scenario(fault="whole service killed"),
    "F03": Scenario(fault="services stopped in turn under load"),
    "F04": Scenario(fault="service stopped within a slow COMMIT"),
    "F05": Scenario(fault="worker frozen for longer than its lease"),
    "F06": Scenario(fault="task that kills its worker"),
    "F07": Scenario(fault="task that takes all memory"),
    "F08": _nowhere("task that hangs for ever", TIME_LIMITS),
    "F10": Scenario(fault="infrastructure thread dies"),
    "F11": _on_rabbitmq("RabbitMQ restarted"),
    "F13": _on_rabbitmq("connections closed again and again"),
    "F14": _on_rabbitmq("memory alarm of RabbitMQ"),
    "F15": _on_rabbitmq("disk alarm of RabbitMQ"),
    "F16": _on_rabbitmq("queue deleted or purged", NO_MESSAGES),
    "F17": _on_rabbitmq("queue exists with other arguments", NO_MESSAGES),
    "F18": _on_rabbitmq("black hole to RabbitMQ"),
    "F20": _on_rabbitmq("messages confirmed and then lost", NO_MESSAGES),
    "F21": _on_rabbitmq("acknowledgement timeout of RabbitMQ", NO_MESSAGES),
    "F22": _on_rabbitmq("rights on RabbitMQ revoked"),
    "F23": _on_rabbitmq("RabbitMQ refuses connections"),
    "F24": _on_rabbitmq("leader of a cluster killed"),
    "F25": _on_rabbitmq("duplicate and forged messages", NO_MESSAGES),
    "F26": Scenario(fault="database sessions ended again and again"),
    "F27": Scenario(fault="database crashes"),
    "F28": Scenario(fault="black hole to the database"),
    "F29": Scenario(fault="database without space"),
    "F31": Scenario(fault="deadlocks and locked databases"),
    "F32": Scenario(fault="no database connection left"),
    "F34": Scenario(fault="outcomes that cannot be stored"),
    "F35": Scenario(fault="clock set back and forth"),
    "F36": _nowhere("daylight saving time", CRON),
    "F37": Scenario(fault="many schedulers, one killed"),
    "F38": _nowhere("schedulers stopped for an hour", CATCH_UP),
    "F39": Scenario(fault="log and pid files in trouble"),
    "F41": Scenario(fault="task unknown to this version"),
    "F42": _nowhere("soak", SOAK),
}
