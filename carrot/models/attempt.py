"""The history of one task: what became of its earlier attempts."""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.utils.translation import gettext_lazy as _

from carrot.models.message_log import MessageLog


class Attempt(models.Model):
    """A finished or lost attempt of a task that was tried again. The last attempt is the ``MessageLog`` itself."""

    message_log = models.ForeignKey(
        MessageLog, on_delete=models.CASCADE, related_name="attempts", verbose_name=_("task")
    )
    number = models.PositiveIntegerField(_("attempt"))
    worker = models.CharField(_("worker"), max_length=300, blank=True)
    start_time = models.DateTimeField(_("started"), null=True)
    end_time = models.DateTimeField(_("ended"), null=True)
    exception = models.TextField(_("exception"), blank=True)
    traceback = models.TextField(_("traceback"), blank=True)
    log = models.TextField(_("log"), blank=True)

    class Meta:
        verbose_name = _("attempt")
        verbose_name_plural = _("attempts")
        ordering = ("message_log", "number", "pk")
        default_permissions = ()

    @classmethod
    def of(cls, row: MessageLog, *, end_time: datetime | None, worker: str) -> Attempt:
        """The unsaved history entry of the attempt that ``row`` shows now."""
        return cls(
            message_log=row,
            number=row.tries,
            worker=worker,
            start_time=row.start_time,
            end_time=end_time,
            exception=row.exception,
            traceback=row.traceback,
            log=row.log,
        )

    def __str__(self) -> str:
        return f"{self.message_log_id} #{self.number}"
