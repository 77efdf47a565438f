"""Filters by time, from django-admin-rangefilter, made safe to act on.

As released, an invalid range filters nothing: with "select all" an action would then meet every row. Its template
carries script and style inline, which a content security policy refuses, and its upper bound leaves out the fractions
of its last second.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, time, timedelta
from datetime import timezone as fixed
from typing import Any

from django import forms
from django.contrib.admin.views.main import ORDER_VAR, SEARCH_VAR, ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from rangefilter.filters import DateTimeRangeFilter

from carrot import clock

#: Ranges that are one click away: label, hours.
QUICK = (
    (gettext_lazy("Last hour"), 1),
    (gettext_lazy("Last 24 hours"), 24),
    (gettext_lazy("Last 7 days"), 168),
)


class MomentField(forms.SplitDateTimeField):
    """A day and a time of it; the day alone is enough. The browser's own calendar and clock, so no script is needed."""

    def __init__(self, *, label: Any, missing_time: time) -> None:
        self.missing_time = missing_time
        widget = forms.SplitDateTimeWidget(
            date_attrs={"type": "date", "aria-label": _("%s: day") % label},
            time_attrs={"type": "time", "step": "1", "aria-label": _("%s: time") % label},
            date_format="%Y-%m-%d",
            time_format="%H:%M:%S",
        )
        super().__init__(label=label, widget=widget, required=False, localize=False)

    def compress(self, data_list: Any) -> datetime | None:
        if data_list and data_list[0] and data_list[1] in self.empty_values:
            data_list = [data_list[0], self.missing_time]
        value: datetime | None = super().compress(data_list)
        try:
            if value is not None and timezone.is_aware(value):
                value.astimezone(fixed.utc)
        except OverflowError:
            # Databases keep times in UTC, where this one would be before the year 1, or after 9999.
            raise forms.ValidationError(self.error_messages["invalid_date"], code="invalid_date") from None
        return value


class MomentRangeFilter(DateTimeRangeFilter):  # type: ignore[misc]
    """Rows between two moments, both included. A range that cannot be understood shows nothing, and says so."""

    template = "admin/carrot/range_filter.html"

    @classmethod
    def parameters(cls, field: str) -> list[str]:
        """The names this filter has in a query string."""
        return [f"{field}__range__{end}_{part}" for end in ("gte", "lte") for part in (0, 1)]

    @property
    def folded(self) -> bool:
        """Closed at first, as the form takes much room."""
        return not self.used_parameters

    def _get_form_fields(self) -> dict[str, forms.Field]:
        return {
            self.lookup_kwarg_gte: MomentField(label=_("From"), missing_time=time.min),
            self.lookup_kwarg_lte: MomentField(label=_("To"), missing_time=time.max),
        }

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if not self.used_parameters:
            return queryset
        if self.problems():
            return queryset.none()
        return queryset.filter(**self._make_query_filter(request, self.form.cleaned_data))

    def _make_query_filter(self, request: HttpRequest, validated_data: dict[str, Any]) -> dict[str, Any]:
        start, end = self._ends(validated_data)
        found = {f"{self.field_path}__gte": start, f"{self.field_path}__lte": end}
        return {lookup: value for lookup, value in found.items() if value is not None}

    def _ends(self, data: dict[str, Any]) -> tuple[datetime | None, datetime | None]:
        start, end = data.get(self.lookup_kwarg_gte), data.get(self.lookup_kwarg_lte)
        if end is not None and not end.microsecond:
            end += timedelta(seconds=1, microseconds=-1)  # the whole second that was typed
        return start, end

    @property
    def latest(self) -> datetime | None:
        """The end of a range that has one."""
        return self._ends(self.form.cleaned_data)[1] if self.used_parameters and not self.problems() else None

    def problems(self) -> list[str]:
        """What is wrong with the range, in sentences; the list says them."""
        if not self.used_parameters:
            return []
        if not self.form.is_valid():
            found = [f"{self.form.fields[name].label}: {' '.join(errors)}" for name, errors in self.form.errors.items()]
            return [self._problem(" ".join(found))]
        start, end = self._ends(self.form.cleaned_data)
        if start is not None and end is not None and start > end:
            return [self._problem(_("It ends before it begins."))]
        return []

    def in_words(self) -> list[str]:
        """What is shown, where not everything is."""
        if not self.used_parameters:
            return []
        problems = self.problems()
        if problems:
            return problems
        start, end = self._ends(self.form.cleaned_data)
        words = _("%(title)s from %(start)s") if end is None else _("%(title)s from %(start)s to %(end)s")
        if start is None:
            words = _("%(title)s until %(end)s")
        return [words % {"title": self.title, "start": _second(start), "end": _second(end)}]

    def _problem(self, what: str) -> str:
        return _("Nothing is shown, because the range of “%(title)s” is not valid. %(what)s") % {
            "title": self.title,
            "what": what,
        }

    def choices(self, changelist: ChangeList) -> Iterator[dict[str, Any]]:
        """What the template needs: the state to go back to, and the other parameters, which a GET form would drop."""
        mine = self.expected_parameters()
        others = [(name, value) for name, values in changelist.get_filters_params().items() for value in values]
        others += [(name, changelist.params[name]) for name in (SEARCH_VAR, ORDER_VAR) if name in changelist.params]
        yield {
            "selected": not self.used_parameters,
            "query_string": changelist.get_query_string(remove=mine),
            "display": _("Any time"),
            "hidden": [(name, value) for name, value in others if name not in mine],
        }
        now = clock.now()
        for label, hours in QUICK:
            since = now - timedelta(hours=hours)
            local = timezone.localtime(since) if timezone.is_aware(since) else since
            day, clock_time = local.strftime("%Y-%m-%d"), local.strftime("%H:%M:%S")
            new = {f"{self.lookup_kwarg_gte}_0": day, f"{self.lookup_kwarg_gte}_1": clock_time}
            yield {
                "selected": False,
                "query_string": changelist.get_query_string(new, remove=mine),
                "display": capfirst(label),
            }


def _second(value: datetime | None) -> str:
    if value is None:
        return ""
    local = timezone.localtime(value) if timezone.is_aware(value) else value
    return local.strftime("%Y-%m-%d %H:%M:%S")
