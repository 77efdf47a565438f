"""The part of a long list that filters and a search look through.

No index serves them, so on a list of millions each page would read every row. They get the newest rows instead, by the
column that the list is sorted by, which has an index; and older ones in portions, one link after the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.timezone import is_aware

from carrot import clock
from carrot.admin.ranges import MomentRangeFilter

#: Rows that are looked through.
WINDOW = 100_000

#: How much later than it ended the end of a task may be recorded, for ranges that end before the newest rows.
LATE = timedelta(hours=1)

#: The times at which a task enters the list that shows them; ``state_at`` follows.
ENDED = ("completion_time", "failure_time")

#: Digits of the greatest key there is.
KEY_DIGITS = 19


@dataclass(frozen=True, kw_only=True)
class Window:
    """Rows to look through. ``end``: where older ones begin; None if there are none."""

    rows: QuerySet[Any]
    end: Any = None
    #: whether newer ones are left out
    moved: bool = False


class OlderFilter(admin.SimpleListFilter):
    """Takes the place in a list where older rows begin. Nothing is offered beside the list; its notice has the link."""

    title = ""
    parameter_name = "before"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Any]]:
        return []

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset


def window(rows: QuerySet[Any], field: str, *, before: str = "", filters: Iterable[Any] = ()) -> Window:
    """The newest :data:`WINDOW` of ``rows`` by ``field``, or of those before a place in the list.

    A range of times among ``filters`` that ends earlier moves it there, where the times go with ``field``.
    """
    if before:
        place = _place(before, field)
        if place is None:
            return Window(rows=rows.none(), moved=True)
        return _newest(rows.filter(**{f"{field}__lt": place}), field, moved=True)
    found = _newest(rows, field)
    until = _until(filters) if field == "state_at" and found.end is not None else None
    if until is None or until >= clock.now():
        return found
    return _newest(rows.filter(state_at__lte=until), field, moved=True)


def _newest(rows: QuerySet[Any], field: str, *, moved: bool = False) -> Window:
    end = list(rows.order_by(f"-{field}", "-pk").values_list(field, flat=True)[WINDOW - 1 : WINDOW + 1])
    if len(end) < 2:
        return Window(rows=rows, moved=moved)
    return Window(rows=rows.filter(**{f"{field}__gte": end[0]}), end=end[0], moved=moved)


def _until(filters: Iterable[Any]) -> datetime | None:
    ranges = [each for each in filters if isinstance(each, MomentRangeFilter) and each.field_path in ENDED]
    ends = [each.latest for each in ranges if each.latest is not None]
    return min(ends) + LATE if ends else None


def _place(text: str, field: str) -> Any:
    """What :attr:`Window.end` was, from the text of it; None where this is none."""
    if field == "pk":
        return int(text) if text.isascii() and text.isdecimal() and len(text) <= KEY_DIGITS else None
    try:
        moment = datetime.fromisoformat(text)
        moment.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None
    return moment if is_aware(moment) == is_aware(clock.now()) else None
