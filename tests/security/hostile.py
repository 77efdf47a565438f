"""Texts of somebody who wants a page, a log or a terminal to do something.

Each holds a mark, such as ``xq7ab``, in every place where it could become something else than text: as the name of an
element and of an attribute, as script, as host. So whatever a page was made of, a mark that was parsed tells the fault,
and whose it is.
"""

from __future__ import annotations

#: What every mark begins with. In no word of Django or of ours.
TOKEN = "xq7"

#: A time, a level and a logger: what a line of a task's log begins with.
FORGED_LINE = "2026-11-20T06:50:30.878Z CRITICAL bank: "

_TEXTS = {
    # first of all what cuts an attribute or an element open, as only the beginning fits into the shortest columns
    "markup": "\"'><{m} onload={m}() {m}=1></{m}><script>{m}()</script><img src=x onerror={m}()>"
    "<a href=javascript:{m}()>",
    "closer": "</script><!--<script>{m}</title></textarea></select></pre></style>]]><{m}>--><style>{m}{{}}</style>"
    "\\'\\\"",
    "template": '{{{{ 7|add:7 }}}}{m}{{% now "Y" %}}{{# {m} #}}%s%(task)s%d%%{{0}}{{task}}&lt;{m}&gt;&#60;{m}&#x3e;'
    "${{{m}}}",
    "scheme": "javascript:{m}()//' onfocus={m}() autofocus {m}=` {m}",
    "far": "//{m}.example/\\\\{m}.example/../..?{m}=1&amp;{m}=2;#{m}",
    "unseen": "\u202e{m}\u2066\u200f\u2028\u2029\u200b\ufeff\x1b[2J\x1b]0;{m}\x07\x9b31m\x08\x0b\x0c\x1e\x7f\x85{m}"
    "𝕏🥕\U000e0041é",
    "lines": "{m}\r\n" + FORGED_LINE + "{m}\r" + FORGED_LINE + "{m}\nSet-Cookie: {m}=1\n\n… {m} …\n    … {m} …",
    "level": FORGED_LINE + "{m}\n" + FORGED_LINE.replace("CRITICAL", "Level " + "9" * 5000),
    "long": "<{m} {m}>" * 200,
}
#: Only some databases can store it.
_NUL = "{m}\0<{m}>\0"

NAMES = tuple(_TEXTS)


def text(name: str, mark: str = TOKEN) -> str:
    """One of the texts of :data:`NAMES`; the long one is longer than any column of limited length."""
    return _TEXTS[name].format(m=mark)


def texts(mark: str = TOKEN, *, nul: bool = False) -> list[str]:
    """All of them. ``nul``: one with that character, too."""
    return [template.format(m=mark) for template in (*_TEXTS.values(), *([_NUL] if nul else []))]
