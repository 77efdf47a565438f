"""Messages that came from a broker and are no task of this project."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin
from django.template.defaultfilters import filesizeformat
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from carrot.admin import display, highlighting
from carrot.admin.read_only import ReadOnlyAdmin
from carrot.admin.redaction import MASK, Redaction
from carrot.models import Origin, StrayMessage


@admin.register(StrayMessage)
class StrayMessageAdmin(ReadOnlyAdmin):
    list_display = ("received", "reason", "queue", "broker", "task", "message_id")
    search_fields = ("task", "queue", "reason", "message_id")
    sortable_by = ("received",)
    fieldsets = ((None, {"fields": ("received", "reason", "queue", "broker", "task", "message_id", "content")}),)
    readonly_fields = ("received", "content")

    def empty_message(self) -> Any:
        return format_html(
            '<span class="carrot-good">✔</span> {}',
            _("No foreign, forged or damaged message has been met."),
        )

    @admin.display(description=gettext_lazy("received"), ordering="pk")
    def received(self, message: StrayMessage) -> SafeString | str:
        return display.moment(message.received_at)

    @admin.display(description=gettext_lazy("body"))
    def content(self, message: StrayMessage) -> SafeString | str:
        """Masked. What is no JSON, or only the beginning of some, cannot be masked: its length is told instead."""
        if not message.body:
            return _("The message is empty.")
        try:
            value = json.loads(message.body)
        except (ValueError, RecursionError):
            length = filesizeformat(len(message.body.encode()))
            return _("Not shown: %s that are not JSON, or only its beginning, and so cannot be masked.") % length
        return format_html('<pre class="carrot-block">{}</pre>', _masked(value, message))


def _masked(value: Any, message: StrayMessage) -> SafeString:
    """A body, masked like the arguments of a task: this may well be one, of somebody else."""
    redaction = Redaction()
    if not isinstance(value, dict):
        values = value if isinstance(value, list) else [value]
        return highlighting.json_value(redaction.positional(message.task, Origin.MESSAGE, values).values)
    for key, kind, masked in (("args", list, redaction.positional), ("kwargs", dict, redaction.keyword)):
        if key in value:
            known = isinstance(value[key], kind)
            value[key] = masked(message.task, Origin.MESSAGE, value[key]).values if known else MASK
    return highlighting.json_value(redaction.value(value))
