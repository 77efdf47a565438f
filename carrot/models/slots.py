"""The slots of schedules: which are due, who takes them, and where a grid begins.

Who else may touch a row at that moment: the schedulers of other services, and ``save()`` in any process. Each verb is
one statement or one transaction that tests the state it starts from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.db import OperationalError, connections, models, router, transaction
from django.db.models import Case, F, Q, Value, When
from django.utils.translation import gettext_lazy as _

from carrot import clock
from carrot.exceptions import InvalidArguments
from carrot.not_json import short

if TYPE_CHECKING:
    from carrot.models.scheduled_task import ScheduledTask


class IntervalType(models.TextChoices):
    """The units of an interval. A day is 24 hours, whatever the clocks of a place do."""

    SECONDS = "seconds", _("seconds")
    MINUTES = "minutes", _("minutes")
    HOURS = "hours", _("hours")
    DAYS = "days", _("days")


#: The units in seconds.
UNITS = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86_400}
#: Seconds of the longest interval: 10,000 days. Its slots are dates that every database has.
MAX_INTERVAL = 864_000_000

#: Characters of the name of a schedule.
MAX_NAME = 200

#: What makes the slots; written by a fresh grid.
GRID = ("anchor", "period", "next_run")
#: What is written for a slot that was taken, besides ``last_slot``.
HANDLED = ("next_run", "last_run", "last_message", "problem")


def ahead(moment: datetime, seconds: int) -> datetime:
    """The time so many seconds later; the last one there is, which never comes, if that is past it."""
    try:
        return moment + timedelta(seconds=seconds)
    except OverflowError:
        return datetime.max.replace(tzinfo=moment.tzinfo)


def parse_interval(interval: object) -> tuple[str, int]:
    """Unit and count of ``{"seconds": 5}``. Raises `InvalidArguments` for anything else."""
    cure = 'Give a dict with one unit and a whole number, such as {"seconds": 5}; the units are ' + ", ".join(UNITS)
    if not isinstance(interval, Mapping):
        raise InvalidArguments(f"The interval is {short(interval)}, not a dict. {cure}.")
    if len(interval) != 1:
        raise InvalidArguments(f"The interval {short(interval)} has {len(interval)} units, not one. {cure}.")
    [(unit, count)] = interval.items()
    if unit not in UNITS:
        raise InvalidArguments(f"The interval has the unknown unit {short(unit)}. {cure}.")
    if not isinstance(count, int) or isinstance(count, bool):
        raise InvalidArguments(f"The interval has {short(count)} {unit}, which is no whole number. {cure}.")
    if not 1 <= count <= MAX_INTERVAL // UNITS[unit]:
        most = MAX_INTERVAL // UNITS[unit]
        raise InvalidArguments(f"The interval is {short(count)} {unit}; 1 to {most:,} are allowed. {cure}.")
    return unit, count


class ScheduledTaskQuerySet(models.QuerySet["ScheduledTask"]):
    """Queries and transitions of schedules."""

    def due(self, now: datetime) -> ScheduledTaskQuerySet:
        """Schedules with a slot that has come. Not those without a grid, which :meth:`realign` gives them."""
        return self.filter(active=True, next_run__lte=now, anchor__isnull=False, period__gt=0)

    def earliest_slot(self) -> datetime | None:
        """The next slot of all; None where nothing is scheduled."""
        slots = self.filter(active=True, next_run__isnull=False).order_by("next_run")
        return slots.values_list("next_run", flat=True).first()

    def take_due(self, now: datetime, limit: int) -> list[ScheduledTask]:
        """Up to ``limit`` due schedules, earliest first, locked until the end of the caller's transaction.

        Rows that another transaction holds are passed over, where the database can: they are being published, or
        edited, and are looked at again soon.
        """
        features = connections[self.db_for_change()].features
        rows = self.due(now).order_by("next_run")
        if features.has_select_for_update:
            return list(rows.select_for_update(skip_locked=features.has_select_for_update_skip_locked)[:limit])
        # SQLite: the one write lock, taken before the first read; a transaction that reads first may be refused it.
        self.filter(pk=0).update(active=F("active"))
        return list(rows[:limit])

    def advance(self, rows: Sequence[ScheduledTask], now: datetime) -> None:
        """Writes what :meth:`ScheduledTask.handle` noted in ``rows``, which :meth:`take_due` gave.

        Compares again: where one of them is no longer due, somebody else has taken its slot. Raises
        ``OperationalError`` then, and the caller's transaction takes nothing.
        """
        if not rows:
            return
        ours = self.due(now).filter(pk__in=[row.pk for row in rows])
        if ours.update(last_slot=F("next_run")) != len(rows):
            raise OperationalError("Another service has taken a slot that was locked here; nothing was published.")
        # One short statement for each row, sent together. As one statement (CASE for each value, as bulk_update writes
        # it) 1,000 rows take PostgreSQL two seconds.
        connection = connections[self.db_for_change()]
        quote = connection.ops.quote_name
        fields: list[Any] = [self.model._meta.get_field(name) for name in (*HANDLED, "id")]
        values = ", ".join(f"{quote(field.column)} = %s" for field in fields[:-1])
        sql = f"UPDATE {quote(self.model._meta.db_table)} SET {values} WHERE {quote('id')} = %s"  # noqa: S608
        with connection.cursor() as cursor:
            cursor.executemany(
                sql,
                [[field.get_db_prep_save(getattr(row, field.attname), connection) for field in fields] for row in rows],
            )

    def enable(self) -> int:
        """Inactive -> active, on a fresh grid: the first run comes one interval from now. Returns how many."""
        with transaction.atomic(using=self.db_for_change()):
            enabled = self.filter(active=False).update(active=True, next_run=None)
            self.realign()
        return enabled

    def disable(self) -> int:
        """Active -> inactive: no further slot is published. Returns how many."""
        return self.filter(active=True).update(active=False, next_run=None)

    def realign(self) -> int:
        """Gives a fresh grid, which begins now, to schedules whose next slot does not follow from their settings: they
        were enabled, or given another interval. Takes the next slot from those that were disabled.

        ``save()`` does this at once, and the scheduler for rows changed in any other way. Idempotent; one statement
        for each interval in question.
        """
        now = clock.now()
        seconds = Case(*(When(interval_type=name, then=Value(size)) for name, size in UNITS.items()), default=Value(0))
        no_grid = Q(active=True) & (Q(next_run__isnull=True) | ~Q(period=F("interval_count") * seconds))
        stale = self.filter(no_grid | Q(active=False, next_run__isnull=False))
        changed = 0
        kinds = stale.order_by().values_list("active", "interval_type", "interval_count").distinct()
        for active, unit, count in list(kinds):
            period = UNITS[unit] * count
            next_run = ahead(now, period) if active else None
            changed += stale.filter(active=active, interval_type=unit, interval_count=count).update(
                anchor=now, period=period, next_run=next_run
            )
        return changed

    def rewind(self) -> int:
        """Takes back slots further away than the interval: a service whose clock ran ahead has set them.

        To the first slot of the grid that is after now, and after the last one handled: none is published twice.
        """
        now = clock.now()
        changed = 0
        for row in self.filter(active=True, next_run__gt=now, anchor__lte=now).only(*GRID, "last_slot"):
            slot = row.slot_after(max(now, row.last_slot or now))
            if row.next_run is not None and slot < row.next_run:
                same = self.filter(pk=row.pk, active=True, next_run=row.next_run, period=row.period)
                changed += same.update(next_run=slot)
        return changed

    def db_for_change(self) -> str:
        """The alias this queryset writes to."""
        return self._db or router.db_for_write(self.model)  # type: ignore[attr-defined]
