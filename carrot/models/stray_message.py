"""Messages that came from a broker and are no task of ours."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import models
from django.utils.translation import gettext_lazy as _

from carrot.models.managers import PrimaryManager

#: How many stray messages are kept; the oldest go first.
KEPT = 500


class StrayMessageManager(PrimaryManager["StrayMessage"]):
    def keep(self, strays: Sequence[StrayMessage]) -> None:
        """Stores ``strays`` and drops the oldest beyond :data:`KEPT`, so that a flood cannot fill the table."""
        self.bulk_create(strays[-KEPT:])
        oldest_kept = self.order_by("-pk").values_list("pk", flat=True)[KEPT - 1 : KEPT].first()
        if oldest_kept is not None:
            self.filter(pk__lt=oldest_kept).delete()


class StrayMessage(models.Model):
    """A message that was acknowledged without running anything: garbage, or one whose row does not exist."""

    received_at = models.DateTimeField(_("received"))
    broker = models.CharField(_("virtual host"), max_length=255)
    queue = models.CharField(_("queue"), max_length=255)
    reason = models.CharField(_("reason"), max_length=255)
    task = models.CharField(_("task"), max_length=255, blank=True)
    message_id = models.CharField(_("message id"), max_length=255, blank=True)
    body = models.TextField(_("body"), blank=True, help_text=_("The first 2,000 characters."))

    objects = StrayMessageManager()

    class Meta:
        verbose_name = _("stray message")
        verbose_name_plural = _("stray messages")

    def __str__(self) -> str:
        return f"{self.queue}: {self.reason}"
