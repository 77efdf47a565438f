"""What a visitor gets: a page with its text and links, and its forms as a browser would send them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

from launcher import DemoError


@dataclass(frozen=True, kw_only=True)
class Form:
    """One form of a page."""

    #: the path it is sent to, with its query
    action: str
    #: what is sent where nobody changes anything, without the buttons
    fields: tuple[tuple[str, str], ...]
    #: by name: the values that its boxes and lists offer
    offers: Mapping[str, tuple[str, ...]]

    def filled_in(self, changes: Mapping[str, str | Sequence[str]]) -> list[tuple[str, str]]:
        """The fields to send, with other values for some of them; several values where it is a sequence."""
        kept = [(name, value) for name, value in self.fields if name not in changes]
        for name, values in changes.items():
            kept += [(name, value) for value in ([values] if isinstance(values, str) else values)]
        return kept


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
    forms: tuple[Form, ...]

    def form(self, name: str) -> Form:
        """The form that has a field of this name. Raises DemoError."""
        for form in self.forms:
            if name in form.offers or name in dict(form.fields):
                return form
        raise DemoError(f"{self.path} (status {self.status}) has no form with {name}: {self.text[:300]}")


def read_page(url: str, status: int, took: float, content: str) -> Page:
    """Understand the HTML that came from ``url``."""
    reader = _Reader()
    reader.feed(content)
    parts = urlsplit(url)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    links = [urlsplit(urljoin(url, link)) for link in reader.links]
    return Page(
        path=path,
        status=status,
        took=took,
        title=" ".join(reader.title.split()),
        text=" ".join("".join(reader.text).split()),
        links=tuple(dict.fromkeys(link.path for link in links if link.netloc == parts.netloc)),
        forms=tuple(
            Form(
                action=urljoin(path, form.action) if form.action else path,
                fields=tuple(form.fields),
                offers={name: tuple(values) for name, values in form.offers.items()},
            )
            for form in reader.forms
        ),
    )


class _Draft:
    """A form while it is read."""

    def __init__(self, action: str) -> None:
        self.action = action
        self.fields: list[tuple[str, str]] = []
        self.offers: dict[str, list[str]] = {}

    def take_input(self, values: Mapping[str, str]) -> None:
        name, kind = values.get("name", ""), values.get("type", "text")
        if not name or kind in ("submit", "button", "reset", "image", "file"):
            return
        if kind in ("checkbox", "radio"):
            self.offers.setdefault(name, []).append(values.get("value", "on"))
            if "checked" not in values:
                return
        self.fields.append((name, values.get("value", "on" if kind in ("checkbox", "radio") else "")))


class _Reader(HTMLParser):
    """Takes text, links and forms out of HTML."""

    _UNSEEN = ("script", "style", "template")
    _INLINE = ("a", "b", "code", "em", "i", "small", "span", "strong")

    def __init__(self) -> None:
        super().__init__()
        self.title = ""
        self.text: list[str] = []
        self.links: list[str] = []
        self.forms: list[_Draft] = []
        self._inside: list[str] = []
        # What is sent outside of a form, is sent nowhere: it goes into a draft that nobody looks at.
        self._form = _Draft("")
        self._select = ""
        self._chosen: str | None = None
        self._typed: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag in (*self._UNSEEN, "title"):
            self._inside.append(tag)
        elif tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "form":
            self._form = _Draft(values.get("action", ""))
            self.forms.append(self._form)
        elif tag == "input":
            self._form.take_input(values)
            if values.get("type") not in ("hidden", "submit", "checkbox", "radio"):
                self.text.append(f" {values.get('value', '')} ")
        elif tag == "select":
            self._select, self._chosen = values.get("name", ""), None
        elif tag == "option" and self._select:
            self._form.offers.setdefault(self._select, []).append(values.get("value", ""))
            if self._chosen is None or "selected" in values:
                self._chosen = values.get("value", "")
        elif tag == "textarea":
            self._typed = []
            self._form.fields.append((values.get("name", ""), ""))
        if tag not in self._INLINE:
            self.text.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()
        elif tag == "select" and self._select:
            self._form.fields.append((self._select, self._chosen or ""))
            self._select = ""
        elif tag == "textarea" and self._typed is not None:
            name, _ = self._form.fields.pop()
            self._form.fields.append((name, "".join(self._typed).removeprefix("\n")))
            self._typed = None
        elif tag == "form":
            self._form = _Draft("")
        if tag not in self._INLINE:
            self.text.append(" ")

    def handle_data(self, data: str) -> None:
        if self._typed is not None:
            self._typed.append(data)
        if "title" in self._inside:
            self.title += data
        elif not self._inside:
            self.text.append(data)
