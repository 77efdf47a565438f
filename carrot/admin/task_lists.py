"""What every list of tasks has: search, filters and columns."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from carrot import clock
from carrot.admin import display, search
from carrot.admin.changelist import MonitorChangeList, TaskChangeList, task_url
from carrot.admin.filters import PriorityFilter, QueueFilter, TaskFilter, VirtualHostFilter
from carrot.admin.ranges import MomentRangeFilter
from carrot.admin.redaction import Redaction, url_passwords_masked
from carrot.admin.task_actions import TaskActions
from carrot.admin.window import OlderFilter
from carrot.conf import get_settings
from carrot.models import WorkerProcess

#: How a service is started; lists that wait for one say so.
START = "python manage.py carrot"
#: Workers that a page asks at most for what they report, and different reports that it shows.
MAX_REPORTS, MAX_NEWS = 100, 10


class TaskListAdmin(TaskActions):
    """A list of tasks. Subclasses choose the columns; lists of one status are ordered by its index."""

    search_fields = ("task", "args", "kwargs", "uuid", "exception")
    search_help_text = gettext_lazy("Searches function names, arguments, message ids and exceptions.")
    list_filter: ClassVar[Any] = (
        QueueFilter,
        ("publish_time", MomentRangeFilter),
        ("completion_time", MomentRangeFilter),
        ("failure_time", MomentRangeFilter),
        PriorityFilter,
        VirtualHostFilter,
        TaskFilter,
        OlderFilter,
    )
    list_display_links = ("name",)
    sort_field = "state_at"
    ordering: ClassVar[Any] = ("-state_at", "-pk")
    sortable_by = ("published", "queued", "started", "failed", "completed")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return TaskChangeList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """The admin's own search, narrowed to matches in what may be seen."""
        if not search_term:
            return queryset, False
        uuid = search.exact_uuid(search_term)
        if uuid is not None:
            found, duplicates = super().get_search_results(request, queryset.filter(uuid=uuid), search_term)
            return found, duplicates
        found, duplicates = super().get_search_results(request, queryset, search_term)
        return search.without_masked_matches(found, search_term, Redaction()), duplicates

    def list_notices(self, request: HttpRequest, changelist: MonitorChangeList) -> list[Any]:
        """What somebody who reads the list has to know, in sentences."""
        return []

    # -- columns ----------------------------------------------------------------------------------------------------

    @admin.display(description=gettext_lazy("task"))
    def name(self, task: Any) -> SafeString:
        return display.task_name(task.task)

    @admin.display(description=gettext_lazy("arguments"))
    def arguments(self, task: Any) -> SafeString | str:
        if task.args_text is None or task.kwargs_text is None:
            return _("%s of arguments") % filesizeformat(task.arguments_size)
        try:
            args, kwargs = json.loads(task.args_text), json.loads(task.kwargs_text)
            redaction: Redaction = task.redaction
            text = display.call(
                redaction.positional(task.task, task.origin, args).values,
                redaction.keyword(task.task, task.origin, kwargs).values,
            )
        except (ValueError, TypeError, AttributeError, RecursionError):
            return _("not readable")  # changed by hand: what cannot be read cannot be masked
        return format_html('<span class="carrot-arguments">{}</span>', display.shortened(text, 80)) if text else ""

    @admin.display(description=gettext_lazy("status"))
    def state(self, task: Any) -> SafeString:
        return display.status(task.status)

    @admin.display(description=gettext_lazy("queue"))
    def queue_name(self, task: Any) -> SafeString:
        return queue_text(task.queue, task.broker)

    @admin.display(description=gettext_lazy("published"), ordering="pk")
    def published(self, task: Any) -> SafeString | str:
        return display.moment(task.publish_time)

    @admin.display(description=gettext_lazy("published"), ordering="state_at")
    def queued(self, task: Any) -> SafeString | str:
        """Also when it was queued again: by a retry, a requeue, or a worker that gave it back."""
        if (task.state_at - task.publish_time).total_seconds() < 1:
            return display.moment(task.publish_time)
        return format_html(
            '{}<br><span class="carrot-quiet">{} {}</span>',
            display.moment(task.publish_time),
            _("queued again"),
            display.moment(task.state_at),
        )

    @admin.display(description=gettext_lazy("due"))
    def due(self, task: Any) -> SafeString | str:
        return display.moment(task.ring_at)

    @admin.display(description=gettext_lazy("started"), ordering="state_at")
    def started(self, task: Any) -> SafeString | str:
        return display.moment(task.start_time or task.state_at)

    @admin.display(description=gettext_lazy("running for"))
    def elapsed(self, task: Any) -> str:
        return display.between(task.start_time or task.state_at, clock.now())

    @admin.display(description=gettext_lazy("failed"), ordering="state_at")
    def failed(self, task: Any) -> SafeString | str:
        return display.moment(task.failure_time or task.state_at)

    @admin.display(description=gettext_lazy("completed"), ordering="state_at")
    def completed(self, task: Any) -> SafeString | str:
        return display.moment(task.completion_time or task.state_at)

    @admin.display(description=gettext_lazy("took"))
    def took(self, task: Any) -> str:
        return display.between(task.start_time, task.completion_time or task.failure_time)

    @admin.display(description=gettext_lazy("exception"))
    def error(self, task: Any) -> SafeString | str:
        text = display.shortened(url_passwords_masked(task.exception_head), 100)
        url = task_url(self.admin_site.name, task.pk)
        return format_html('<a class="carrot-error" href="{}#carrot-error">{}</a>', url, text)

    @admin.display(description=gettext_lazy("worker"))
    def worker_name(self, task: Any) -> str:
        if task.worker_id is None:
            return display.EMPTY
        return f"{task.worker_host}:{task.worker_pid}" if task.worker_host is not None else f"#{task.worker_id}"

    @admin.display(description=gettext_lazy("attempt"))
    def attempt(self, task: Any) -> int:
        return int(task.tries)

    @admin.display(description=gettext_lazy("why it waits"))
    def reason(self, task: Any) -> SafeString | str:
        return display.shortened(url_passwords_masked(task.note), 60)


