"""The inputs of the schedule form. Each is an ordinary one that works as it is; a script of ours makes it better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django import forms
from django.utils.translation import gettext as _
from django_json_widget.widgets import JSONEditorWidget

from carrot.registry import TaskChoice

if TYPE_CHECKING:
    _Widget = forms.Widget
else:
    _Widget = JSONEditorWidget


class CarrotJSONWidget(_Widget):
    """django-json-widget's editor over a textarea, which is what is submitted.

    Its own template parses the text on the server and in an inline script: text that is not JSON is an error 500, the
    editor submits the last text that was JSON, and a content security policy leaves no input at all. Here the text is
    submitted as typed, the form says what is wrong with it, and the editor is made by a file.
    """

    template_name = "carrot/widgets/json.html"

    class Media:
        css = {"all": ("carrot/schedule.css",)}
        js = ("carrot/json_editor.js",)

    def __init__(self, attrs: Mapping[str, Any] | None = None) -> None:
        options = {
            "modes": ["tree", "text"],
            "mode": "tree",
            "search": False,
            "enableSort": False,
            "enableTransform": False,
            "navigationBar": False,
            "statusBar": False,
        }
        super().__init__(attrs={"rows": 6, "cols": 60, "spellcheck": "false", **(attrs or {})}, options=options)  # type: ignore[call-arg]

    def get_context(self, name: str, value: Any, attrs: Any) -> dict[str, Any]:
        context: dict[str, Any] = super().get_context(name, value, attrs)
        context["widget"]["texts"] = {"broken": _("This is not JSON, so it cannot be shown as a tree.")}
        return context

    def format_value(self, value: Any) -> str:
        """The text as it is: the field makes it from a value, or has it from the person."""
        return "" if value is None else str(value)


class TaskSelect(forms.Select):
    """The functions to choose from, by module, and what the chosen one takes and does."""

    template_name = "carrot/widgets/task_select.html"
    #: What is known of each path, set by the form.
    tasks: Mapping[str, TaskChoice] = {}

    class Media:
        css = {"all": ("carrot/schedule.css",)}
        js = ("carrot/task_select.js",)

    def create_option(
        self,
        name: str,
        value: Any,
        label: int | str,
        selected: bool,
        index: int,
        subindex: int | None = None,
        attrs: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        option = super().create_option(name, value, label, selected, index, subindex, attrs)
        task = self.tasks.get(str(value))
        if task is not None:
            option["attrs"] |= {"data-call": f"{task.path}{task.signature}", "data-summary": task.summary}
        return option
