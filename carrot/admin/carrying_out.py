"""Doing what an operator asked for: the operation, the admin log, and the sentence about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import router, transaction
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from carrot import clock
from carrot.admin import display
from carrot.admin.verbs import Verb
from carrot.models import MessageLog
from carrot.operations import SLICE, Result

#: Tasks up to which each gets an entry of its own in the admin log.
LOGGED_EACH = 100

#: Reasons that a message tells, the commonest first.
REASONS = 10

#: Seconds one request works. Web servers end those of half a minute, and the admin log is to be written before.
TIME = 20.0


def carry_out(verb: Verb, ids: Sequence[int], token: UUID, user: Any, where: str = "") -> Result:
    """Does it to the tasks ``ids`` and writes it into the admin log, whatever happens on the way.

    ``where``: which tasks these are, in words.
    """
    return _each(verb, ids, token, user) if len(ids) <= LOGGED_EACH else _many(verb, ids, token, user, where)


def _each(verb: Verb, ids: Sequence[int], token: UUID, user: Any) -> Result:
    """A few tasks: done and logged in one transaction."""
    result = Result()
    with transaction.atomic(using=router.db_for_write(MessageLog)):
        rows = MessageLog.objects.only("pk", "task", "uuid").in_bulk(ids)
        done = []
        for pk in ids:
            one = verb.run([pk], token)
            result.done += one.done
            result.skipped += one.skipped
            if one.done and pk in rows:
                done.append(rows[pk])
        if done:
            LogEntry.objects.log_actions(user.pk, done, verb.flag, str(verb.entry))
    return result


def _many(verb: Verb, ids: Sequence[int], token: UUID, user: Any, where: str) -> Result:
    """Many tasks: in short transactions, and one entry for all."""
    result = Result()
    end = clock.monotonic() + TIME
    try:
        for start in range(0, len(ids), SLICE):
            if clock.monotonic() > end:
                cure = _("repeat the action for them") if verb.repeatable else _("filter the list for them")
                reason = f"{_('not reached in the time of one request')}; {cure}"
                result.skipped[reason] += len(ids) - start
                break
            some = verb.run(ids[start : start + SLICE], token)
            result.done += some.done
            result.skipped += some.skipped
    finally:
        log_summary(user, verb.flag, f"{verb.says(result.done)} {where}".strip())
    return result


def log_summary(user: Any, flag: int, text: str) -> None:
    """One entry in the admin log for what was done to no task in particular."""
    LogEntry.objects.create(
        user_id=user.pk,
        content_type=ContentType.objects.get_for_model(MessageLog),
        object_repr=text[:200],
        action_flag=flag,
        change_message=text,
    )


def report(request: HttpRequest, verb: Verb, result: Result) -> None:
    """Says on the next page what was done, and what was not, and why."""
    text = verb.says(result.done) if result.done else _("Nothing was changed.")
    if result.skipped:
        number = sum(result.skipped.values())
        skipped = ngettext("%(number)s task was skipped:", "%(number)s tasks were skipped:", number)
        reasons = [f"{reason} ({display.count(count)})" for reason, count in result.skipped.most_common(REASONS)]
        if len(result.skipped) > REASONS:
            reasons.append("…")
        text = f"{text} {skipped % {'number': display.count(number)}} {'; '.join(reasons)}."
    level = messages.SUCCESS if result.done and not result.skipped else messages.WARNING
    messages.add_message(request, level, text)
