"""The list pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib.admin.utils import quote
from django.contrib.admin.views.main import ORDER_VAR, PAGE_VAR, ChangeList
from django.db.models import Case, F, QuerySet, TextField, When
from django.db.models.functions import Left, Length
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.text import capfirst
from django.utils.translation import gettext as _

from carrot.admin import display
from carrot.admin.filters import StatusFilter
from carrot.admin.paginator import BoundedPaginator
from carrot.admin.redaction import Redaction
from carrot.admin.search import exact_uuid
from carrot.admin.window import WINDOW, OlderFilter, Window, window
from carrot.models import Status

if TYPE_CHECKING:
    from django.utils.safestring import SafeString

#: Columns that no list reads: each may hold megabytes.
HEAVY = ("args", "kwargs", "output", "log", "traceback", "exception")

#: The list that has the tasks of a status; the others are in that of all tasks.
LISTS: dict[str, str] = {
    Status.PUBLISHED: "queuedtask",
    Status.IN_PROGRESS: "runningtask",
    Status.FAILED: "failedtask",
    Status.COMPLETED: "completedtask",
    Status.WAITING: "delayedtask",
}

#: Characters of JSON up to which arguments are shown in a list.
MAX_LISTED = 4096


class MonitorChangeList(ChangeList):
    """A list that says what its rows and its emptiness mean. The templates of ``admin/carrot`` show what it says."""

    paginator: BoundedPaginator
    model_admin: Any

    def get_results(self, request: HttpRequest) -> None:
        self.notices: list[str | SafeString] = []
        super().get_results(request)
        problems = [text for spec in self.filter_specs for text in getattr(spec, "problems", list)()]
        self.notices += problems
        if self.paginator.capped:
            self.notices.append(
                _("There are more than %(limit)s; these are the first. Filter or search to see others.")
                % {"limit": display.count(self.paginator.limit)}
            )
        notices = getattr(self.model_admin, "list_notices", None)
        if notices is not None:
            self.notices += notices(request, self)
        if not self.result_count and not problems:
            self.empty_message = self._empty_message()

    def _empty_message(self) -> str | SafeString:
        if self.query or self.has_active_filters:
            return _("Nothing here matches the search and the filters.")
        text: str | SafeString = self.model_admin.empty_message()
        return text

    @property
    def sort_field(self) -> str:
        """The column that the list is sorted by; an index serves it."""
        field: str = self.model_admin.sort_field
        return field

    def in_words(self) -> str:
        """What the list shows: its name, its filters, its search."""
        filters = [text for spec in self.filter_specs for text in getattr(spec, "in_words", list)()]
        if self.query:
            filters.append(_("search: “%s”") % self.query)
        return f"{capfirst(self.opts.verbose_name_plural)}: {'; '.join(filters) or _('no filter')}"

    @property
    def count_text(self) -> str:
        """The length of the list, ``10,000+ failed tasks`` where it was not counted to its end."""
        number = display.count(self.result_count, more=self.paginator.capped)
        plural = self.model_admin.plural or self.opts.verbose_name_plural
        return f"{number} {self.opts.verbose_name if self.result_count == 1 else plural}"

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[Any]:
        """The order of the list, or the one asked for where it is its ``sort_field``, which an index serves.

        Any other ``?o=`` is ignored: it would sort the whole table.
        """
        direction = "-" if str(self.model_admin.ordering[0]).startswith("-") else ""
        for part in self.params.get(ORDER_VAR, "").split("."):
            _none, prefix, index = part.rpartition("-")
            names = self.list_display[int(index) : int(index) + 1] if index.isdecimal() else []
            if any(self.get_ordering_field(name) == self.sort_field for name in names):
                direction = prefix
        field = self.sort_field
        return [f"{direction}{name}" for name in dict.fromkeys((field, "pk"))]


class TaskChangeList(MonitorChangeList):
    """A list of tasks: reads no heavy column, and links to the one page of a task wherever it is listed.

    What no index finds is looked for in a window of the list.
    """

    @property
    def sort_field(self) -> str:
        """Tasks of one status have an index, whatever list they are in."""
        return "state_at" if self._asked(StatusFilter.parameter_name) else super().sort_field

    def _asked(self, name: str) -> str:
        values: list[str] = self.get_filters_params().get(name, [])
        return values[-1] if values else ""

    def _window(self, request: HttpRequest) -> Window:
        """What filters and search look through: everything, where there are none that no index serves."""
        rows, status = self.root_queryset, self._asked(StatusFilter.parameter_name)
        if status:
            rows = rows.filter(status=status)
        asked = {name for name in self.get_filters_params() if self._asked(name)} - {StatusFilter.parameter_name}
        if exact_uuid(self.query) or not (asked or self.query):
            return Window(rows=rows)
        before = self._asked(OlderFilter.parameter_name)
        return window(rows, self.sort_field, before=before, filters=self.get_filters(request)[0])

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Any]:
        self.window = self._window(request)
        everything, self.root_queryset = self.root_queryset, self.window.rows
        try:
            queryset = super().get_queryset(request, exclude_parameters)
        finally:
            self.root_queryset = everything
        size = Length("args") + Length("kwargs")
        light: QuerySet[Any] = queryset.defer(*HEAVY).annotate(
            arguments_size=size,
            # As text: what somebody wrote into a row by hand need not be JSON.
            args_text=Case(When(arguments_size__lte=MAX_LISTED, then=F("args")), output_field=TextField()),
            kwargs_text=Case(When(arguments_size__lte=MAX_LISTED, then=F("kwargs")), output_field=TextField()),
            exception_head=Left("exception", 300),
            worker_host=F("worker__host"),
            worker_pid=F("worker__pid"),
        )
        return light

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.notices += self._window_notices()
        redaction = Redaction()  # one for the page: a function that is looked up in vain may take its time
        for task in self.result_list:
            task.redaction = redaction

    def _window_notices(self) -> list[SafeString | str]:
        if self.window.end is None:
            return [_("Newer tasks were left out.")] if self.window.moved else []
        place = self.window.end
        older = {OlderFilter.parameter_name: place if isinstance(place, int) else place.isoformat()}
        return [
            format_html(
                '{} <a href="{}">{}</a>',
                self._looked_through(),
                self.get_query_string(older, remove=[PAGE_VAR]),
                _("Look through older ones"),
            )
        ]

    def _looked_through(self) -> str:
        text = _("Only the newest %(number)s of these tasks were looked through.")
        if self.window.moved:
            text = _("Only %(number)s of these tasks were looked through; newer and older ones were left out.")
        return text % {"number": display.count(WINDOW)}

    def in_words(self) -> str:
        text = super().in_words()
        if self.window.end is None:
            return f"{text}. {_('Newer tasks were left out.')}" if self.window.moved else text
        return f"{text}. {self._looked_through()}"

    def url_for_result(self, result: Any) -> str:
        return task_url(self.model_admin.admin_site.name, result.pk)


def task_url(site_name: str, pk: Any) -> str:
    """The page of a task, whichever list it is in."""
    return reverse("admin:carrot_messagelog_change", args=(quote(pk),), current_app=site_name)


def list_url(site_name: str, status: str) -> str:
    """The list that has the tasks of a status."""
    return reverse(f"admin:carrot_{LISTS.get(status, 'messagelog')}_changelist", current_app=site_name)
