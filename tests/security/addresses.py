"""Every address of the monitor, found by looking at the patterns of both sites: a new page is never forgotten."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.contrib.admin import AdminSite
from django.contrib.admin import site as stock_site
from django.urls import URLPattern, URLResolver, get_resolver

from carrot.admin.site import site as own_site

#: The project that has both sites.
URLCONF = "tests.admin.both_sites"
#: The sites and where they are: the stock admin, and the monitor on its own.
SITES: dict[str, tuple[str, AdminSite]] = {"stock": ("/admin/", stock_site), "own": ("/tasks/", own_site)}

#: Pages of the stock admin for the models of other apps.
_OTHERS = ("auth/",)
_PARAMETER = re.compile(r"\(\?P<(\w+)>[^)]*\)|<(?:\w+:)?(\w+)>")


@dataclass(frozen=True, kw_only=True)
class Route:
    """One pattern: ``carrot/messagelog/<path:object_id>/change/``, as it is below the site's address."""

    path: str
    view: Any

    @property
    def model(self) -> str:
        """The model that an ``object_id`` is of; empty where there is none."""
        found = re.match(r"carrot/(\w+)/.*object_id", self.path)
        return found[1] if found else ""

    @property
    def key(self) -> str:
        """The path without what differs from object to object, for tables: ``messagelog/*/change/``."""
        return re.sub(r"<\w+:object_id>", "*", self.path)

    def filled(self, **parameters: Any) -> str:
        """The address below the site's, with the parameters filled in."""
        return _PARAMETER.sub(lambda match: str(parameters[match[1] or match[2]]), self.path).strip("^$")


def routes(prefix: str, urlconf: str = URLCONF) -> list[Route]:
    """The patterns of the site at ``prefix``."""
    begin = prefix.lstrip("/")
    found = [
        Route(path=path.removeprefix(begin), view=pattern.callback)
        for path, pattern in _leaves(get_resolver(urlconf), "")
        if path.startswith(begin)
    ]
    return [route for route in found if not route.path.startswith(_OTHERS)]


def _leaves(resolver: URLResolver, before: str) -> Iterator[tuple[str, URLPattern]]:
    for pattern in resolver.url_patterns:
        path = before + str(pattern.pattern).lstrip("^")
        if isinstance(pattern, URLResolver):
            yield from _leaves(pattern, path)
        else:
            yield path, pattern
