"""A view decorator for ``monitor_authentication``: pages with the strictest content security policy that is common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest

POLICY = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"


def strict(view: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        response = view(request, *args, **kwargs)
        response["Content-Security-Policy"] = POLICY
        return response

    return guarded
