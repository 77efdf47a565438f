"""Messages that came from a broker and are no task of this project."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from carrot.admin import display, highlighting
from carrot.admin.read_only import ReadOnlyAdmin
from carrot.admin.redaction import Redaction
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
    def content(self, message: StrayMessage) -> SafeString:
        return format_html('<pre class="carrot-block">{}</pre>', _shown(message))


def _shown(message: StrayMessage) -> SafeString | str:
    """The beginning of the body, masked like the arguments of a task: this may well be one, of somebody else."""
    redaction = Redaction()
    try:
        value = json.loads(message.body)
    except (ValueError, RecursionError):
        return redaction.text(message.body)
    if isinstance(value, dict):
        if isinstance(value.get("args"), list):
            value["args"] = redaction.positional(message.task, Origin.MESSAGE, value["args"]).values
        if isinstance(value.get("kwargs"), dict):
            value["kwargs"] = redaction.keyword(message.task, Origin.MESSAGE, value["kwargs"]).values
    return highlighting.json_value(redaction.value(value))
