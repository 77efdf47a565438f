"""What is remembered: every task is a row, and every change of a row is a verb defined here."""

from carrot.models.attempt import Attempt
from carrot.models.installation import Installation
from carrot.models.message_log import MessageLog, Origin, Status
from carrot.models.proxies import CompletedTask, DelayedTask, FailedTask, QueuedTask, RunningTask
from carrot.models.scheduled_task import ScheduledTask
from carrot.models.slots import IntervalType
from carrot.models.stray_message import StrayMessage
from carrot.models.worker_process import WorkerProcess

__all__ = [
    "Attempt",
    "CompletedTask",
    "DelayedTask",
    "FailedTask",
    "Installation",
    "IntervalType",
    "MessageLog",
    "Origin",
    "QueuedTask",
    "RunningTask",
    "ScheduledTask",
    "Status",
    "StrayMessage",
    "WorkerProcess",
]
