"""How values look in lists and on pages. Everything returned is safe HTML or plain text."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from django.utils import formats, timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timesince, timeuntil
from django.utils.translation import gettext as _

from carrot import clock
from carrot.models import Status

EMPTY = "–"


def moment(value: datetime | None) -> SafeString | str:
    """A time to the second, in the site's time zone; how long ago it was in its title."""
    if value is None:
        return EMPTY
    local = timezone.localtime(value) if timezone.is_aware(value) else value
    now = clock.now()
    title = _("in %s") % timeuntil(value, now) if value > now else _("%s ago") % timesince(value, now)
    return format_html(
        '<time class="carrot-time" datetime="{}" title="{}">{}</time>',
        local.isoformat(),
        title,
        local.strftime("%Y-%m-%d %H:%M:%S"),
    )


def duration(seconds: float | None) -> str:
    """``0.4 ms``, ``3.4 s``, ``5 min 3 s``, ``2 h 5 min``, ``3 d 4 h``."""
    if seconds is None:
        return EMPTY
    seconds = max(seconds, 0.0)
    if seconds < 1:
        return _("%s ms") % formats.number_format(seconds * 1000, 1, use_l10n=True)
    if seconds < 60:
        return _("%s s") % formats.number_format(seconds, 1, use_l10n=True)
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return _("%(minutes)d min %(seconds)d s") % {"minutes": minutes, "seconds": rest}
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return _("%(hours)d h %(minutes)d min") % {"hours": hours, "minutes": minutes}
    days, hours = divmod(hours, 24)
    return _("%(days)d d %(hours)d h") % {"days": days, "hours": hours}


def between(start: datetime | None, end: datetime | None) -> str:
    """How long something took."""
    return EMPTY if start is None or end is None else duration((end - start).total_seconds())


def task_name(path: str) -> SafeString:
    """The last part of a dotted path, which is the function, and its module below it."""
    module, _dot, name = path.rpartition(".")
    return format_html(
        '<span class="carrot-task" title="{}">{}</span> <span class="carrot-module">{}</span>', path, name, module
    )


def status(value: str) -> SafeString:
    """A status in words, with a mark of its own."""
    label = dict(Status.choices).get(value, value)
    css_class = value.lower().replace("_", "-") if value in Status.values else "unknown"
    return format_html('<span class="carrot-status carrot-status-{}">{}</span>', css_class, label)


def shortened(text: str, limit: int) -> SafeString | str:
    """The first line, at most ``limit`` characters; the first thousand characters in the title where that cuts."""
    first = text.strip().split("\n", 1)[0].strip()
    if len(first) <= limit and first == text.strip():
        return text.strip() or EMPTY
    return format_html('<span title="{}">{}…</span>', text[:1000], first[:limit].rstrip())


def call(args: list[Any], kwargs: dict[str, Any]) -> str:
    """Arguments as in a call: ``1, "a", b=2``."""
    parts = [as_json(value) for value in args]
    parts += [f"{_sendable(name)}={as_json(value)}" for name, value in kwargs.items()]
    return ", ".join(parts)


def as_json(value: Any, indent: int | None = None) -> str:
    """JSON for people to read."""
    return _sendable(json.dumps(value, indent=indent, ensure_ascii=False))


def _sendable(text: str) -> str:
    """Half a character, which JSON may spell and no page can hold, as JSON spells it: ``\\ud800``."""
    return text.encode("utf-8", "backslashreplace").decode()


def count(number: int, *, more: bool = False) -> str:
    """A number with separators; ``10,000+`` where there are more."""
    text = formats.number_format(number, use_l10n=True, force_grouping=True)
    return f"{text}+" if more else text
