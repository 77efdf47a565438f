"""What can be done with schedules besides editing them: actions of the list, and a button on their page."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin import actions
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.options import get_content_type_for_model
from django.contrib.admin.utils import quote
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from carrot.admin.access import page_view
from carrot.admin.changelist import task_url
from carrot.admin.read_only import ReadOnlyAdmin
from carrot.admin.redaction import url_passwords_masked
from carrot.exceptions import PublishError
from carrot.models import MessageLog, ScheduledTask

#: Schedules that are named in a message; of others only the number is told.
NAMED = 5
#: Schedules that get an entry each in the admin's log; more get one together.
LOGGED = 100
#: Fields of a confirmation besides one for each row.
OTHER_FIELDS = 10
#: Keys of one statement.
SLICE = 500


class ScheduleVerbs(ReadOnlyAdmin):
    """Run now, enable and disable. Each says what it did, and what it did not."""

    actions = ("run_now", "enable", "disable", "delete_selected")

    def has_run_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may(request, "run")

    def get_urls(self) -> list[Any]:
        run = page_view(self.admin_site, self.run_view)
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
            return HttpResponseRedirect(self.url_of("change", quote(schedule.pk)))
        return HttpResponseRedirect(reverse("admin:index", current_app=self.admin_site.name))

    @admin.action(permissions=["run"], description=gettext_lazy("Run now"))
    def run_now(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        self._run(request, queryset.defer(None))

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

    # The name replaces the action of the site, whose confirmation sends a field for each row.
    @admin.action(permissions=["delete"], description=gettext_lazy("Delete selected %(verbose_name_plural)s"))
    def delete_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        """The admin's own, for as many as one request may name."""
        allowed: int | None = settings.DATA_UPLOAD_MAX_NUMBER_FIELDS
        if allowed is not None and queryset.count() > allowed - OTHER_FIELDS:
            text = _("At most %d schedules can be deleted at once. Select fewer, or filter the list.")
            self.message_user(request, text % (allowed - OTHER_FIELDS), messages.ERROR)
            return None
        response: HttpResponse | None = actions.delete_selected(self, request, queryset)
        return response

    def _run(self, request: HttpRequest, schedules: Iterable[ScheduledTask]) -> None:
        done: list[ScheduledTask] = []
        last: MessageLog | None = None
        failures: list[tuple[ScheduledTask, str]] = []
        try:
            for schedule in schedules:
                try:
                    last = schedule.publish()
                except PublishError as error:
                    failures.append((schedule, url_passwords_masked(str(error))))
                else:
                    done.append(schedule)
        finally:  # whatever happens on the way: what was done is in the log
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
        user: Any = request.user
        LogEntry.objects.create(
            user_id=user.pk,
            content_type=get_content_type_for_model(self.model),
            object_repr=_("%d scheduled tasks") % len(schedules),
            action_flag=CHANGE,
            change_message=text,
        )

    def url_of(self, view: str, *args: Any) -> str:
        return reverse(f"admin:carrot_scheduledtask_{view}", args=args, current_app=self.admin_site.name)
