"""View decorators for the setting ``monitor_authentication``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse

View = Callable[..., Any]


def nobody(view: View) -> View:
    """Lets nobody in."""

    def closed(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return HttpResponse("closed", status=451)

    return closed


def everybody(view: View) -> View:
    """Lets everybody in, and leaves a mark."""

    def opened(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        response = view(request, *args, **kwargs)
        response["X-Everybody"] = "yes"
        return response

    return opened
