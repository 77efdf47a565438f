"""The monitor as a site of its own, without the rest of the admin: ``include("carrot.urls")``."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.contrib import admin
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils.translation import gettext_lazy

from carrot.admin.access import guarded


class MonitorSite(admin.AdminSite):
    """An admin with the pages of carrot alone. Who may log in, and see what, is as in any admin."""

    site_header = site_title = gettext_lazy("Carrot monitor")
    index_title = gettext_lazy("Tasks and workers")
    index_template = "admin/carrot/site_index.html"
    # The project may have URLs of its own below the path it chose, or on the same one.
    final_catch_all_view = False

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        response: Any = guarded(super().index)(request, extra_context)
        return response  # type: ignore[no-any-return]

    def app_index(
        self, request: HttpRequest, app_label: str, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        response: Any = guarded(super().app_index)(request, app_label, extra_context)
        return response  # type: ignore[no-any-return]


site = MonitorSite(name="carrot-monitor")


def register_all() -> None:
    """Gives this site the pages that the admin has for carrot's models."""
    for model in apps.get_app_config("carrot").get_models():
        if admin.site.is_registered(model) and not site.is_registered(model):
            site.register(model, type(admin.site.get_model_admin(model)))
