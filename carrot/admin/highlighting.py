"""Stored text with colours: spans with classes, everything escaped."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from pygments.lexer import Lexer
from pygments.lexers.data import JsonLexer
from pygments.lexers.python import PythonTracebackLexer
from pygments.token import STANDARD_TYPES, _TokenType

from carrot.admin import display

#: Characters above which a text is shown without colours: a lexer needs about 2 µs for each.
MAX_COLOURED = 65_536


def json_value(value: Any) -> SafeString:
    """A JSON value, indented."""
    return _coloured(display.as_json(value, indent=2), JsonLexer(stripnl=False, ensurenl=False))


def traceback(text: str) -> SafeString:
    """A Python traceback."""
    return _coloured(text, PythonTracebackLexer(stripnl=False, ensurenl=False))


def _coloured(text: str, lexer: Lexer) -> SafeString:
    if len(text) > MAX_COLOURED:
        return format_html("{}", text)
    return format_html_join("", '<span class="{}">{}</span>', _runs(text, lexer))


def _runs(text: str, lexer: Lexer) -> Iterator[tuple[str, str]]:
    """Text in runs of one class each. Unlike Pygments' own formatter this hands back no HTML that has to be trusted."""
    for css_class, tokens in groupby(lexer.get_tokens(text), lambda token: _class_of(token[0])):
        yield css_class, "".join(value for _, value in tokens)


def _class_of(token: _TokenType) -> str:
    kind: Any = token
    while kind not in STANDARD_TYPES:
        kind = kind.parent
    return f"hl-{STANDARD_TYPES[kind]}" if STANDARD_TYPES[kind] else "hl"
