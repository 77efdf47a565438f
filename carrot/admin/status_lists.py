"""The lists of one status each."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.html import format_html
from django.utils.translation import gettext as _

from carrot.admin.changelist import MonitorChangeList, task_url
from carrot.admin.queue_actions import QueueActions
from carrot.admin.task_lists import START, TaskListAdmin, hindrances, no_worker
from carrot.models import CompletedTask, DelayedTask, FailedTask, QueuedTask, RunningTask


class StatusListAdmin(TaskListAdmin):
    """A list whose links lead to the one page of each task: a task outlives its status."""

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        return self._to_its_page(request, object_id)

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        return self._to_its_page(request, object_id)

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        return self._to_its_page(request, object_id)

    def _to_its_page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        query = f"?{request.GET.urlencode()}" if request.GET else ""
        return HttpResponseRedirect(task_url(self.admin_site.name, object_id) + query)


@admin.register(QueuedTask)
class QueuedTaskAdmin(QueueActions, StatusListAdmin):
    list_display = ("name", "arguments", "queue_name", "priority", "queued", "attempt", "reason")
    actions = ("withdraw",)

    def empty_message(self) -> Any:
        return no_worker() or _("Nothing is waiting.")

    def list_notices(self, request: HttpRequest, changelist: MonitorChangeList) -> list[Any]:
        notices = super().list_notices(request, changelist)
        return notices + (hindrances(request) if changelist.result_count else [])


@admin.register(RunningTask)
class RunningTaskAdmin(StatusListAdmin):
    list_display = ("name", "arguments", "queue_name", "priority", "worker_name", "started", "elapsed", "attempt")

    def empty_message(self) -> Any:
        return no_worker() or _("No task is running.")


@admin.register(FailedTask)
class FailedTaskAdmin(StatusListAdmin):
    list_display = ("name", "error", "arguments", "queue_name", "failed", "took", "attempt")
    actions = ("requeue", "delete_selected")

    def empty_message(self) -> Any:
        return format_html('<span class="carrot-good">✔</span> {}', _("No task has failed."))


@admin.register(CompletedTask)
class CompletedTaskAdmin(StatusListAdmin):
    list_display = ("name", "arguments", "queue_name", "completed", "took", "worker_name", "attempt")
    actions = ("run_again", "delete_selected")

    def empty_message(self) -> Any:
        return no_worker() or _("No completed task is kept.")


@admin.register(DelayedTask)
class DelayedTaskAdmin(StatusListAdmin):
    list_display = ("name", "arguments", "queue_name", "priority", "queued", "due", "attempt", "reason")
    actions = ("withdraw",)

    def empty_message(self) -> Any:
        return _("No task is waiting for a later time.")


__all__ = [
    "START",
    "CompletedTaskAdmin",
    "DelayedTaskAdmin",
    "FailedTaskAdmin",
    "QueuedTaskAdmin",
    "RunningTaskAdmin",
    "StatusListAdmin",
]
