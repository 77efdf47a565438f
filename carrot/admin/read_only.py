"""What all pages of the monitor have in common: they show, and change nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth import get_permission_codename
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.forms.widgets import Script
from django.http import HttpRequest, HttpResponse
from django.utils.text import capfirst
from django.utils.translation import gettext as _

from carrot.admin import display
from carrot.admin.access import guarded
from carrot.admin.changelist import MonitorChangeList
from carrot.admin.filters import parameters_of
from carrot.admin.paginator import BoundedPaginator
from carrot.models import MessageLog

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin


#: The views of a ``ModelAdmin``, each with a URL of its own.
VIEWS = ("changelist_view", "add_view", "change_view", "delete_view", "history_view")


class ReadOnlyAdmin(ModelAdmin):
    """Lists and pages for everybody with the model's view permission. The permissions of a proxy are its model's."""

    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_per_page = list_max_show_all = 100
    list_select_related = ()
    actions: tuple[str, ...] = ()
    empty_value_display = display.EMPTY
    #: What the rows are called below the list; None: as the list.
    plural: Any = None
    #: The field that an index sorts by. ``ordering`` begins with it.
    sort_field = "pk"
    ordering: ClassVar[Any] = ("-pk",)

    class Media:
        css = {"all": ("carrot/monitor.css",)}
        js = (Script("carrot/refresh.js", defer=True),)

    def __init__(self, model: type[Model], admin_site: admin.AdminSite) -> None:
        super().__init__(model, admin_site)
        for name in VIEWS:
            setattr(self, name, guarded(getattr(self, name)))

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        match = request.resolver_match
        if match is not None and match.url_name == "autocomplete":
            raise PermissionDenied  # a feed of the site's own, which knows no `monitor_authentication`
        return super().get_queryset(request)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return MonitorChangeList

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        title = capfirst(self.opts.verbose_name_plural)
        response: HttpResponse = super().changelist_view(request, {"title": title, **(extra_context or {})})
        return response

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Only what the filters offer: every other lookup scans the table, and asks about what is masked."""
        return lookup in parameters_of(self.list_filter)

    def empty_message(self) -> Any:
        """What an empty list says."""
        return _("There is nothing here.")

    # -- permissions ------------------------------------------------------------------------------------------------

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self._may(request, "view") or self._may(request, "change")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def may_see_tasks(self, request: HttpRequest) -> bool:
        """Whether other pages may link to tasks, and tell of them."""
        tasks = self.admin_site._registry.get(MessageLog)
        return tasks is not None and tasks.has_view_permission(request)

    def _may(self, request: HttpRequest, action: str) -> bool:
        opts = (self.opts.concrete_model or self.model)._meta
        return request.user.has_perm(f"{opts.app_label}.{get_permission_codename(action, opts)}")
