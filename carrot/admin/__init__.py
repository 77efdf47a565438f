"""The monitor: what the rows say, as pages of Django's admin.

Stands on models, settings and the registry; knows no broker. Imported by the admin's autodiscovery alone, so the
service and the publishing code work without ``django.contrib.admin``.
"""

from carrot.admin.message_log import MessageLogAdmin
from carrot.admin.scheduled_task import ScheduledTaskAdmin
from carrot.admin.site import register_all
from carrot.admin.status_lists import (
    CompletedTaskAdmin,
    DelayedTaskAdmin,
    FailedTaskAdmin,
    QueuedTaskAdmin,
    RunningTaskAdmin,
)
from carrot.admin.stray_messages import StrayMessageAdmin
from carrot.admin.workers import WorkerProcessAdmin

__all__ = [
    "CompletedTaskAdmin",
    "DelayedTaskAdmin",
    "FailedTaskAdmin",
    "MessageLogAdmin",
    "QueuedTaskAdmin",
    "RunningTaskAdmin",
    "ScheduledTaskAdmin",
    "StrayMessageAdmin",
    "WorkerProcessAdmin",
]

register_all()
