"""A visitor with cookies, as far as the standard library goes: gets pages, fills in forms, reads what is to be seen."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from http.cookiejar import CookieJar
from urllib.parse import urlencode, urljoin, urlsplit

from launcher import DemoError

#: Seconds for one page.
PATIENCE = 30.0
LOGIN = "/admin/login/"


@dataclass(frozen=True, kw_only=True)
class Page:
    """What came back, after redirects."""

    #: the path that was reached, with its query
    path: str
    #: the HTTP status; 0 where nothing came
    status: int
    #: seconds
    took: float
    title: str
    #: everything to be read on it, white space made single
    text: str
    #: paths of the same site
    links: tuple[str, ...]
    #: the hidden fields of its forms
    hidden: Mapping[str, str]


class _Reader(HTMLParser):
    """Takes text, links and hidden fields out of HTML."""

    _UNSEEN = ("script", "style", "template")
    _INLINE = ("a", "b", "code", "em", "i", "small", "span", "strong")

    def __init__(self) -> None:
        super().__init__()
        self.title = ""
        self.text: list[str] = []
        self.links: list[str] = []
        self.hidden: dict[str, str] = {}
        self._inside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag in (*self._UNSEEN, "title"):
            self._inside.append(tag)
        elif tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "input":
            if values.get("type") == "hidden" and "name" in values:
                self.hidden[values["name"]] = values.get("value", "")
            elif values.get("type") not in ("submit", "checkbox", "radio"):
                self.text.append(f" {values.get('value', '')} ")
        if tag not in self._INLINE:
            self.text.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()
        if tag not in self._INLINE:
            self.text.append(" ")

    def handle_data(self, data: str) -> None:
        if "title" in self._inside:
            self.title += data
        elif not self._inside:
            self.text.append(data)


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

    def post(self, path: str, fields: Mapping[str, str]) -> Page:
        """Send a form."""
        request = urllib.request.Request(  # noqa: S310
            self._base + path, urlencode(fields).encode(), {"Referer": self._base + path}
        )
        return self._open(request)

    def log_in(self, user: str, password: str) -> None:
        """Log in to the admin through its form. Raises DemoError if that does not lead inside."""
        form = self.get(LOGIN)
        page = self.post(LOGIN, {**form.hidden, "username": user, "password": password, "next": "/admin/"})
        if page.status != http.HTTPStatus.OK or page.path != "/admin/":
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
        took = time.monotonic() - begun
        reader = _Reader()
        reader.feed(body.decode("utf-8", "replace"))
        parts = urlsplit(url)
        links = [urlsplit(urljoin(url, link)) for link in reader.links]
        return Page(
            path=parts.path + (f"?{parts.query}" if parts.query else ""),
            status=status,
            took=took,
            title=" ".join(reader.title.split()),
            text=" ".join("".join(reader.text).split()),
            links=tuple(dict.fromkeys(link.path for link in links if link.netloc == parts.netloc)),
            hidden=reader.hidden,
        )
