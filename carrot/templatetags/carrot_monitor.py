"""The tag of the monitor's first page, whose view is the admin's and has no place for data of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import template

if TYPE_CHECKING:
    from carrot.admin.overview import Overview

register = template.Library()


@register.simple_tag(takes_context=True)
def carrot_overview(context: template.Context) -> Overview:
    """The numbers of the lists, for the person who looks."""
    # Django loads the tags of every app, and carrot has to run without the admin, too.
    from carrot.admin.overview import overview_of

    app_list: Any = context.get("app_list", ())
    return overview_of(context["request"], app_list)
