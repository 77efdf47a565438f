"""A task as a row: the truth about it from publish to its end."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db import models
from django.utils.translation import gettext_lazy as _

from carrot import clock
from carrot.message import MAX_PRIORITY, Message, uuid7
from carrot.models.columns import JSONTextField, PartialIndex
from carrot.models.managers import PrimaryManager
from carrot.models.transitions import MessageLogQuerySet

MessageLogManager = PrimaryManager.from_queryset(MessageLogQuerySet)


class Status(models.TextChoices):
    """Where a task stands. Each list of the monitor is one status, served by one index."""

    WAITING = "WAITING", _("Delayed")
    PUBLISHED = "PUBLISHED", _("Queued")
    IN_PROGRESS = "IN_PROGRESS", _("Running")
    COMPLETED = "COMPLETED", _("Completed")
    FAILED = "FAILED", _("Failed")
    CANCELLED = "CANCELLED", _("Withdrawn")
    HANDED_OVER = "HANDED_OVER", _("Handed over")


class Origin(models.TextChoices):
    """Who asked for a task. What did not come from code may only name registered tasks."""

    CODE = "code", _("code")
    ADMIN = "admin", _("admin")
    SCHEDULE = "schedule", _("schedule")
    MESSAGE = "message", _("message of another program")


class MessageLog(models.Model):
    """One task. Rows change only through the verbs of :class:`~carrot.models.transitions.MessageLogQuerySet`."""

    uuid = models.UUIDField(_("message id"), unique=True, editable=False, default=uuid7)
    status = models.CharField(_("status"), max_length=11, choices=Status.choices, default=Status.PUBLISHED)
    origin = models.CharField(_("origin"), max_length=8, choices=Origin.choices, default=Origin.CODE)

    task = models.CharField(_("task"), max_length=255)
    args = JSONTextField(_("positional arguments"), default=list)
    kwargs = JSONTextField(_("keyword arguments"), default=dict)

    broker = models.CharField(_("virtual host"), max_length=255, editable=False)
    queue = models.CharField(_("queue"), max_length=255)
    exchange = models.CharField(_("exchange"), max_length=255, blank=True)
    routing_key = models.CharField(_("routing key"), max_length=255, blank=True)
    priority = models.PositiveSmallIntegerField(_("priority"), default=0)

    publish_time = models.DateTimeField(_("published"), default=clock.now)
    start_time = models.DateTimeField(_("started"), null=True, blank=True)
    completion_time = models.DateTimeField(_("completed"), null=True, blank=True)
    failure_time = models.DateTimeField(_("failed"), null=True, blank=True)
    state_at = models.DateTimeField(_("last change of status"), default=clock.now)

    #: When the relay rings this row. NULL in a PUBLISHED row: a message is believed to be in the broker (or the row
    #: itself is the message, on the embedded broker). In a WAITING row: the time it becomes due.
    ring_at = models.DateTimeField(null=True, blank=True, editable=False)
    #: Raised by every claim, requeue and bell for a lost message, never lowered; the key of every compare-and-set in
    #: a claim's life, and of what the broker says of a message.
    fence = models.PositiveIntegerField(default=0, editable=False)
    worker = models.ForeignKey(
        "carrot.WorkerProcess",
        on_delete=models.DO_NOTHING,
        null=True,
        blank=True,
        db_constraint=False,  # a claim must not lock or check the worker's row for every task
        db_index=False,
        related_name="+",
        verbose_name=_("worker"),
    )
    tries = models.PositiveIntegerField(_("attempt"), default=0)
    crashes = models.PositiveIntegerField(_("worker deaths"), default=0)
    hand_backs = models.PositiveIntegerField(default=0, editable=False)
    note = models.CharField(_("why it waits"), max_length=255, blank=True)

    output = JSONTextField(_("output"), null=True, blank=True)
    log = models.TextField(_("log"), blank=True)
    exception = models.TextField(_("exception"), blank=True)
    traceback = models.TextField(_("traceback"), blank=True)

    objects = MessageLogManager()

    class Meta:
        verbose_name = _("task")
        verbose_name_plural = _("all tasks")
        permissions = [
            # What an operator may do to tasks; to delete them is Django's own permission.
            ("requeue_messagelog", "Can requeue tasks"),
            ("withdraw_messagelog", "Can withdraw tasks"),
            ("run_again_messagelog", "Can run completed tasks again"),
            ("purge_messagelog", "Can purge queues"),
        ]
        indexes = [
            # The lists of the monitor (filter, order and bounded count), retention, and the reaper's look at
            # IN_PROGRESS.
            models.Index(fields=["status", "-state_at", "-id"], name="carrot_status_list"),
            # The relay: what is to be rung, earliest first. Empty when all is well.
            PartialIndex("ring_at", where=models.Q(ring_at__isnull=False), name="carrot_ring"),
            # The embedded broker's claims, and the reconciler's count of waiting rows per queue.
            PartialIndex("queue", "-priority", "id", where=models.Q(status="PUBLISHED"), name="carrot_claim"),
        ]

    def __str__(self) -> str:
        return f"{self.task} {self.uuid}"

    @classmethod
    def from_message(cls, message: Message, *, broker: str, row_is_message: bool, ring_in: float) -> MessageLog:
        """The unsaved row of ``message``.

        ``ring_in``: seconds the publisher gets before the relay rings. ``row_is_message``: the embedded broker, where
        nothing has to be rung. Invariant W holds from the INSERT on: a row to be run now waits for its message (or is
        it), a later one for its time.
        """
        now = clock.now()
        later = message.run_after is not None and message.run_after > now
        if later:
            ring_at = message.run_after
        else:
            ring_at = None if row_is_message else now + timedelta(seconds=ring_in)
        return cls(
            uuid=message.uuid,
            status=Status.WAITING if later else Status.PUBLISHED,
            origin=message.origin,
            task=message.task,
            args=list(message.args),
            kwargs=dict(message.kwargs),
            broker=broker,
            queue=message.queue,
            exchange=message.exchange,
            routing_key=message.routing_key,
            priority=message.priority,
            publish_time=now,
            state_at=now,
            ring_at=ring_at,
        )

    def to_message(self) -> Message:
        """The message that rings this row (again).

        A task whose worker was lost has waited before: its message has a priority above that of the task, so that it
        does not stand behind a backlog once more.
        """
        # Each claim raises fence and tries, and a hand-back takes its try off again; whatever else has a row rung
        # again, as an operator, raises the fence alone.
        worker_lost = self.crashes > 0 or (self.tries > 0 and self.fence == self.tries + self.hand_backs)
        return Message(
            uuid=self.uuid,
            task=self.task,
            args=tuple(self.args),
            kwargs=self.kwargs,
            queue=self.queue,
            priority=min(self.priority + worker_lost, MAX_PRIORITY),
            exchange=self.exchange,
            routing_key=self.routing_key,
            origin=self.origin,
            fence=self.fence,
        )

    @property
    def virtual_host(self) -> str:
        """The broker's address, without user and password."""
        return self.broker

    @property
    def positionals(self) -> tuple[Any, ...]:
        """The positional arguments as the function receives them."""
        return tuple(self.args)

    @property
    def keywords(self) -> dict[str, Any]:
        """The keyword arguments as the function receives them."""
        return dict(self.kwargs)

    @property
    def worker_name(self) -> str:
        """The worker that has, or had, the latest attempt; its number where its own row is gone."""
        if self.worker_id is None:
            return ""
        from carrot.models.worker_process import WorkerProcess

        found = WorkerProcess.objects.filter(pk=self.worker_id).first()
        return str(found) if found else f"#{self.worker_id}"

    def requeue(self) -> MessageLog:
        """Has a failed or withdrawn task run again, as the same row; see ``carrot.operations.requeue``."""
        from carrot import operations  # the verb is above the models; 1.x has it as a method too

        operations.requeue([self.pk])
        self.refresh_from_db()
        return self
