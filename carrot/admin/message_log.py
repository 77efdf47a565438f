"""All tasks, and the page of each."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import ExpressionWrapper, F, TextField
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from carrot.admin import display
from carrot.admin.changelist import list_url
from carrot.admin.filters import StatusFilter
from carrot.admin.redaction import url_passwords_masked
from carrot.admin.task_buttons import TaskButtons
from carrot.admin.task_lists import START, TaskListAdmin, queue_text
from carrot.admin.task_page import page_of
from carrot.admin.window import KEY_DIGITS
from carrot.models import MessageLog, Status, WorkerProcess


@admin.register(MessageLog)
class MessageLogAdmin(TaskButtons, TaskListAdmin):
    """The list of all tasks, newest first, and the one page that every list leads to."""

    list_display = ("name", "state", "arguments", "queue_name", "published", "ended")
    list_filter = (StatusFilter, *TaskListAdmin.list_filter)
    actions = ("requeue", "run_again", "withdraw", "delete_selected")
    plural = gettext_lazy("tasks")
    sort_field = "pk"
    ordering = ("-pk",)
    fieldsets = (
        (None, {"fields": ("function", ("status_now", "tries_made"), "message_id", "waits_for")}),
        (
            gettext_lazy("Routing"),
            {"fields": (("virtual_host", "queue_of_task"), ("exchange_name", "routing_key_name"), "priority_of_task")},
        ),
        (
            gettext_lazy("Times"),
            {"fields": (("published_at", "started_at"), ("completed_at", "failed_at"), ("run_time", "worker_of_task"))},
        ),
    )
    readonly_fields = (
        "completed_at",
        "exchange_name",
        "failed_at",
        "function",
        "message_id",
        "priority_of_task",
        "published_at",
        "queue_of_task",
        "routing_key_name",
        "run_time",
        "started_at",
        "status_now",
        "tries_made",
        "virtual_host",
        "waits_for",
        "worker_of_task",
    )

    def empty_message(self) -> Any:
        return format_html(
            "{} <code>{}</code>",
            _("No task has been published yet. Publish one with publish_message(), and run the service:"),
            START,
        )

    @admin.display(description=gettext_lazy("ended"))
    def ended(self, task: Any) -> SafeString | str:
        return display.moment(task.completion_time or task.failure_time)

    # -- the page of a task -----------------------------------------------------------------------------------------

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """The task with everything its page shows. JSON is read as text: a row changed by hand must not be an error."""
        if not (object_id.isascii() and object_id.isdecimal() and len(object_id) <= KEY_DIGITS):
            return None
        rows = self.get_queryset(request).defer("args", "kwargs", "output").filter(pk=int(object_id))
        return rows.annotate(
            **{f"{name}_text": ExpressionWrapper(F(name), TextField()) for name in ("args", "kwargs", "output")}
        ).first()

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Without the lines that have nothing to say about this task."""
        fieldsets = super().get_fieldsets(request, obj)
        if obj is None or obj.note or obj.status == Status.WAITING:
            return fieldsets
        (name, options), *others = fieldsets
        fields = tuple(field for field in options["fields"] if field != "waits_for")
        return ((name, {**options, "fields": fields}), *others)

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        task = kwargs.get("obj")
        if task is not None:
            context["page"] = page_of(task, request.GET.get("log_level", ""))
            kept = request.GET.copy()
            kept.pop("log_level", None)
            context["page_query"] = f"{kept.urlencode()}&" if kept else ""
            context["buttons"] = self.buttons(request, task)
            context["show_delete"] = False  # it is among the buttons
        response: HttpResponse = super().render_change_form(request, context, *args, **kwargs)
        return response

    @admin.display(description=gettext_lazy("task"))
    def function(self, task: MessageLog) -> SafeString:
        url = reverse("admin:carrot_messagelog_changelist", current_app=self.admin_site.name, query={"task": task.task})
        return format_html(
            '<a class="carrot-task" href="{}" title="{}">{}</a>', url, _("All tasks of this function"), task.task
        )

    @admin.display(description=gettext_lazy("status"))
    def status_now(self, task: MessageLog) -> SafeString:
        url = list_url(self.admin_site.name, task.status)
        return format_html('<a href="{}">{}</a>', url, display.status(task.status))

    @admin.display(description=gettext_lazy("attempt"))
    def tries_made(self, task: MessageLog) -> str:
        if not task.crashes:
            return str(task.tries)
        text = _("%(tries)d, of which %(crashes)d ended with the death of the worker")
        return text % {"tries": task.tries, "crashes": task.crashes}

    @admin.display(description=gettext_lazy("message id"))
    def message_id(self, task: MessageLog) -> SafeString:
        return format_html("<code>{}</code>", task.uuid)

    @admin.display(description=gettext_lazy("waits"))
    def waits_for(self, task: MessageLog) -> SafeString:
        note = url_passwords_masked(task.note)
        if task.status != Status.WAITING or task.ring_at is None:
            return format_html("{}", note)
        return format_html("{}{}{} {}", note, ": " if note else "", _("until"), display.moment(task.ring_at))

    @admin.display(description=gettext_lazy("virtual host"))
    def virtual_host(self, task: MessageLog) -> str:
        return url_passwords_masked(task.broker) or display.EMPTY

    @admin.display(description=gettext_lazy("queue"))
    def queue_of_task(self, task: MessageLog) -> SafeString:
        return queue_text(task.queue, task.broker)

    @admin.display(description=gettext_lazy("exchange"))
    def exchange_name(self, task: MessageLog) -> str:
        return task.exchange or _("the default exchange")

    @admin.display(description=gettext_lazy("routing key"))
    def routing_key_name(self, task: MessageLog) -> str:
        return task.routing_key or display.EMPTY

    @admin.display(description=gettext_lazy("priority"))
    def priority_of_task(self, task: MessageLog) -> int:
        return task.priority

    @admin.display(description=gettext_lazy("published"))
    def published_at(self, task: MessageLog) -> SafeString | str:
        return display.moment(task.publish_time)

    @admin.display(description=gettext_lazy("started"))
    def started_at(self, task: MessageLog) -> SafeString | str:
        return display.moment(task.start_time)

    @admin.display(description=gettext_lazy("completed"))
    def completed_at(self, task: MessageLog) -> SafeString | str:
        return display.moment(task.completion_time)

    @admin.display(description=gettext_lazy("failed"))
    def failed_at(self, task: MessageLog) -> SafeString | str:
        return display.moment(task.failure_time)

    @admin.display(description=gettext_lazy("run time"))
    def run_time(self, task: MessageLog) -> str:
        return display.between(task.start_time, task.completion_time or task.failure_time)

    @admin.display(description=gettext_lazy("worker"))
    def worker_of_task(self, task: MessageLog) -> SafeString | str:
        if task.worker_id is None:
            return display.EMPTY
        worker = WorkerProcess.objects.filter(pk=task.worker_id).only("host", "pid").first()
        if worker is None:
            return _("#%d (its own row is gone)") % task.worker_id
        url = reverse("admin:carrot_workerprocess_change", args=(worker.pk,), current_app=self.admin_site.name)
        return format_html('<a href="{}">{}</a>', url, worker)
