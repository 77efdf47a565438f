"""The schedules: their list, their form, and what can be done with them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.utils import quote
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import URLPattern, URLResolver, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from carrot.admin import display, highlighting, search
from carrot.admin.access import guarded
from carrot.admin.changelist import MonitorChangeList, task_url
from carrot.admin.filters import EqualityFilter, QueueFilter, TaskFilter
from carrot.admin.forms import ScheduledTaskForm
from carrot.admin.paginator import CAP
from carrot.admin.read_only import ReadOnlyAdmin
from carrot.admin.redaction import Redaction, url_passwords_masked
from carrot.exceptions import PublishError
from carrot.models import MessageLog, Origin, ScheduledTask

#: Schedules that are named in a message; of others only the number is told.
NAMED = 5
#: Schedules that get an entry each in the admin's log; more get one together.
LOGGED = 100
#: Keys of one statement.
SLICE = 500


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
        last = [schedule.last_message_id for schedule in self.result_list if schedule.last_message_id]
        rows = MessageLog.objects.filter(uuid__in=last).values_list("uuid", "pk", "status")
        found = {uuid: (pk, status) for uuid, pk, status in rows}
        for schedule in self.result_list:
            schedule.last_task = found.get(schedule.last_message_id)
            schedule.function_missing = is_missing(schedule, redaction)
            schedule.linked = self.model_admin.may_see_tasks(request)


@admin.register(ScheduledTask)
class ScheduledTaskAdmin(ReadOnlyAdmin):
    """Schedules can be added, changed, deleted and run, each with its own permission."""

    form = ScheduledTaskForm
    list_display = ("task_name", "function", "schedule", "active", "next", "last", "trouble")
    list_filter = (ActiveFilter, QueueFilter, TaskFilter)
    search_fields = ("task_name", "task", "args", "kwargs")
    search_help_text = gettext_lazy("Searches names, function names and arguments.")
    ordering = ("task_name",)
    sort_field = "task_name"
    actions = ("run_now", "enable", "disable")
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

    def has_run_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may(request, "run")

    def may_see_tasks(self, request: HttpRequest) -> bool:
        tasks = self.admin_site._registry.get(MessageLog)
        return tasks is not None and tasks.has_view_permission(request)

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
        """When it ran, linked to the task that was published, while that is kept."""
        text = display.moment(schedule.last_run)
        if not getattr(schedule, "last_task", None):
            return text
        pk, status = schedule.last_task
        if schedule.linked:
            text = format_html('<a href="{}">{}</a>', task_url(self.admin_site.name, pk), text)
        return format_html("{}<br>{}", text, display.status(status))

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
            task = schedule.find_last_message()
            schedule.last_task = (task.pk, task.status) if task else None
            schedule.linked = self.may_see_tasks(request)
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
        values = schedule.args if isinstance(schedule.args, list) else []
        shown = Redaction().positional(schedule.task, schedule.origin, values)
        return format_html('<pre class="carrot-block">{}</pre>', highlighting.json_value(shown.values))

    @admin.display(description=gettext_lazy("keyword arguments"))
    def shown_kwargs(self, schedule: ScheduledTask) -> SafeString:
        value = Redaction().value(schedule.kwargs)
        return format_html('<pre class="carrot-block">{}</pre>', highlighting.json_value(value))

    @admin.display(description=gettext_lazy("made by"))
    def made_by(self, schedule: ScheduledTask) -> str:
        return _("a person, in the admin") if schedule.origin == Origin.ADMIN else _("code of the project")

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        schedule = kwargs.get("obj")
        if schedule is not None:
            context["notices"] = notices(schedule)
            if self.has_run_permission(request, schedule):
                context["run_url"] = self._url("run", quote(schedule.pk))
        response: HttpResponse = super().render_change_form(request, context, *args, **kwargs)
        return response

    # -- verbs ------------------------------------------------------------------------------------------------------

    def get_urls(self) -> list[URLResolver | URLPattern]:
        run = self.admin_site.admin_view(guarded(self.run_view))
        return [path("<path:object_id>/run/", run, name="carrot_scheduledtask_run"), *super().get_urls()]

    def run_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Publishes the task of one schedule, for the button on its page."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self.has_run_permission(request):
            raise PermissionDenied
        schedule = super().get_object(request, object_id)
        if schedule is None:
            raise Http404(_("There is no such scheduled task."))
        self._run(request, [schedule])
        if self.has_view_permission(request, schedule):
            return HttpResponseRedirect(self._url("change", quote(schedule.pk)))
        return HttpResponseRedirect(reverse("admin:index", current_app=self.admin_site.name))

    @admin.action(permissions=["run"], description=gettext_lazy("Run now"))
    def run_now(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        self._run(request, queryset)

    @admin.action(permissions=["change"], description=gettext_lazy("Enable"))
    def enable(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        chosen, changed = self._switch(request, queryset, True)
        text = ngettext("%(count)d schedule was enabled.", "%(count)d schedules were enabled.", changed)
        self._report(request, text % {"count": changed}, chosen - changed, _("%d had been active already."))

    @admin.action(permissions=["change"], description=gettext_lazy("Disable"))
    def disable(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        chosen, changed = self._switch(request, queryset, False)
        text = ngettext("%(count)d schedule was disabled.", "%(count)d schedules were disabled.", changed)
        self._report(request, text % {"count": changed}, chosen - changed, _("%d had been inactive already."))

    def _run(self, request: HttpRequest, schedules: Iterable[ScheduledTask]) -> None:
        done: list[ScheduledTask] = []
        last: MessageLog | None = None
        failures: list[tuple[ScheduledTask, str]] = []
        for schedule in schedules:
            try:
                last = schedule.publish()
            except PublishError as error:
                failures.append((schedule, url_passwords_masked(str(error))))
            else:
                done.append(schedule)
        self._note(request, done, _("Run now."))
        if len(done) == 1 and last is not None:
            self.message_user(request, self._published(request, done[0], last), messages.SUCCESS)
        elif done:
            text = ngettext("%(count)d task was published.", "%(count)d tasks were published.", len(done))
            self.message_user(request, text % {"count": len(done)}, messages.SUCCESS)
        for schedule, reason in failures[:NAMED]:
            text = _("“%(name)s” was not run: %(reason)s") % {"name": schedule, "reason": reason[:500]}
            self.message_user(request, text, messages.ERROR)
        if len(failures) > NAMED:
            self.message_user(request, _("%d others were not run either.") % (len(failures) - NAMED), messages.ERROR)

    def _published(self, request: HttpRequest, schedule: ScheduledTask, task: MessageLog) -> SafeString | str:
        text = _("The task of “%s” was published.") % schedule
        if not self.may_see_tasks(request):
            return text
        return format_html('{} <a href="{}">{}</a>', text, task_url(self.admin_site.name, task.pk), _("See the task"))

    def _switch(self, request: HttpRequest, queryset: QuerySet[Any], active: bool) -> tuple[int, int]:
        """Enables or disables; returns how many there were and how many it changed."""
        chosen = list(queryset.only("pk", "task_name", "active"))
        stale = [schedule for schedule in chosen if schedule.active != active]
        changed = 0
        for start in range(0, len(stale), SLICE):
            rows = ScheduledTask.objects.filter(pk__in=[schedule.pk for schedule in stale[start : start + SLICE]])
            changed += rows.enable() if active else rows.disable()
        self._note(request, stale, _("Enabled.") if active else _("Disabled."))
        return len(chosen), changed

    def _report(self, request: HttpRequest, text: str, skipped: int, skipped_text: str) -> None:
        if skipped:
            text = f"{text} {skipped_text % skipped}"
        self.message_user(request, text, messages.SUCCESS if not skipped else messages.WARNING)

    def _note(self, request: HttpRequest, schedules: list[ScheduledTask], text: str) -> None:
        """Writes what was done into the admin's log."""
        if len(schedules) <= LOGGED:
            for schedule in schedules:
                self.log_change(request, schedule, text)
            return
        LogEntry.objects.create(
            user_id=request.user.pk,
            content_type=self._content_type(),
            object_repr=_("%d scheduled tasks") % len(schedules),
            action_flag=CHANGE,
            change_message=text,
        )

    def _content_type(self) -> Any:
        from django.contrib.admin.options import get_content_type_for_model

        return get_content_type_for_model(self.model)

    def _url(self, view: str, *args: Any) -> str:
        return reverse(f"admin:carrot_scheduledtask_{view}", args=args, current_app=self.admin_site.name)
