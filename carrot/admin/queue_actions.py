"""What is done to whole queues: purging one, and ringing what waits again. Each asks on a page of its own."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin.models import CHANGE
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from carrot import operations
from carrot.admin import display
from carrot.admin.access import in_short_transactions, page_view
from carrot.admin.carrying_out import log_summary
from carrot.admin.paginator import CAP
from carrot.admin.permissions import TaskPermissions
from carrot.conf import get_settings
from carrot.models import MessageLog, Status

ALL = "all"
ONE = "queue:"


class PurgeForm(forms.Form):
    """Which queue. Nothing is chosen at first."""

    queue = forms.ChoiceField(label=gettext_lazy("Queue"), widget=forms.RadioSelect)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        queues = get_settings().queues
        choices = [(f"{ONE}{name}", _waiting(name)) for name in queues]
        if len([queue for queue in queues.values() if queue.consumable]) > 1:
            choices.append((ALL, _("all queues consumed here")))
        field: Any = self.fields["queue"]
        field.choices = choices


def _waiting(name: str) -> str:
    rows = MessageLog.objects.filter(queue=name, status=Status.PUBLISHED).order_by().values("pk")[: CAP + 1]
    number = rows.count()
    shown = display.count(min(number, CAP), more=number > CAP)
    return ngettext("%(queue)s: %(number)s task waits", "%(queue)s: %(number)s tasks wait", number) % {
        "queue": name,
        "number": shown,
    }


class QueueActions(TaskPermissions):
    """The tools of the list of queued tasks."""

    def get_urls(self) -> list[URLPattern]:
        purge, requeue = (
            in_short_transactions(page_view(self.admin_site, view))
            for view in (self.purge_view, self.requeue_pending_view)
        )
        return [
            path("purge/", purge, name="carrot_queuedtask_purge"),
            path("requeue-pending/", requeue, name="carrot_queuedtask_requeue_pending"),
            *super().get_urls(),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        tools = []
        if self.has_requeue_permission(request):
            tools.append((_("Requeue pending"), self._url("requeue_pending")))
        if self.has_purge_permission(request):
            tools.append((_("Purge queue"), self._url("purge")))
        return super().changelist_view(request, {"tools": tools, **(extra_context or {})})

    def purge_view(self, request: HttpRequest) -> HttpResponse:
        """Withdraws everything that waits in a queue, once it is chosen."""
        if not self.has_purge_permission(request):
            raise PermissionDenied
        form = PurgeForm(request.POST if request.method == "POST" else None)
        if form.is_valid():
            chosen = form.cleaned_data["queue"]
            name = None if chosen == ALL else chosen.removeprefix(ONE)
            number = operations.purge_queue(name)
            text = ngettext("%(number)s waiting task was withdrawn", "%(number)s waiting tasks were withdrawn", number)
            where = _("from all queues consumed here.") if name is None else _("from the queue %s.") % name
            return self._done(request, f"{text % {'number': display.count(number)}} {where}")
        return self._page(
            request,
            title=_("Purge queue"),
            explanation=_(
                "Every task that waits in the queue at that moment is withdrawn, and its message removed from the "
                "broker. The tasks are kept, as withdrawn, and can be requeued. Those that run already go on, and "
                "delayed tasks stay delayed."
            ),
            label=_("Purge"),
            form=form,
        )

    def requeue_pending_view(self, request: HttpRequest) -> HttpResponse:
        """Has the messages of waiting tasks sent again, for a broker that lost them."""
        if not self.has_requeue_permission(request):
            raise PermissionDenied
        if request.method == "POST":
            number = operations.requeue_all()
            text = ngettext(
                "The message of %(number)s waiting task is sent again.",
                "The messages of %(number)s waiting tasks are sent again.",
                number,
            )
            if not number:
                text = _("No message had to be sent again: nothing waits for one.")
            return self._done(request, text % {"number": display.count(number)})
        return self._page(
            request,
            title=_("Requeue pending"),
            explanation=_(
                "The messages of all waiting tasks are sent to their broker again, and tasks that no living worker has "
                "are released. For a broker that lost its messages. It is safe at any time: a task whose message is "
                "there after all runs once, and one that runs is not touched."
            ),
            label=_("Send again"),
        )

    def _done(self, request: HttpRequest, text: str) -> HttpResponse:
        log_summary(request.user, CHANGE, text)
        messages.success(request, text)
        return HttpResponseRedirect(self._url("changelist"))

    def _page(self, request: HttpRequest, **context: Any) -> HttpResponse:
        request.current_app = self.admin_site.name
        page = {"opts": self.opts, "media": self.media, "back": self._url("changelist"), **context}
        return TemplateResponse(
            request, "admin/carrot/queuedtask/tool.html", {**self.admin_site.each_context(request), **page}
        )

    def _url(self, name: str) -> str:
        return reverse(f"admin:carrot_queuedtask_{name}", current_app=self.admin_site.name)