def queue_text(queue: str, broker: str) -> SafeString:
    """A queue, with a word where the settings do not have it (any more)."""
    if queue in get_settings().queues:
        return format_html('<span title="{}">{}</span>', broker, queue)
    return format_html(
        '<span title="{}">{}</span> <span class="carrot-warning">{}</span>', broker, queue, _("not in the settings")
    )


def no_worker() -> SafeString | str:
    """A sentence for lists of what waits, where no worker lives that could run it; else empty."""
    if WorkerProcess.objects.alive().exists():
        return ""
    return format_html(
        "{} <code>{}</code>", _("No worker is running, so nothing will be run. Start the service with"), START
    )


def hindrances(request: HttpRequest) -> list[SafeString | str]:
    """What one should know about the running of waiting tasks, in sentences: that no worker lives, or what those that
    live report.
    """
    if text := no_worker():
        return [text]
    if not request.user.has_perm("carrot.view_workerprocess"):
        return []
    workers = WorkerProcess.objects.alive().exclude(notice="", unsent="")[:MAX_REPORTS]
    news = sorted({text for worker in workers for text in news_of(worker)})
    shown = [format_html("{} {}", _("Workers report:"), display.shortened(text, 400)) for text in news[:MAX_NEWS]]
    return shown + ([_("Workers report still more; see Workers.")] if len(news) > MAX_NEWS else [])


def news_of(worker: WorkerProcess) -> list[str]:
    """What a worker wants its operator to know, in sentences."""
    if not worker.alive:
        return []  # what it said is history
    text = _("The service on %(host)s cannot send messages: %(why)s")
    unsent = [text % {"host": worker.host, "why": why} for why in worker.unsent.splitlines()]
    return [url_passwords_masked(text) for text in [*worker.notice.splitlines(), *unsent]]
