"""Front door: the functions that projects import."""

from carrot.conf import get_host_from_name
from carrot.operations import purge_queue, requeue_all
from carrot.registry import validate_task
from carrot.services import create_message, create_scheduled_task, publish_many, publish_message

__all__ = [
    "create_message",
    "create_scheduled_task",
    "get_host_from_name",
    "publish_many",
    "publish_message",
    "purge_queue",
    "requeue_all",
    "validate_task",
]
