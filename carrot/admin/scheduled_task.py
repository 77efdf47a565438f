"""The schedules: their list, their form, and what can be done with them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import quote
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from carrot.admin import display, highlighting, search
from carrot.admin.changelist import MonitorChangeList, task_url
from carrot.admin.filters import EqualityFilter, QueueFilter, TaskFilter
from carrot.admin.forms import ScheduledTaskForm
from carrot.admin.paginator import CAP
from carrot.admin.redaction import Redaction, url_passwords_masked
from carrot.admin.schedule_verbs import ScheduleVerbs
from carrot.conf import get_settings
from carrot.models import MessageLog, Origin, ScheduledTask


class ActiveFilter(EqualityFilter):
    title = gettext_lazy("active")
    parameter_name = "active"

    def values(self) -> Iterable[tuple[str, Any]]:
        return [("yes", _("Yes")), ("no", _("No"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        if self.value() is None:
            return queryset
        return queryset.filter(active=self.value() == "yes") if self.value() in ("yes", "no") else queryset.none()


class ScheduleChangeList(MonitorChangeList):
    """The list of schedules: hundreds at most, so it sorts by whatever is asked for."""

    get_ordering = ChangeList.get_ordering

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Any]:
        queryset: QuerySet[Any] = super().get_queryset(request, exclude_parameters).defer("args", "kwargs")
        return queryset

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        redaction = Redaction()
        found = self._last_tasks() if self.model_admin.may_see_tasks(request) else {}
        for schedule in self.result_list:
            schedule.last_task = found.get(schedule.last_message_id)
            schedule.function_missing = is_missing(schedule, redaction)

    def _last_tasks(self) -> dict[Any, tuple[int, str]]:
        """The tasks that the schedules published last, as far as they are kept: key and status by message id."""
        ids = [schedule.last_message_id for schedule in self.result_list if schedule.last_message_id]
        rows = MessageLog.objects.filter(uuid__in=ids).values_list("uuid", "pk", "status")
        return {uuid: (pk, status) for uuid, pk, status in rows}


@admin.register(ScheduledTask)
class ScheduledTaskAdmin(ScheduleVerbs):
    """Schedules can be added, changed, deleted and run, each with its own permission."""

    form = ScheduledTaskForm
    list_display = ("task_name", "function", "schedule", "active", "next", "last", "trouble")
    list_filter = (ActiveFilter, QueueFilter, TaskFilter)
    search_fields = ("task_name", "task", "args", "kwargs")
    search_help_text = gettext_lazy("Searches names, function names and arguments.")
    ordering = ("task_name",)
    readonly_fields = ("shown_args", "shown_kwargs", "next", "last", "trouble", "made_by")
    view_on_site = False

    class Media:
        css = {"all": ("carrot/schedule.css",)}

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return ScheduleChangeList

    def empty_message(self) -> Any:
        return _("No task is scheduled.")

    # -- permissions ------------------------------------------------------------------------------------------------

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self._may(request, "add")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may(request, "change")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may(request, "delete")

    # -- the list ---------------------------------------------------------------------------------------------------

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """The admin's own search; for those who see masked arguments, without what only masked text lets match."""
        found, duplicates = super().get_search_results(request, queryset, search_term)
        if not search_term or self.has_change_permission(request):
            return found, duplicates
        words = [word.casefold() for word in search.words(search_term)]
        redaction = Redaction()
        keys = [row.pk for row in found[:CAP] if all(word in _seen(row, redaction) for word in words)]
        return queryset.filter(pk__in=keys), duplicates

    @admin.display(description=gettext_lazy("task"), ordering="task")
    def function(self, schedule: Any) -> SafeString:
        name = display.task_name(schedule.task)
        if not schedule.function_missing:
            return name
        return format_html('{}<span class="carrot-warning">{}</span>', name, _("not found"))

    @admin.display(description=gettext_lazy("schedule"))
    def schedule(self, schedule: ScheduledTask) -> str:
        return schedule.interval_display

    @admin.display(description=gettext_lazy("next run"), ordering="next_run")
    def next(self, schedule: ScheduledTask) -> SafeString | str:
        return display.moment(schedule.next_run if schedule.active else None)

    @admin.display(description=gettext_lazy("last run"), ordering="last_run")
    def last(self, schedule: Any) -> SafeString | str:
        """When it ran; for those who may see tasks, linked to the one that was published, while that is kept."""
        text = display.moment(schedule.last_run)
        if not getattr(schedule, "last_task", None):
            return text
        pk, status = schedule.last_task
        url = task_url(self.admin_site.name, pk)
        return format_html('<a href="{}">{}</a><br>{}', url, text, display.status(status))

    @admin.display(description=gettext_lazy("problem"))
    def trouble(self, schedule: ScheduledTask) -> SafeString | str:
        if not schedule.problem:
            return display.EMPTY
        text = display.shortened(url_passwords_masked(schedule.problem), 200)
        return format_html('<span class="carrot-error">{}</span>', text)

    # -- the page ---------------------------------------------------------------------------------------------------

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """The schedule with what its page shows besides its columns."""
        schedule: Any = super().get_object(request, object_id, from_field)
        if schedule is not None:
            task = schedule.find_last_message() if self.may_see_tasks(request) else None
            schedule.last_task = (task.pk, task.status) if task else None
        return schedule

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Arguments as inputs for those who may change them, and masked for others."""
        writable = self.has_change_permission(request, obj) if obj else self.has_add_permission(request)
        arguments = ("args", "kwargs") if writable else ("shown_args", "shown_kwargs")
        fieldsets: list[Any] = [
            (None, {"fields": ("task_name", "active")}),
            (_("Task"), {"fields": ("task", *arguments)}),
            (_("Interval"), {"fields": (("interval_count", "interval_type"),)}),
            (_("Routing"), {"fields": (("queue", "priority"), ("exchange", "routing_key"))}),
        ]
        if obj is not None:
            fieldsets.append((_("State"), {"fields": (("next", "last"), ("trouble", "made_by"))}))
        return fieldsets

    @admin.display(description=gettext_lazy("positional arguments"))
    def shown_args(self, schedule: ScheduledTask) -> SafeString:
        return _block(_masked(schedule, Redaction())[0])

    @admin.display(description=gettext_lazy("keyword arguments"))
    def shown_kwargs(self, schedule: ScheduledTask) -> SafeString:
        return _block(_masked(schedule, Redaction())[1])

    @admin.display(description=gettext_lazy("made by"))
    def made_by(self, schedule: ScheduledTask) -> str:
        return _("a person, in the admin") if schedule.origin == Origin.ADMIN else _("code of the project")

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        schedule = kwargs.get("obj")
        if schedule is not None:
            context["notices"] = notices(schedule)
            if self.has_run_permission(request, schedule):
                context["run_url"] = self.url_of("run", quote(schedule.pk))
        response: HttpResponse = super().render_change_form(request, context, *args, **kwargs)
        return response

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        for notice in notices(obj):
            self.message_user(request, notice, messages.WARNING)


def is_missing(schedule: ScheduledTask, redaction: Redaction) -> bool:
    """Whether the function of a schedule is not found here, or may not be run by it."""
    return redaction.parameters(schedule.task, schedule.origin) is None


def notices(schedule: ScheduledTask) -> list[str]:
    """Why a schedule will not run as it is, in sentences."""
    found = []
    if is_missing(schedule, Redaction()):
        text = _(
            "The function %s is not found, or is no longer registered. "
            "Nothing is published until it is, or another one is chosen."
        )
        found.append(text % schedule.task)
    if schedule.queue not in get_settings().queues:
        text = _("The queue “%s” is not in the settings. Nothing is published until it is, or another is chosen.")
        found.append(text % schedule.queue)
    return found


def _seen(schedule: ScheduledTask, redaction: Redaction) -> str:
    """What somebody sees of a schedule who may not change it, for a search."""
    args, kwargs = _masked(schedule, redaction)
    shown = [json.dumps(value, ensure_ascii=False) for value in (args, kwargs)]
    return "\n".join([schedule.task_name, schedule.task, *shown]).casefold()


def _masked(schedule: ScheduledTask, redaction: Redaction) -> tuple[Any, Any]:
    """The arguments as those see them who may not change them; of a row changed by hand, what is none is left out."""
    args = schedule.args if isinstance(schedule.args, list) else []
    kwargs = schedule.kwargs if isinstance(schedule.kwargs, dict) else {}
    task, origin = schedule.task, schedule.origin
    return redaction.positional(task, origin, args).values, redaction.keyword(task, origin, kwargs).values


def _block(value: Any) -> SafeString:
    return format_html('<pre class="carrot-block">{}</pre>', highlighting.json_value(value))
