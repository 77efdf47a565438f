"""The lists of the monitor: the tasks of one status each.

Proxies of ``MessageLog`` without permissions of their own: who may see tasks may see every list of them.
"""

from __future__ import annotations

from typing import Any

from django.db import models
from django.utils.translation import gettext_lazy as _

from carrot.models.message_log import MessageLog, Status
from carrot.models.transitions import MessageLogQuerySet


class StatusManager(models.Manager[Any]):
    """The rows of one status."""

    def __init__(self, status: Status) -> None:
        super().__init__()
        self.status = status

    def get_queryset(self) -> MessageLogQuerySet:
        return MessageLogQuerySet(self.model, using=self._db).filter(status=self.status)


class QueuedTask(MessageLog):
    """Published, and waiting for a worker."""

    objects = StatusManager(Status.PUBLISHED)  # type: ignore[assignment,misc]

    class Meta:
        proxy = True
        default_permissions = ()
        verbose_name = _("queued task")
        verbose_name_plural = _("queued tasks")


class RunningTask(MessageLog):
    """In the hands of a worker."""

    objects = StatusManager(Status.IN_PROGRESS)  # type: ignore[assignment,misc]

    class Meta:
        proxy = True
        default_permissions = ()
        verbose_name = _("running task")
        verbose_name_plural = _("running tasks")


class FailedTask(MessageLog):
    """Ended by an exception, or by the death of its worker."""

    objects = StatusManager(Status.FAILED)  # type: ignore[assignment,misc]

    class Meta:
        proxy = True
        default_permissions = ()
        verbose_name = _("failed task")
        verbose_name_plural = _("failed tasks")


class CompletedTask(MessageLog):
    """Ended well."""

    objects = StatusManager(Status.COMPLETED)  # type: ignore[assignment,misc]

    class Meta:
        proxy = True
        default_permissions = ()
        verbose_name = _("completed task")
        verbose_name_plural = _("completed tasks")


class DelayedTask(MessageLog):
    """Not to run yet."""

    objects = StatusManager(Status.WAITING)  # type: ignore[assignment,misc]

    class Meta:
        proxy = True
        default_permissions = ()
        verbose_name = _("delayed task")
        verbose_name_plural = _("delayed tasks")
