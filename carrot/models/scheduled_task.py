"""A schedule as a row: which task is published how often.

The slots of a schedule are ``anchor + n × interval``: the times at which it is due. They follow from the schedule, not
from the last run, so they do not drift. ``next_run`` is the earliest slot that nobody has taken; taking it moves it
forward in the transaction that inserts the task's row, which is why no slot is published twice.

Two hands write a row. People and code own :data:`OWNED`: what ``save()`` writes. The scheduler owns the rest, and only
the verbs of ``slots.py`` change it, so that a form saved late never brings a slot back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models, router, transaction
from django.db.models import Q
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from carrot import registry
from carrot.arguments import encode_arguments
from carrot.conf import get_queue, get_settings
from carrot.exceptions import InvalidArguments, PublishError
from carrot.functions import function_at
from carrot.message import MAX_PRIORITY
from carrot.models.columns import JSONTextField, PartialIndex
from carrot.models.message_log import MessageLog, Origin
from carrot.models.slots import GRID, MAX_INTERVAL, MAX_NAME, UNITS, IntervalType, ScheduledTaskQuerySet, ahead
from carrot.not_json import bad_text
from carrot.signatures import signature_of

if TYPE_CHECKING:
    from carrot.message import Message


#: What people and code write.
OWNED = (
    "task_name",
    "task",
    "args",
    "kwargs",
    "interval_type",
    "interval_count",
    "queue",
    "exchange",
    "routing_key",
    "priority",
    "active",
    "origin",
)

_WITHIN_BOUNDS = Q()
for _name, _seconds in UNITS.items():
    _WITHIN_BOUNDS |= Q(interval_type=_name, interval_count__gte=1, interval_count__lte=MAX_INTERVAL // _seconds)


class ScheduledTask(models.Model):
    """A task that is published again and again, while a service runs."""

    task_name = models.CharField(_("name"), max_length=MAX_NAME, unique=True)
    task = models.CharField(_("task"), max_length=255)
    args = JSONTextField(_("positional arguments"), default=list, blank=True)
    kwargs = JSONTextField(_("keyword arguments"), default=dict, blank=True)

    interval_count = models.PositiveIntegerField(_("every"), default=1, validators=[MinValueValidator(1)])
    interval_type = models.CharField(_("unit"), max_length=7, choices=IntervalType.choices, default="seconds")
    queue = models.CharField(_("queue"), max_length=255, default="default")
    exchange = models.CharField(_("exchange"), max_length=255, blank=True)
    routing_key = models.CharField(
        _("routing key"), max_length=255, blank=True, help_text=_("The queue's name if left empty.")
    )
    priority = models.PositiveSmallIntegerField(
        _("priority"),
        default=0,
        validators=[MaxValueValidator(MAX_PRIORITY)],
        help_text=_("Higher runs first. 0: the priority of the task itself."),
    )
    active = models.BooleanField(_("active"), default=True)
    #: ``admin``: made by a person, so only registered tasks run. ``code``: any importable function.
    origin = models.CharField(
        _("origin"),
        max_length=8,
        editable=False,
        default=Origin.CODE,
        choices=[(Origin.CODE.value, Origin.CODE.label), (Origin.ADMIN.value, Origin.ADMIN.label)],
    )

    #: Where the slots begin, and the seconds between them, as ``next_run`` was computed with.
    anchor = models.DateTimeField(null=True, editable=False)
    period = models.PositiveIntegerField(default=0, editable=False)
    #: The earliest slot nobody has taken; NULL where inactive. Given at the creation of a row, it is the first slot.
    next_run = models.DateTimeField(_("next run"), null=True, blank=True, editable=False)
    #: The slot taken last, published or not (see ``problem``).
    last_slot = models.DateTimeField(null=True, editable=False)
    last_run = models.DateTimeField(_("last run"), null=True, blank=True, editable=False)
    #: By uuid, which is known before the INSERT; never checked, as finished tasks are deleted some day.
    last_message = models.ForeignKey(
        MessageLog,
        to_field="uuid",
        on_delete=models.DO_NOTHING,
        null=True,
        blank=True,
        editable=False,
        db_constraint=False,
        db_index=False,
        related_name="+",
        verbose_name=_("last task"),
    )
    problem = models.TextField(_("problem"), blank=True, editable=False)

    objects = ScheduledTaskQuerySet.as_manager()

    class Meta:
        verbose_name = _("scheduled task")
        verbose_name_plural = _("scheduled tasks")
        ordering = ("task_name",)
        permissions = [("run_scheduledtask", _("Can run scheduled task now"))]
        constraints = [
            models.CheckConstraint(
                condition=_WITHIN_BOUNDS,
                name="carrot_schedule_interval",
                violation_error_message=_("The interval has to be from 1 second to 10,000 days."),
            ),
        ]
        indexes = [PartialIndex("next_run", where=Q(next_run__isnull=False), name="carrot_schedule_due")]

    def __str__(self) -> str:
        return self.task_name

    @property
    def interval_display(self) -> str:
        """The interval for people: "Every 5 seconds", "Every day"."""
        count = self.interval_count
        texts = {
            "seconds": ngettext("Every second", "Every %(count)d seconds", count),
            "minutes": ngettext("Every minute", "Every %(count)d minutes", count),
            "hours": ngettext("Every hour", "Every %(count)d hours", count),
            "days": ngettext("Every day", "Every %(count)d days", count),
        }
        return texts.get(self.interval_type, "") % {"count": count}

    def slot_after(self, moment: datetime) -> datetime:
        """The first slot after ``moment``."""
        if self.anchor is None or not self.period:
            raise ValueError(f"The scheduled task {self.task_name!r} has no slots: it was never saved as active.")
        passed = (moment - self.anchor) // timedelta(seconds=self.period)
        return ahead(self.anchor, (passed + 1) * self.period)

    def find_last_message(self) -> MessageLog | None:
        """The task published last; None where there was none, or it has been deleted."""
        return MessageLog.objects.filter(uuid=self.last_message_id).first() if self.last_message_id else None

    # -- publishing -----------------------------------------------------------------------------------------------

    def publish(self, priority: int = 0) -> MessageLog:
        """Publishes the task now, active or not, and returns its row. The slots stay where they are.

        ``priority`` 0 stands for that of the schedule. Raises :class:`~carrot.exceptions.PublishError`, with nothing
        written.
        """
        from carrot import services  # the verb is above this module; the method is 1.x's

        return services.run_scheduled_task(self, priority)

    def to_message(self, priority: int = 0) -> Message:
        """What is published. Raises :class:`~carrot.exceptions.PublishError`.

        A schedule made in the admin names registered tasks only, now and when its task runs: nothing else is imported.
        """
        from carrot import services

        by_admin = self.origin == Origin.ADMIN
        if by_admin:
            registry.resolve(self.task, registered_only=True)
        message = services.create_message(
            self.task,
            self.queue,
            priority or self.priority,
            self.args or (),
            self.exchange,
            self.routing_key or None,
            self.kwargs or {},
        )
        return dataclasses.replace(message, origin=Origin.ADMIN if by_admin else Origin.SCHEDULE)

    def handle(self, now: datetime, message: Message | None, problem: str = "") -> None:
        """Notes, unsaved, that the next slot is taken: by ``message``, or by nothing because of ``problem``.

        Slots that were missed while no service ran are passed: the one that is taken stands for all of them.
        """
        self.last_slot, self.next_run = self.next_run, self.slot_after(now)
        self.problem = problem
        if message is not None:
            self.last_run, self.last_message_id = now, message.uuid

    # -- saving ---------------------------------------------------------------------------------------------------

    def save(
        self,
        force_insert: Any = False,
        force_update: bool = False,
        using: str | None = None,
        update_fields: Iterable[str] | None = None,
    ) -> None:
        """Writes what people own. Enabled, or with another interval, the schedule begins a fresh grid."""
        alias = using or router.db_for_write(type(self), instance=self)
        if self._state.adding or not self.pk or force_insert:
            # A first slot that was given is kept; without one, the row gets its grid below.
            self.anchor, self.period = self.next_run, UNITS.get(self.interval_type, 0) * (self.interval_count or 0)
        elif update_fields is None:
            update_fields = OWNED
        with transaction.atomic(using=alias):
            super().save(force_insert=force_insert, force_update=force_update, using=alias, update_fields=update_fields)
            if type(self).objects.using(alias).filter(pk=self.pk).realign():
                self.refresh_from_db(using=alias, fields=GRID)

    def clean(self) -> None:
        """Checks the row as a form needs it: each error at the field that is to be mended."""
        super().clean()
        self.args = [] if self.args is None else self.args
        self.kwargs = {} if self.kwargs is None else self.kwargs
        self.exchange, self.routing_key = self.exchange or "", self.routing_key or ""
        errors: dict[str, Any] = {}
        for field, check in (
            ("task_name", self._check_name),
            ("interval_count", self._check_interval),
            ("queue", lambda: get_queue(self.queue)),
            ("task", self._check_task),
        ):
            try:
                check()
            except (PublishError, ValidationError) as error:
                errors[field] = _reason(error)
        errors.update(self._argument_errors("task" not in errors))
        if errors:
            raise ValidationError(errors)
        priority: Any = self.priority
        if not isinstance(priority, int) or priority > MAX_PRIORITY:
            return  # told by the field itself
        try:
            self.to_message()
        except PublishError as error:
            raise ValidationError(str(error)) from error

    def _check_name(self) -> None:
        if fault := bad_text(str(self.task_name)):
            raise InvalidArguments(f"The name {fault}.")

    def _check_interval(self) -> None:
        seconds = UNITS.get(str(self.interval_type))
        count: Any = self.interval_count
        # This is called even if the count itself is missing or wrong.
        if seconds and isinstance(count, int) and count > MAX_INTERVAL // seconds:
            text = _("At most %(count)s: 10,000 days.")
            raise ValidationError(text, params={"count": f"{MAX_INTERVAL // seconds:,}"})

    def _check_task(self) -> None:
        if self.origin == Origin.ADMIN:
            registry.resolve(str(self.task), registered_only=True)
        registry.validate_task(self.task)

    def _argument_errors(self, task_is_known: bool) -> dict[str, Any]:
        """What is wrong with the arguments: their kind, their JSON, and whether the task takes them."""
        limit = get_settings().max_arguments_size
        if not isinstance(self.args, list):
            return {"args": _('A JSON list is needed, such as [1, "text"].')}
        if not isinstance(self.kwargs, dict):
            return {"kwargs": _('A JSON object is needed, such as {"name": "value"}.')}
        for field, args, kwargs in (("args", self.args, {}), ("kwargs", [], self.kwargs)):
            try:
                encode_arguments(args, kwargs, limit)
            except PublishError as error:
                return {field: str(error)}
        if task_is_known:
            try:
                registry.check_call(self.task, self.args, self.kwargs)
            except PublishError as error:
                return {self._field_of_mismatch(): str(error)}
        return {}

    def _field_of_mismatch(self) -> str:
        """The field to mend: the positional arguments where they are what does not fit, or all there is."""
        if self.args and not self.kwargs:
            return "args"
        signature = signature_of(function_at(self.task))
        try:
            if signature is not None:
                signature.bind_partial(*self.args)
        except TypeError:
            return "args"
        return "kwargs"


def _reason(error: PublishError | ValidationError) -> Any:
    return error if isinstance(error, ValidationError) else str(error)
