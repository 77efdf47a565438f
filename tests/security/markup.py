"""A page as a browser takes it apart, and whether anything in it came from data that should have stayed text."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urlsplit

from tests.security.hostile import TOKEN

#: Attributes that hold an address.
ADDRESSES = ("href", "src", "action", "formaction", "data", "poster", "ping", "cite", "background", "xlink:href")
#: Elements without an end tag.
VOID = ("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr")

_MARK = re.compile(TOKEN + r"[a-z]{2}")


@dataclass(kw_only=True)
class Form:
    """What a form would send, and where to."""

    action: str
    method: str
    fields: dict[str, list[str]] = field(default_factory=dict)
    #: what a select offers
    options: dict[str, list[str]] = field(default_factory=dict)


class Page(HTMLParser):
    """``faults`` says what is wrong with a page, ``text`` what stands on it, ``forms`` what can be sent from it."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.faults: list[str] = []
        self.forms: list[Form] = []
        self.text = ""
        self._open: list[str] = []
        self._script: dict[str, str] | None = None
        self._textarea: tuple[Form, str] | None = None
        self.feed(source)
        self.close()
        for wrong in (f"<{TOKEN}", f"</{TOKEN}", f"14{TOKEN}"):
            if wrong in source.lower():
                self.faults.append(f"the source has {wrong}")
        if self._open:
            self.faults.append(f"left open: {self._open}")

    @property
    def marks(self) -> set[str]:
        """The marks that somebody who looks at the page sees, also those in fields and titles."""
        return set(_MARK.findall(self.text))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self._judge(tag, values)
        self.text += "".join(
            f"\n{values[name]}" for name in ("title", "value", "data-call", "data-summary") if name in values
        )
        if tag not in VOID:
            self._open.append(tag)
        if tag in ("script", "style"):
            self._script = values
        if tag == "form":
            self.forms.append(Form(action=values.get("action", ""), method=values.get("method", "get").lower()))
        elif self.forms and "form" in self._open:
            self._note(tag, values)

    def handle_endtag(self, tag: str) -> None:
        if TOKEN in tag:
            self.faults.append(f"end tag {tag}")
        self._script = self._textarea = None
        # An end tag of data would close what stands further out.
        if tag in self._open and tag not in VOID:
            inner = self._open[len(self._open) - self._open[::-1].index(tag) :]
            if left := [name for name in inner if name not in ("li", "p", "option", "td", "th", "tr")]:
                self.faults.append(f"</{tag}> closes {left}")
            del self._open[len(self._open) - self._open[::-1].index(tag) - 1 :]

    def handle_data(self, data: str) -> None:
        if self._script is not None:
            self._judge_script(data)
            return
        self.text += data
        if self._textarea is not None:
            form, name = self._textarea
            form.fields[name][-1] += data.removeprefix("\n")

    def handle_comment(self, data: str) -> None:
        if TOKEN in data:
            self.faults.append(f"comment {data!r:.80}")

    handle_decl = handle_pi = unknown_decl = handle_comment

    def _judge(self, tag: str, values: dict[str, str]) -> None:
        if TOKEN in tag:
            self.faults.append(f"element {tag}")
        for name, value in values.items():
            if TOKEN in name:
                self.faults.append(f"attribute {name} of {tag}")
            elif name.startswith("on") or name in ("style", "srcdoc", "http-equiv"):
                self.faults.append(f"attribute {name} of {tag}: {value!r:.80}")
            elif name in ADDRESSES:
                self._judge_address(tag, name, value)

    def _judge_address(self, tag: str, name: str, value: str) -> None:
        # As browsers read it: spaces around it and control characters in it do not count, and \ is /.
        plain = "".join(character for character in value.strip() if character > " ").replace("\\", "/")
        parts = urlsplit(plain)
        if parts.scheme or parts.netloc or plain.startswith("//"):
            self.faults.append(f"{name} of {tag} leads elsewhere: {value!r:.80}")

    def _judge_script(self, content: str) -> None:
        assert self._script is not None
        if not content.strip():
            return
        if self._script.get("type") not in ("application/json", "application/ld+json"):
            self.faults.append(f"inline script or style: {content!r:.80}")
        elif "<" in content or not json.loads(content):
            self.faults.append(f"JSON that is not escaped: {content!r:.80}")

    def _note(self, tag: str, values: dict[str, str]) -> None:
        form, name = self.forms[-1], values.get("name", "")
        if tag == "select":
            form.options[name] = []
        elif tag == "option":
            form.options[next(reversed(form.options))].append(values.get("value", ""))
        elif tag == "textarea":
            form.fields.setdefault(name, []).append("")
            self._textarea = form, name
        elif (
            tag == "input"
            and name
            and (values.get("type") not in ("submit", "checkbox", "radio") or "checked" in values)
        ):
            form.fields.setdefault(name, []).append(values.get("value", ""))
