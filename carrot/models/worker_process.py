"""Worker processes and their leases."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from carrot import clock
from carrot.models.managers import PrimaryManager


class WorkerProcessQuerySet(models.QuerySet["WorkerProcess"]):
    def alive(self) -> WorkerProcessQuerySet:
        return self.filter(alive=True)

    def beat(self, ids: list[int]) -> set[int]:
        """Prolongs the leases of ``ids``; returns those still alive. One that is missing was declared lost by somebody
        else: its claims may already run elsewhere, so its process has to go."""
        self.filter(pk__in=ids, alive=True).update(beat=models.F("beat") + 1, beat_at=clock.now())
        return set(self.filter(pk__in=ids, alive=True).values_list("pk", flat=True))

    def tell_unsent(self, why: str) -> None:
        """Notes why the service of these workers cannot send messages; empty when it can."""
        self.exclude(unsent=why).update(unsent=why)

    def end(self, worker_id: int, how: str) -> bool:
        """Marks a worker as gone; False where somebody did before. Its claims are released by ``release_orphans``."""
        return bool(self.filter(pk=worker_id, alive=True).update(alive=False, ended_at=clock.now(), ending=how[:255]))


WorkerProcessManager = PrimaryManager.from_queryset(WorkerProcessQuerySet)


class WorkerProcess(models.Model):
    """One start of one worker process. Its ``beat`` is the lease: others judge it by seeing the number stand still
    for a whole lease of their own clock, so no two clocks are ever compared."""

    host = models.CharField(_("host"), max_length=255)
    pid = models.IntegerField(_("process id"))
    service_pid = models.IntegerField(_("process id of the service"))
    queues = models.TextField(_("queues"))
    concurrency = models.PositiveIntegerField(_("threads"))
    version = models.CharField(_("carrot version"), max_length=32)
    started_at = models.DateTimeField(_("started"))
    beat = models.PositiveBigIntegerField(_("heartbeats"), default=0)
    beat_at = models.DateTimeField(_("last heartbeat"))
    alive = models.BooleanField(_("alive"), default=True)
    ended_at = models.DateTimeField(_("ended"), null=True, blank=True)
    ending = models.CharField(_("how it ended"), max_length=255, blank=True)
    notice = models.TextField(_("notice"), blank=True, help_text=_("What this worker wants its operator to know."))
    unsent = models.TextField(_("unsent"), blank=True, help_text=_("Why its service cannot send messages."))

    objects = WorkerProcessManager()

    class Meta:
        verbose_name = _("worker")
        verbose_name_plural = _("workers")

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"
