"""Somebody at a browser who may do everything, and looks at every answer."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.contrib.auth.models import User
from django.test import Client

from tests.security.markup import Form, Page

#: Answers that are none of a server in trouble.
FINE = (200, 302, 400, 403, 404, 405)


class Visitor:
    """``seen`` is every mark that any answer has shown."""

    def __init__(self, user: User | None) -> None:
        self.client = Client()
        self.user = user
        if user is not None:
            self.client.force_login(user)
        self.seen: set[str] = set()

    def get(self, url: str, query: dict[str, Any] | None = None) -> Page:
        return self._look(url, self.client.get(f"{url}?{urlencode(query, doseq=True)}" if query else url))

    def post(self, url: str, data: dict[str, Any], *, follow: bool = False) -> Page:
        """``follow``: also to where the answer leads, and that is the page that comes back."""
        response = self.client.post(url, data)
        page = self._look(url, response)
        return self.get(response["Location"]) if follow and response.status_code == 302 else page

    def send(self, page_url: str, form: Form, **changes: Any) -> Page:
        """Sends a form as the page of ``page_url`` has it, with these changes."""
        return self.post(form.action or page_url, {**form.fields, **changes}, follow=True)

    def _look(self, url: str, response: Any) -> Page:
        assert response.status_code in FINE, (url, response)
        for name, value in response.items():
            assert value.isprintable(), (url, name, value)
        if response.status_code == 302:
            where = response["Location"]
            assert where.startswith("/"), (url, where)
            assert not where.startswith(("//", "/\\")), (url, where)
        assert response["Content-Type"].startswith(("text/html", "text/javascript")), (url, response["Content-Type"])
        page = Page(response.content.decode())
        assert not page.faults, (url, page.faults)
        self.seen |= page.marks
        return page
