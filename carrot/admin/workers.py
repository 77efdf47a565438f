"""The worker processes, those that live and those that ended."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from carrot import clock
from carrot.admin import display
from carrot.admin.changelist import task_url
from carrot.admin.filters import EqualityFilter
from carrot.admin.read_only import ReadOnlyAdmin
from carrot.admin.redaction import url_passwords_masked
from carrot.admin.task_lists import START, news_of
from carrot.conf import get_settings
from carrot.models import MessageLog, Status, WorkerProcess

#: Running tasks that the page of a worker lists.
MAX_RUNNING = 100


class AliveFilter(EqualityFilter):
    title = gettext_lazy("state")
    parameter_name = "state"

    def values(self) -> Iterable[tuple[str, Any]]:
        return [("alive", _("alive")), ("ended", _("ended"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        if self.value() is None:
            return queryset
        return queryset.filter(alive=self.value() == "alive") if self.value() in ("alive", "ended") else queryset.none()


@admin.register(WorkerProcess)
class WorkerProcessAdmin(ReadOnlyAdmin):
    list_display = ("name", "state_and_news", "queues", "concurrency", "started", "heartbeat")
    list_filter = (AliveFilter,)
    search_fields = ("host", "queues", "ending", "notice", "unsent")
    sortable_by = ("started",)
    fieldsets = (
        (None, {"fields": ("name", "state", "news", "ending_text")}),
        (gettext_lazy("Process"), {"fields": (("host", "pid", "service_pid"), ("queues", "concurrency", "version"))}),
        (gettext_lazy("Times"), {"fields": (("started", "heartbeat", "ended"),)}),
        (gettext_lazy("Running tasks"), {"fields": ("running",)}),
    )
    readonly_fields = ("name", "state", "news", "ending_text", "started", "heartbeat", "ended", "running")

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Without the running tasks, for those who may not see tasks."""
        return self.fieldsets if self.may_see_tasks(request) else self.fieldsets[:-1]

    def empty_message(self) -> Any:
        return format_html("{} <code>{}</code>", _("No worker has reported. Start the service with"), START)

    @admin.display(description=gettext_lazy("worker"))
    def name(self, worker: WorkerProcess) -> str:
        return str(worker)

    @admin.display(description=gettext_lazy("state"))
    def state(self, worker: WorkerProcess) -> SafeString:
        if not worker.alive:
            ending = url_passwords_masked(worker.ending)
            return format_html(
                '<span class="carrot-status carrot-status-cancelled">{}</span>{}{}',
                _("ended"),
                ": " if ending else "",
                ending,
            )
        silent = clock.now() - worker.beat_at
        if silent > timedelta(seconds=get_settings().lease):
            text = _("silent for %s") % display.duration(silent.total_seconds())
            return format_html('<span class="carrot-status carrot-status-failed">{}</span>', text)
        return format_html('<span class="carrot-status carrot-status-completed">{}</span>', _("alive"))

    @admin.display(description=gettext_lazy("state"))
    def state_and_news(self, worker: WorkerProcess) -> SafeString:
        news = ((display.shortened(text, 120),) for text in news_of(worker))
        return self.state(worker) + format_html_join("", '<span class="carrot-warning">{}</span>', news)

    @admin.display(description=gettext_lazy("started"), ordering="pk")
    def started(self, worker: WorkerProcess) -> SafeString | str:
        return display.moment(worker.started_at)

    @admin.display(description=gettext_lazy("last heartbeat"))
    def heartbeat(self, worker: WorkerProcess) -> SafeString | str:
        return display.moment(worker.beat_at)

    @admin.display(description=gettext_lazy("ended"))
    def ended(self, worker: WorkerProcess) -> SafeString | str:
        return display.moment(worker.ended_at)

    @admin.display(description=gettext_lazy("notice"))
    def news(self, worker: WorkerProcess) -> SafeString | str:
        return "\n".join(news_of(worker)) or display.EMPTY

    @admin.display(description=gettext_lazy("how it ended"))
    def ending_text(self, worker: WorkerProcess) -> str:
        return url_passwords_masked(worker.ending) or display.EMPTY

    @admin.display(description=gettext_lazy("tasks"))
    def running(self, worker: WorkerProcess) -> SafeString | str:
        """What this worker has in its hands."""
        rows = MessageLog.objects.filter(status=Status.IN_PROGRESS, worker=worker.pk).order_by("pk")
        tasks = list(rows.values_list("pk", "task", "uuid")[:MAX_RUNNING])
        if not tasks:
            return _("none")
        site = self.admin_site.name
        return format_html(
            '<ul class="carrot-list">{}</ul>',
            format_html_join(
                "", '<li><a href="{}">{}</a> {}</li>', ((task_url(site, pk), task, uuid) for pk, task, uuid in tasks)
            ),
        )
