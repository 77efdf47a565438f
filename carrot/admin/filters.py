"""Filters whose choices come from the settings and the registry, never from a look through the table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from carrot import registry
from carrot.conf import get_settings
from carrot.models import Status


class EqualityFilter(admin.SimpleListFilter):
    """The rows with one value of one column. A value that is no choice (any more) can be asked for, and is shown."""

    template = "admin/carrot/filter.html"
    #: Closed at first, where there is nothing to see in it yet.
    closed = False
    #: the column
    field = ""

    def values(self) -> Iterable[tuple[str, Any]]:
        """The choices: value and label."""
        raise NotImplementedError

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Any]]:
        found = list(self.values())
        asked = self.value()
        if asked is not None and asked not in (value for value, _label in found):
            found.append((asked, _("%s (not in the settings)") % asked[:100]))
        return found

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        value = self.value()
        return queryset if value is None else queryset.filter(**{self.field: value})

    def in_words(self) -> list[str]:
        """What is shown, where not everything is."""
        value = self.value()
        return [f"{self.title}: {label}" for choice, label in self.lookup_choices if str(choice) == value]

    @property
    def folded(self) -> bool:
        return self.closed and self.value() is None


class QueueFilter(EqualityFilter):
    title = gettext_lazy("queue")
    parameter_name = field = "queue"

    def values(self) -> Iterable[tuple[str, Any]]:
        return [(name, name) for name in get_settings().queues]


class TaskFilter(EqualityFilter):
    title = gettext_lazy("task")
    parameter_name = field = "task"

    def values(self) -> Iterable[tuple[str, Any]]:
        return [(name, name) for name in registry.names()]

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Any]]:
        """Code may publish any function, so one that is not registered is nothing special."""
        found = list(self.values())
        asked = self.value()
        return found if asked is None or (asked, asked) in found else [*found, (asked, asked[:255])]


class PriorityFilter(EqualityFilter):
    title = gettext_lazy("priority")
    parameter_name = field = "priority"
    closed = True

    def values(self) -> Iterable[tuple[str, Any]]:
        return [(str(number), number) for number in range(get_settings().max_priority, -1, -1)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        value = self.value()
        if value is not None and not (value.isascii() and value.isdecimal() and len(value) <= 5):
            return queryset.none()
        return super().queryset(request, queryset)


class VirtualHostFilter(EqualityFilter):
    title = gettext_lazy("virtual host")
    parameter_name = "virtual_host"
    field = "broker"
    closed = True

    def values(self) -> Iterable[tuple[str, Any]]:
        addresses = dict.fromkeys(queue.host.address for queue in get_settings().queues.values())
        return [(address, address) for address in addresses]


class StatusFilter(EqualityFilter):
    title = gettext_lazy("status")
    parameter_name = field = "status"

    def values(self) -> Iterable[tuple[str, Any]]:
        return Status.choices


def parameters_of(list_filter: Sequence[Any]) -> set[str]:
    """The names in a query string that these filters read."""
    names: set[str] = set()
    for each in list_filter:
        if isinstance(each, tuple):
            field, range_filter = each
            names.update(range_filter.parameters(field))
        else:
            names.add(each.parameter_name)
    return names
