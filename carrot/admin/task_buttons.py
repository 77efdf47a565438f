"""The buttons of a task's page: what can be done to it, each with an address of its own that only takes POST."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _

from carrot.admin import verbs
from carrot.admin.access import page_view
from carrot.admin.carrying_out import carry_out, report
from carrot.admin.changelist import list_url, task_url
from carrot.admin.confirmation import Confirmation, opened
from carrot.admin.copies import copy_id
from carrot.admin.permissions import TaskPermissions
from carrot.admin.verbs import Verb
from carrot.message import uuid7
from carrot.models import MessageLog

#: Done at once; to delete asks first, on the admin's own address for it.
AT_ONCE = (verbs.REQUEUE, verbs.RUN_AGAIN, verbs.WITHDRAW)


class TaskButtons(TaskPermissions):
    """The verbs for one task."""

    def get_urls(self) -> list[URLPattern]:
        # Before the admin's own, whose last pattern matches everything.
        own = [
            path(
                f"<int:object_id>/{verb.slug}/",
                page_view(self.admin_site, partial(self._press, verb)),
                name=f"carrot_messagelog_{verb.name}",
            )
            for verb in AT_ONCE
        ]
        return [*own, *super().get_urls()]

    def buttons(self, request: HttpRequest, task: MessageLog) -> list[dict[str, Any]]:
        """What this person may do to this task now."""
        return [
            {
                "verb": verb,
                "url": self._url(verb, task.pk) + _query(request),
                "token": uuid7().hex,
                "asks_first": verb not in AT_ONCE,
            }
            for verb in verbs.VERBS
            if task.status in verb.starts_from and self.may(request, verb.name)
        ]

    def _url(self, verb: Verb, pk: Any) -> str:
        return reverse(f"admin:carrot_messagelog_{verb.name}", args=(pk,), current_app=self.admin_site.name)

    def _press(self, verb: Verb, request: HttpRequest, object_id: int) -> HttpResponse:
        if not self.may(request, verb.name):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        task = self.get_queryset(request).only("pk", "uuid").filter(pk=object_id).first()
        if task is None:
            return self._gone(request, object_id)
        token = _token(request.POST.get("token", ""))
        result = carry_out(verb, [task.pk], token, request.user)
        report(request, verb, result)
        if verb is verbs.RUN_AGAIN:
            copy = MessageLog.objects.filter(uuid=copy_id(task.uuid, token)).only("pk").first()
            if copy is not None:
                return HttpResponseRedirect(task_url(self.admin_site.name, copy.pk))
        return HttpResponseRedirect(task_url(self.admin_site.name, task.pk) + _query(request))

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Asks, then deletes: the admin's own would also delete a task that runs."""
        if not self.may(request, verbs.DELETE.name):
            raise PermissionDenied
        task = self.get_object(request, object_id)
        if task is None:
            return self._gone(request, object_id)
        confirmed = opened(request.POST.get("question", ""), verbs.DELETE) if request.POST.get("post") else None
        if confirmed is not None:
            ids = list(confirmed.bound(self.get_queryset(request).filter(pk=task.pk)).values_list("pk", flat=True))
            result = carry_out(verbs.DELETE, ids, confirmed.token, request.user)
            if not ids:
                result.skipped[_("changed since you were asked")] += 1
            report(request, verbs.DELETE, result)
            back = request.GET.get("_changelist_filters", "")
            return HttpResponseRedirect(list_url(self.admin_site.name, task.status) + (f"?{back}" if back else ""))
        page = task_url(self.admin_site.name, task.pk) + _query(request)
        context = {
            **self.admin_site.each_context(request),
            "title": verbs.DELETE.asks(1),
            "verb": verbs.DELETE,
            "opts": self.opts,
            "media": self.media,
            "question": Confirmation.of(1).sealed(verbs.DELETE),
            "named": [(task, page)],
            "back": page,
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/carrot/confirmation.html", context)

    def _gone(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        messages.warning(request, _("The task %s does not exist. Perhaps it was deleted?") % object_id)
        return HttpResponseRedirect(reverse("admin:index", current_app=self.admin_site.name))


def _query(request: HttpRequest) -> str:
    return f"?{request.GET.urlencode()}" if request.GET else ""


def _token(text: str) -> UUID:
    """What the button was drawn with; one of its own for a press that has none."""
    try:
        return UUID(hex=text)
    except ValueError:
        return uuid7()
