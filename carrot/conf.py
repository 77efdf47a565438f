"""The settings of carrot: the only reader of `settings.CARROT`.

Receives the dict of a project; hands on frozen dataclasses, whose fields are the keys: name, type, default, unit, check
and help. They are read on first use, never at import, and again after Django's `setting_changed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed

from carrot import DEFAULT_BROKER, setting_keys, setting_values
from carrot.broker_url import suggestion
from carrot.exceptions import CarrotConfigException, UnknownQueue
from carrot.setting_keys import key, lease_problems, name_problems, queue_problems, section, sections
from carrot.setting_values import Check, FrozenMapping, Problem, Report, flag, number, table, text, texts
from carrot.virtual_host import VirtualHost

DEFAULT_QUEUE = "default"
DEFAULT_CONSUMER = "carrot.consumer.Consumer"
DAY = 86_400.0
CENTURY = 36_525 * DAY


def _paths(least: int, example: str) -> Check:
    return texts(f'a list of dotted paths such as ["{example}"]', lambda item: setting_values.not_dotted(item, least))


@dataclass(frozen=True, kw_only=True)
class QueueSettings:
    """A queue: an entry of the list `queues`."""

    name: str = key(
        text(
            'a name of 1 to 255 bytes, without control characters, not beginning with "amq."',
            setting_values.not_a_queue_name,
        ),
        id="carrot.E005",
        help="The queue's name at the broker. `publish_message()` without `queue` publishes to `default`.",
    )
    host: VirtualHost = key(
        setting_values.broker(),
        id="carrot.E007",
        default_text="`default_broker`",
        help="The broker that has the queue, in the forms of `default_broker`.",
    )
    concurrency: int = key(
        number(1, 1024, whole=True),
        id="carrot.E008",
        unit="threads",
        default=1,
        help="How many tasks of the queue run at the same time in each worker process.",
    )
    consumable: bool = key(
        flag(),
        id="carrot.E009",
        default=True,
        help="`False`: this project only publishes here, and another program consumes.",
    )
    durable: bool = key(
        flag(),
        id="carrot.E010",
        default=True,
        help="Whether queue, exchange and messages outlive a restart of RabbitMQ.",
    )
    queue_arguments: Mapping[str, Any] = key(
        table(),
        id="carrot.E011",
        default=FrozenMapping(),
        help="Arguments to declare the queue with, such as `x-queue-type`. "
        "`x-max-priority` is `max_priority` if left out.",
    )
    exchange_arguments: Mapping[str, Any] = key(
        table(),
        id="carrot.E012",
        default=FrozenMapping(),
        help="Arguments to declare the exchange of the queue's name with.",
    )
    consumer_class: str = key(
        text(
            'the dotted path of a class, such as "project.consumers.MyConsumer"',
            lambda value: setting_values.not_dotted(value, 2),
        ),
        id="carrot.E013",
        default=DEFAULT_CONSUMER,
        help="The subclass of `carrot.consumer.Consumer` that handles the queue's messages.",
    )


@dataclass(frozen=True, kw_only=True)
class Retention:
    """How long finished tasks are kept: the dict `retention`. `None` keeps them for ever."""

    completed: float | None = key(
        number(1, CENTURY, optional=True),
        id="carrot.E021",
        unit="seconds",
        default=3 * DAY,
        help="Completed tasks are deleted this long after their completion.",
    )
    failed: float | None = key(
        number(1, CENTURY, optional=True),
        id="carrot.E021",
        unit="seconds",
        default=None,
        help="Failed tasks are deleted this long after their failure.",
    )
    cancelled: float | None = key(
        number(1, CENTURY, optional=True),
        id="carrot.E021",
        unit="seconds",
        default=3 * DAY,
        help="Withdrawn and expired tasks are deleted after this long.",
    )


@dataclass(frozen=True, kw_only=True)
class CarrotSettings:
    """The dict `CARROT`. Every key may be left out, and so may the dict."""

    default_broker: VirtualHost = key(
        setting_values.broker(),
        id="carrot.E003",
        default=VirtualHost(DEFAULT_BROKER),
        default_text=f'"{DEFAULT_BROKER}"',
        help="The broker of all queues that name none: `amqp://…`, `amqps://…` (TLS) or `database://` (embedded).",
    )
    queues: Mapping[str, QueueSettings] = key(
        sections(QueueSettings, name_problems),
        id="carrot.E004",
        default=FrozenMapping({DEFAULT_QUEUE: QueueSettings(name=DEFAULT_QUEUE, host=VirtualHost(DEFAULT_BROKER))}),
        default_text='[{"name": "default"}]',
        help="The queues that this project publishes to and consumes.",
    )
    task_modules: tuple[str, ...] = key(
        _paths(1, "shop.tasks"),
        id="carrot.E014",
        default=(),
        help="Modules whose public functions are tasks, besides the `@carrot.task` functions of each app's `tasks.py`.",
    )
    monitor_authentication: tuple[str, ...] = key(
        _paths(2, "shop.decorators.from_the_office"),
        id="carrot.E015",
        default=(),
        help="View decorators that every page of the monitor passes, besides the login; the last one is outermost.",
    )
    lease: float = key(
        number(1, 3600),
        id="carrot.E016",
        unit="seconds",
        default=30.0,
        help="A worker process without a heartbeat for this long is taken for dead, and its tasks run again. "
        "At least three times `heartbeat`.",
    )
    heartbeat: float = key(
        number(0.1, 600),
        id="carrot.E017",
        unit="seconds",
        default=5.0,
        help="How often a service says that it is alive.",
    )
    grace: float = key(
        number(0, DAY),
        id="carrot.E019",
        unit="seconds",
        default=25.0,
        help="How long a service that is told to stop waits for running tasks.",
    )
    confirm_timeout: float = key(
        number(3, 600),
        id="carrot.E025",
        unit="seconds",
        default=5.0,
        help="How long RabbitMQ may take to confirm a message before a service sends it again.",
    )
    reconcile_interval: float = key(
        number(0.5, 3600),
        id="carrot.E026",
        unit="seconds",
        default=5.0,
        help="How often a service compares the rows of waiting and running tasks with the messages in RabbitMQ, and "
        "with the memory of its workers. What RabbitMQ lost is missed after about three times this long.",
    )
    deploy_patience: float = key(
        number(0, DAY),
        id="carrot.E027",
        unit="seconds",
        default=120.0,
        help="How long a task waits that the code of a worker cannot start, as its function is unknown there or takes "
        "other arguments: during a deployment another worker may. Then it is failed.",
    )
    publisher: str = key(
        setting_values.choice("thread", "relay"),
        id="carrot.E020",
        default="thread",
        help="Who sends messages: a thread of the publishing process, or (where threads may not run) the service.",
    )
    retention: Retention = key(
        section(Retention),
        id="carrot.E021",
        default=Retention(),
        default_text="completed and cancelled 3 days, failed for ever",
        help="How long finished tasks are kept.",
    )
    redact: tuple[str, ...] = key(
        texts(
            'a list of regular expressions for names of keys, such as ["TOKEN", "PASS"]', setting_values.not_a_pattern
        ),
        id="carrot.E022",
        default=("API", "AUTH", "TOKEN", "KEY", "SECRET", "PASS", "SIGNATURE"),
        help="Arguments with a name that one of these is found in, whatever the case, are masked in the monitor. "
        "Of functions that are not found all are, whatever this says.",
    )
    max_priority: int = key(
        number(1, 255, whole=True),
        id="carrot.E023",
        default=10,
        help="The highest priority of a message; queues are declared with it as `x-max-priority`.",
    )
    max_arguments_size: int = key(
        number(1024, 16_000_000, whole=True),
        id="carrot.E024",
        unit="bytes",
        default=1_048_576,
        help="The largest arguments that can be published, as JSON.",
    )
    max_log_size: int = key(
        number(1024, 16_000_000, whole=True),
        id="carrot.E024",
        unit="bytes",
        default=65_536,
        help="How much of the log of a task is stored.",
    )
    max_output_size: int = key(
        number(1024, 16_000_000, whole=True),
        id="carrot.E024",
        unit="bytes",
        default=65_536,
        help="How much of the result of a task is stored.",
    )

    @property
    def ring_again(self) -> float:
        """Seconds until a row is rung again whose message was not confirmed: a burst of them takes its time."""
        return 2 * self.confirm_timeout


def read(raw: object) -> tuple[CarrotSettings | None, list[Problem]]:
    """The settings that `raw` (what `settings.CARROT` holds) means, or None if it has errors; and its problems."""
    found: list[Problem] = []
    report = Report(where="CARROT", id="carrot.E001", problems=found, allowed="a dict")
    values = setting_keys.read_section(CarrotSettings, raw, report)
    default_broker = values.get("default_broker", VirtualHost(DEFAULT_BROKER))
    queues = values.pop("queues", [{"name": DEFAULT_QUEUE}])
    built = {queue["name"]: QueueSettings(**{"host": default_broker, **queue}) for queue in queues}
    result = CarrotSettings(**{**values, "queues": FrozenMapping(built)})
    found += lease_problems(result.lease, result.heartbeat)
    for queue in built.values():
        found += queue_problems(queue.name, queue.durable, queue.queue_arguments, result.max_priority)
    return (None if any(problem.level == "error" for problem in found) else result), found


def problems(raw: object) -> list[Problem]:
    """Everything wrong or doubtful in `raw`, which is what `settings.CARROT` holds. For the system checks."""
    return read(raw)[1]


def raw_settings() -> object:
    """What the project wrote, unread; an empty dict if it wrote nothing."""
    return getattr(settings, "CARROT", {})


_cached: CarrotSettings | None = None


def get_settings() -> CarrotSettings:
    """The settings, read once. Cheap: publishing asks for them with each message.

    Raises `CarrotConfigException` that lists every error.
    """
    global _cached
    if _cached is None:
        result, found = read(raw_settings())
        if result is None:
            errors = [f"{each.message} {each.hint} ({each.id})" for each in found if each.level == "error"]
            raise CarrotConfigException("The setting CARROT is wrong.\n" + "\n".join(errors))
        _cached = result
    return _cached


def get_queue(name: str | None) -> QueueSettings:
    """The queue of this name; None and "" mean "default". Raises `UnknownQueue`, which lists the names there are."""
    queues = get_settings().queues
    wanted: object = name or DEFAULT_QUEUE
    if not isinstance(wanted, str) or wanted not in queues:
        valid = ", ".join(map(setting_values.shown, queues))
        given = setting_values.shown(wanted)
        problem = f"There is no queue {given}" if isinstance(wanted, str) else f"The queue is {given}, not its name"
        raise UnknownQueue(
            f'{problem}. CARROT["queues"] has: {valid}. '
            f"Use one of these, or add the queue to the settings.{suggestion(wanted, queues)}"
        )
    return queues[wanted]


def get_host_from_name(name: str | None) -> VirtualHost:
    """The broker of the queue of this name; for None and "" the default broker. Raises `UnknownQueue`."""
    return get_queue(name).host if name else get_settings().default_broker


def _forget(*, setting: str, **_: object) -> None:
    global _cached
    if setting == "CARROT":
        _cached = None


setting_changed.connect(_forget, dispatch_uid="carrot.conf")
