"""The actions of the lists of tasks. Each asks first, on a page of its own, and then does what it asked for."""

from __future__ import annotations

from collections import Counter
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from carrot.admin import display, verbs
from carrot.admin.access import in_short_transactions
from carrot.admin.carrying_out import carry_out, report
from carrot.admin.changelist import task_url
from carrot.admin.confirmation import Confirmation, opened
from carrot.admin.paginator import CAP
from carrot.admin.permissions import TaskPermissions
from carrot.admin.verbs import Verb

#: Tasks whose keys are read for one request; more than it has time for.
MOST = 500_000

#: Selected tasks that a confirmation page names.
NAMED = 20


class TaskActions(TaskPermissions):
    """Verbs for the rows of a list; which of them a list offers, its ``actions`` say."""

    def __init__(self, model: type[Model], admin_site: admin.AdminSite) -> None:
        super().__init__(model, admin_site)
        setattr(self, "changelist_view", in_short_transactions(self.changelist_view))  # noqa: B010

    @admin.action(permissions=["requeue"], description=gettext_lazy("Requeue selected tasks"))
    def requeue(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        return self._ask_or_do(verbs.REQUEUE, request, queryset)

    @admin.action(permissions=["run_again"], description=gettext_lazy("Run selected tasks again"))
    def run_again(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        return self._ask_or_do(verbs.RUN_AGAIN, request, queryset)

    @admin.action(permissions=["withdraw"], description=gettext_lazy("Withdraw selected tasks"))
    def withdraw(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        return self._ask_or_do(verbs.WITHDRAW, request, queryset)

    # The name replaces the action of the site, which would hold every row in memory and refuse to delete many.
    @admin.action(permissions=["delete"], description=gettext_lazy("Delete selected tasks"))
    def delete_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        return self._ask_or_do(verbs.DELETE, request, queryset)

    def _ask_or_do(self, verb: Verb, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        # The order is by key, so that two operators who press at once meet no deadlock.
        tasks = queryset.order_by("pk").values_list("pk", flat=True)
        confirmed = opened(request.POST.get("question", ""), verb) if request.POST.get("post") else None
        if confirmed is None:
            return self._ask(verb, request, queryset)
        ids = list(confirmed.bound(tasks)[: MOST + 1])
        cut = len(ids) > MOST
        if cut:
            del ids[MOST:]
            text = _("One request takes %(limit)s tasks at most; the others were left alone.")
            messages.warning(request, text % {"limit": display.count(MOST)})
        result = carry_out(verb, ids, confirmed.token, request.user, self._in_words(request))
        if not (confirmed.more or cut) and len(ids) < confirmed.number:
            result.skipped += Counter({_("changed since you were asked"): confirmed.number - len(ids)})
        report(request, verb, result)
        return None  # back to the list, as it was filtered

    def _ask(self, verb: Verb, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        """The page with the number, and what it counts, in words."""
        across = request.POST.get("select_across") == "1"
        number = queryset.order_by().values("pk")[: CAP + 1].count()
        more, number = number > CAP, min(number, CAP)
        if not number:
            messages.warning(request, _("Nothing was changed: none of these tasks is in this list any more."))
            return None
        named = [] if across else list(queryset.only("pk", "task", "uuid")[:NAMED])
        selected = request.POST.getlist(ACTION_CHECKBOX_NAME)
        context = {
            **self.admin_site.each_context(request),
            "title": verb.asks(number, more=more),
            "verb": verb,
            "opts": self.opts,
            "media": self.media,
            "question": Confirmation.of(number, more=more).sealed(verb),
            "which": self._in_words(request) if across else "",
            "named": [(task, task_url(self.admin_site.name, task.pk)) for task in named],
            "unnamed": number - len(named) if named else 0,
            # All that match need no list of keys: the address has the filters, and one key is enough for the admin.
            "selected": selected[:1] if across else selected,
            "select_across": int(across),
            "back": request.get_full_path(),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/carrot/confirmation.html", context)

    def _in_words(self, request: HttpRequest) -> str:
        """Which tasks the list shows: its name, its filters and its search."""
        changelist: Any = self.get_changelist_instance(request)
        text: str = changelist.in_words()
        return text
