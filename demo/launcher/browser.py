"""A visitor with cookies, as far as the standard library goes: gets pages, fills in forms."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from http.cookiejar import CookieJar
from urllib.parse import urlencode

from launcher import DemoError
from launcher.pages import Page, read_page

#: Seconds for one page.
PATIENCE = 30.0
HOME = "/admin/"
LOGIN = f"{HOME}login/"


class Browser:
    """One visitor of the site at ``base``, such as ``http://127.0.0.1:8000``."""

    def __init__(self, base: str) -> None:
        self._base = base
        # Not through a proxy that the environment names: the site is on this machine.
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(CookieJar())
        )

    def get(self, path: str) -> Page:
        """Open a page. An error page is a page, and so is no answer (status 0)."""
        return self._open(urllib.request.Request(self._base + path))  # noqa: S310 - http, to our own site

    def post(self, path: str, fields: Mapping[str, str] | Sequence[tuple[str, str]]) -> Page:
        """Send fields to an address."""
        request = urllib.request.Request(  # noqa: S310
            self._base + path, urlencode(fields).encode(), {"Referer": self._base + path}
        )
        return self._open(request)

    def submit(self, page: Page, having: str, changes: Mapping[str, str | Sequence[str]]) -> Page:
        """Fill in the form of a page that has the field ``having``, and send it. Raises DemoError if there is none."""
        form = page.form(having)
        return self.post(form.action, form.filled_in(changes))

    def log_in(self, user: str, password: str) -> None:
        """Log in to the admin through its form. Raises DemoError if that does not lead inside."""
        page = self.submit(self.get(LOGIN), "username", {"username": user, "password": password, "next": HOME})
        if page.status != http.HTTPStatus.OK or page.path != HOME:
            raise DemoError(f"Logging in as {user} led to {page.path} with status {page.status}: {page.text[:300]}")

    def _open(self, request: urllib.request.Request) -> Page:
        begun = time.monotonic()
        try:
            with self._opener.open(request, timeout=PATIENCE) as answer:
                status, url, body = answer.status, answer.url, answer.read()
        except urllib.error.HTTPError as answer:
            status, url, body = answer.code, answer.url, answer.read()
        except (OSError, http.client.HTTPException) as error:
            status, url, body = 0, request.full_url, str(error).encode()
        return read_page(url, status, time.monotonic() - begun, body.decode("utf-8", "replace"))
