"""The public names of carrot and their signatures. A change here is a change for every project: say so in CHANGELOG.md.

Names may be added to a front door; none of these may go or change.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest

import carrot
from carrot import exceptions
from carrot.models import MessageLog
from carrot.models.message_log import Origin, Status

#: parameters by name, with the default after "="; "*" begins those passed by keyword only
SIGNATURES = {
    "carrot.task": "(function=None, /, *, queue=None, priority=None, redact=(), atomic=False)",
    "carrot.utilities.publish_message": (
        "(task, *task_args, priority=0, queue=None, exchange='', routing_key=None, **task_kwargs)"
    ),
    "carrot.utilities.publish_many": "(messages)",
    "carrot.utilities.create_message": (
        "(task, queue, priority=0, task_args=(), exchange='', routing_key=None, task_kwargs=None)"
    ),
    "carrot.utilities.validate_task": "(task)",
    "carrot.utilities.get_host_from_name": "(name)",
    "carrot.utilities.purge_queue": "(name=None)",
    "carrot.utilities.requeue_all": "()",
    "carrot.utilities.create_scheduled_task": "(task, interval, task_name=None, queue=None, *, update=False, **kwargs)",
    "carrot.consumer.Consumer": (
        "(host, queue, logger, name, durable=True, queue_arguments=None, exchange_arguments=None)"
    ),
    "carrot.consumer.Consumer.get_task_type": "(self, properties, body)",
    "carrot.consumer.Consumer.get_message_log": "(self, properties, body)",
    "carrot.consumer.Consumer.add_failure_callback": "(self, cb)",
    "carrot.consumer.Consumer.fail": "(self, log, err)",
    "carrot.models.MessageLog.requeue": "(self)",
    "carrot.models.ScheduledTask.publish": "(self, priority=0)",
    "carrot.objects.VirtualHost": (
        "(url=None, host='localhost', name='%2f', port=5672, username='guest', password='guest', secure=False)"
    ),
    "carrot.objects.Message.publish": "(self)",
    "carrot.objects.BaseMessageSerializer": "(message=None, *, site=None)",
    "carrot.objects.BaseMessageSerializer.get_task": "(self, properties, body)",
    "carrot.objects.BaseMessageSerializer.serialize_arguments": "(self, body)",
    "carrot.objects.BaseMessageSerializer.body": "(self)",
    "carrot.objects.BaseMessageSerializer.properties": "(self)",
    "carrot.objects.BaseMessageSerializer.publish_kwargs": "(self)",
    "carrot.objects.DefaultMessageSerializer": "(message=None, *, site=None)",
}

FRONT_DOORS = {
    "carrot": {"task", "__version__"},
    "carrot.utilities": {"publish_message", "publish_many", "create_message", "validate_task", "get_host_from_name"},
    "carrot.objects": {"VirtualHost", "Message", "BaseMessageSerializer", "DefaultMessageSerializer"},
}

ERRORS = {
    "CarrotError": (Exception,),
    "CarrotConfigException": ("CarrotError",),
    "PublishError": ("CarrotError",),
    "InvalidTask": ("PublishError",),
    "TaskImportError": ("InvalidTask", ImportError),
    "TaskAttributeError": ("InvalidTask", AttributeError),
    "InvalidArguments": ("PublishError", TypeError),
    "UnknownQueue": ("PublishError", "CarrotConfigException"),
    "MessageFormatError": ("CarrotError",),
    "BrokerError": ("CarrotError",),
    "BrokerUnreachable": ("BrokerError",),
    "BrokerRefused": ("BrokerError",),
    "ServiceError": ("CarrotError",),
}


def found(path: str) -> Any:
    """What is at a dotted path, reached through its module."""
    names = path.split(".")
    for length in range(len(names) - 1, 0, -1):
        try:
            value = importlib.import_module(".".join(names[:length]))
        except ModuleNotFoundError:
            continue
        for name in names[length:]:
            value = getattr(value, name)
        return value
    raise AssertionError(path)


def shown(function: Any) -> str:
    """The signature without annotations."""
    signature = inspect.signature(function)
    bare = [each.replace(annotation=inspect.Parameter.empty) for each in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))


@pytest.mark.parametrize("path", SIGNATURES)
def test_signatures_stay(path: str) -> None:
    assert shown(found(path)) == SIGNATURES[path]


@pytest.mark.parametrize("door", FRONT_DOORS)
def test_names_stay_and_nothing_else_is_offered_by_accident(door: str) -> None:
    module = importlib.import_module(door)
    assert FRONT_DOORS[door] <= set(module.__all__)
    assert sorted(module.__all__) == sorted(set(module.__all__))
    for name in module.__all__:
        assert getattr(module, name) is not None


@pytest.mark.parametrize("name", ERRORS)
def test_errors_stay_in_their_tree(name: str) -> None:
    bases = tuple(getattr(exceptions, base) if isinstance(base, str) else base for base in ERRORS[name])
    assert getattr(exceptions, name).__bases__ == bases


def test_the_version_is_that_of_this_release() -> None:
    assert carrot.__version__ == "2.0.0"


def test_a_message_log_has_the_fields_and_properties_of_1_x() -> None:
    fields = {field.name for field in MessageLog._meta.get_fields()}
    fields_of_1_x = {
        *("status", "exchange", "queue", "routing_key", "uuid", "priority", "task", "exception", "traceback"),
        *("output", "publish_time", "failure_time", "completion_time", "log"),
    }
    assert fields_of_1_x <= fields
    for name in ("virtual_host", "positionals", "keywords"):
        assert isinstance(inspect.getattr_static(MessageLog, name), property)
    assert {"PUBLISHED", "IN_PROGRESS", "FAILED", "COMPLETED"} <= set(Status.values)
    assert set(Origin.values) == {"code", "admin", "schedule", "message"}


def test_a_message_has_the_documented_fields() -> None:
    message = carrot.message.Message  # type: ignore[attr-defined]
    parameters = inspect.signature(message).parameters
    assert set(parameters) >= {
        "uuid",
        "task",
        "args",
        "kwargs",
        "queue",
        "priority",
        "exchange",
        "routing_key",
        "run_after",
    }
    assert all(each.kind is inspect.Parameter.KEYWORD_ONLY for each in parameters.values())
