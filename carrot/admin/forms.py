"""The form of a schedule: what can be chosen, and what is wrong with what was typed, at its field.

The model checks a schedule as a whole; this form adds what only people need. A function or a queue that is gone stays
where it is, so that the rest of its schedule can be changed, and can be chosen by no other.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from carrot import registry
from carrot.admin.redaction import url_passwords_masked
from carrot.admin.widgets import CarrotJSONWidget, TaskSelect
from carrot.conf import get_settings
from carrot.models import Origin, ScheduledTask
from carrot.models.slots import MAX_INTERVAL

if TYPE_CHECKING:
    ModelForm = forms.ModelForm[ScheduledTask]
else:
    ModelForm = forms.ModelForm

#: Characters of a docstring's first line in an option.
MAX_SUMMARY = 70


class _Typed(str):
    """Text as a person typed it, to be told from a value that is text."""

    __slots__ = ()


class JSONValueField(forms.CharField):
    """A JSON value; nothing stands for ``empty``. Text that is no JSON is an error of the field, and is kept."""

    widget = CarrotJSONWidget

    def __init__(self, *, empty: Any, **kwargs: Any) -> None:
        self.empty = empty
        super().__init__(required=False, initial=empty, **kwargs)

    def to_python(self, value: Any) -> Any:
        text = "" if value is None else str(value).strip()
        if not text:
            return type(self.empty)()
        try:
            return json.loads(text, object_pairs_hook=_without_repeats)
        except json.JSONDecodeError as error:
            place = {"reason": error.msg, "line": error.lineno, "column": error.colno}
            raise ValidationError(
                _("This is not JSON: %(reason)s, in line %(line)d, column %(column)d."), params=place, code="invalid"
            ) from error
        except RecursionError as error:
            raise ValidationError(_("This is nested too deeply."), code="invalid") from error
        except ValueError as error:  # a key twice, or a number too long for Python
            raise ValidationError(_("This cannot be read: %(reason)s"), params={"reason": error}) from error

    def run_validators(self, value: Any) -> None:
        """Those of text have nothing to say about the value."""

    def bound_data(self, data: Any, initial: Any) -> Any:
        return initial if self.disabled else _Typed(data or "")

    def prepare_value(self, value: Any) -> str:
        return value if isinstance(value, _Typed) else json.dumps(value, indent=2, ensure_ascii=False)

    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            return bool(self.to_python(data) != initial)
        except ValidationError:
            return True


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _value in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(_("the key “%s” is there twice.") % twice[:100])
    return found


class ScheduledTaskForm(ModelForm):
    task = forms.ChoiceField(label=gettext_lazy("Task"), widget=TaskSelect)
    args = JSONValueField(
        label=gettext_lazy("Positional arguments"),
        empty=[],
        help_text=gettext_lazy('A JSON list, such as [1, "text"].'),
    )
    kwargs = JSONValueField(
        label=gettext_lazy("Keyword arguments"),
        empty={},
        help_text=gettext_lazy('A JSON object, such as {"name": "value"}.'),
    )
    queue = forms.ChoiceField(label=gettext_lazy("Queue"))

    class Meta:
        model = ScheduledTask
        fields = (
            "task_name",
            "active",
            "task",
            "args",
            "kwargs",
            "interval_count",
            "interval_type",
            "queue",
            "exchange",
            "routing_key",
            "priority",
        )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: The function and the queue of the row as it is, which it may keep.
        self.stored_task = self.instance.task if self.instance.pk else ""
        self.stored_queue = self.instance.queue if self.instance.pk else ""
        for name, setup in (
            ("task", self._offer_tasks),
            ("queue", self._offer_queues),
            ("interval_count", lambda field: _bounds(field, 1, MAX_INTERVAL)),
            ("priority", lambda field: _bounds(field, 0, get_settings().max_priority)),
        ):
            if name in self.fields:  # not in what somebody without the permission to change sees
                setup(self.fields[name])

    def _offer_tasks(self, field: Any) -> None:
        groups = registry.choices()
        known = {task.path: task for group in groups for task in group.tasks}
        choices: list[Any] = [("", _("– choose a function –"))]
        choices += [(group.module, [(task.path, _task_label(task)) for task in group.tasks]) for group in groups]
        if self.stored_task and self.stored_task not in known:
            note = _("%s (not registered)") % self.stored_task
            choices.append((_("Not registered"), [(self.stored_task, note)]))
        field.choices = choices
        field.widget.tasks = known
        field.error_messages["invalid_choice"] = _("“%(value)s” is no registered task.")
        field.help_text = _task_help(bool(known))

    def _offer_queues(self, field: Any) -> None:
        queues = get_settings().queues
        several = len({queue.host.address for queue in queues.values()}) > 1
        choices = [(name, f"{name} ({queue.host.address})" if several else name) for name, queue in queues.items()]
        if self.stored_queue and self.stored_queue not in queues:
            choices.append((self.stored_queue, _("%s (not in the settings)") % self.stored_queue))
            field.help_text = _("Nothing is published to a queue that is not in the settings. Choose another one.")
        elif not self.stored_queue:
            self.initial.setdefault("queue", "default" if "default" in queues else next(iter(queues), ""))
        field.choices = choices

    def clean(self) -> dict[str, Any] | None:
        """Who chose the function decides what it may be, which the model checks next.

        A schedule from code stays so while it keeps its function; any other choice is that of a person.
        """
        if not self.instance.pk or self.cleaned_data.get("task", self.stored_task) != self.stored_task:
            self.instance.origin = Origin.ADMIN
        return super().clean()

    def add_error(self, field: str | None, error: Any) -> None:
        """Leaves out what the model says of a function and a queue that are kept, and what follows from other errors.

        The model sees the row's old value where a field could not be read, so its words on that would mislead.
        """
        if field is None and hasattr(error, "error_dict"):
            told = set(self.errors)
            if told & {"task", "args", "kwargs"}:
                told |= {"args", "kwargs"}
            told |= {name for name in ("task", "queue") if self._keeps(name)}
            error = ValidationError({name: found for name, found in error.error_dict.items() if name not in told})
            if not error.error_dict:
                return
        super().add_error(field, error)

    def _keeps(self, name: str) -> bool:
        stored = {"task": self.stored_task, "queue": self.stored_queue}[name]
        return bool(stored) and self.cleaned_data.get(name) == stored


def _bounds(field: Any, low: int, high: int) -> None:
    field.validators = [MinValueValidator(low), MaxValueValidator(high)]
    field.widget.attrs.update(min=low, max=high)


def _task_label(task: registry.TaskChoice) -> str:
    summary = task.summary if len(task.summary) <= MAX_SUMMARY else f"{task.summary[:MAX_SUMMARY].rstrip()}…"
    return f"{task.name}{task.signature}{' – ' if summary else ''}{summary}"


def _task_help(any_known: bool) -> SafeString | str:
    """What has to be done where functions are missing here; empty where none is."""
    lines: list[tuple[str]] = []
    if not any_known:
        lines.append(
            (
                _(
                    "No task is registered. Mark functions with @carrot.task in tasks.py of an installed app, or name "
                    "their modules in the setting CARROT[\"task_modules\"], such as ['my_app.my_tasks']."
                ),
            )
        )
    lines += ((text,) for text in load_problems())
    return format_html_join("", '<span class="carrot-warning">{}</span>', lines)


def load_problems() -> Iterable[str]:
    """Why the tasks of some modules cannot be chosen, a line for each."""
    for module, reason in registry.load_errors().items():
        first = url_passwords_masked(reason.strip().split("\n", 1)[0])[:300]
        yield _("Without the tasks of %(module)s, which cannot be imported: %(reason)s") % {
            "module": module,
            "reason": first,
        }
