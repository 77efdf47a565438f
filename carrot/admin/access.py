"""Who may come in: the project's own decorators, on top of the admin's login and permissions."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib.admin import AdminSite
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import reverse_lazy
from django.utils.module_loading import import_string

from carrot import conf

View = Callable[..., HttpResponseBase]


def guarded(view: View) -> View:
    """``view`` within the decorators of the setting ``monitor_authentication``, the last one outermost.

    They are looked up at each request, and a setting that cannot be read or imported is an error: never an open door.
    """

    @wraps(view)
    def guarded_view(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        decorated = view
        for path in conf.get_settings().monitor_authentication:
            decorated = import_string(path)(decorated)
        return decorated(request, *args, **kwargs)

    return guarded_view


def page_view(site: AdminSite, view: View) -> View:
    """A page of our own on an admin site: behind its login, then within the decorators."""
    page: Any = site.admin_view(guarded(view))
    page.login_url = reverse_lazy("admin:login", current_app=site.name)  # for Django's LoginRequiredMiddleware
    return page  # type: ignore[no-any-return]


def in_short_transactions(view: View) -> View:
    """Takes ``view``, a function made by this module, out of the transaction that ATOMIC_REQUESTS makes of a request.

    For work in slices: what is done stays done, and no row is locked for longer than its slice takes.
    """
    for alias in connections:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view


def let_in(request: HttpRequest) -> bool:
    """Whether the decorators let this request through, for what is shown on a page that is not ours."""
    opened = HttpResponse()
    return guarded(lambda request: opened)(request) is opened
