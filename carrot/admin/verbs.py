"""What an operator can do to tasks: the words of the monitor for it, and the operation behind each.

A verb's name is that of the action in the lists, and of the permission it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.contrib.admin.models import CHANGE, DELETION
from django.utils.translation import gettext_lazy, ngettext_lazy

from carrot import operations
from carrot.admin import display
from carrot.admin.copies import run_again
from carrot.models import Status
from carrot.operations import Result


@dataclass(frozen=True, kw_only=True)
class Verb:
    """One thing that can be done to tasks, any number of them."""

    #: that of the permission, ``<name>_messagelog``
    name: str
    #: that of the action of a list
    action: str
    #: the last part of the address of one task's own button
    slug: str
    label: Any
    question: Any
    explanation: Any
    done: Any
    #: what the admin log says about each task
    entry: Any
    flag: int = CHANGE
    #: the statuses from which it starts
    starts_from: tuple[str, ...]
    #: Whether tasks it is done to have another status then, so that one may repeat it to go on with the others.
    repeatable: bool = True
    #: Does it to tasks given by their keys; the token tells one press of a button from another.
    run: Callable[[Sequence[int], UUID], Result]

    def asks(self, number: int, *, more: bool = False) -> str:
        """The question, with the number of tasks; ``more``: there are at least so many."""
        return str(self.question % {"count": number, "number": at_least(number, more=more)})

    def says(self, number: int) -> str:
        """What was done."""
        return str(self.done % {"count": number, "number": display.count(number)})


def at_least(number: int, *, more: bool) -> Any:
    """``3``, or ``at least 10,000``."""
    text = display.count(number)
    return gettext_lazy("at least %s") % text if more else text


REQUEUE = Verb(
    name="requeue",
    action="requeue",
    slug="requeue",
    label=gettext_lazy("Requeue"),
    question=ngettext_lazy("Requeue %(number)s task?", "Requeue %(number)s tasks?", "count"),
    explanation=gettext_lazy(
        "Failed and withdrawn tasks are run again, with the same arguments. What their last attempt left (log, "
        "exception and traceback) is kept as an earlier attempt. Tasks in any other status are skipped."
    ),
    done=ngettext_lazy("%(number)s task was requeued.", "%(number)s tasks were requeued.", "count"),
    entry=gettext_lazy("Requeued."),
    starts_from=(Status.FAILED, Status.CANCELLED),
    run=lambda ids, token: operations.requeue(ids),
)

WITHDRAW = Verb(
    name="withdraw",
    action="withdraw",
    slug="withdraw",
    label=gettext_lazy("Withdraw"),
    question=ngettext_lazy("Withdraw %(number)s task?", "Withdraw %(number)s tasks?", "count"),
    explanation=gettext_lazy(
        "Tasks that wait are not run. They are kept as withdrawn, and can be requeued. Tasks that run already go on."
    ),
    done=ngettext_lazy("%(number)s task was withdrawn.", "%(number)s tasks were withdrawn.", "count"),
    entry=gettext_lazy("Withdrawn."),
    starts_from=operations.WAITING,
    run=lambda ids, token: operations.withdraw(ids),
)

RUN_AGAIN = Verb(
    name="run_again",
    action="run_again",
    slug="run-again",
    label=gettext_lazy("Run again"),
    question=ngettext_lazy("Run %(number)s task again?", "Run %(number)s tasks again?", "count"),
    explanation=gettext_lazy(
        "Each completed task is published once more, as a new task with the same arguments, queue and priority. The "
        "completed one stays as it is. Tasks in any other status are skipped."
    ),
    done=ngettext_lazy("%(number)s task was published again.", "%(number)s tasks were published again.", "count"),
    entry=gettext_lazy("Run again, as a new task."),
    starts_from=(Status.COMPLETED,),
    repeatable=False,
    run=run_again,
)

DELETE = Verb(
    name="delete",
    action="delete_selected",
    slug="delete",
    label=gettext_lazy("Delete"),
    question=ngettext_lazy("Delete %(number)s task?", "Delete %(number)s tasks?", "count"),
    explanation=gettext_lazy(
        "Tasks that are over are deleted, with their logs and earlier attempts. This cannot be undone. Tasks that wait "
        "or run are skipped: withdraw them first."
    ),
    done=ngettext_lazy("%(number)s task was deleted.", "%(number)s tasks were deleted.", "count"),
    entry=gettext_lazy("Deleted."),
    flag=DELETION,
    starts_from=operations.FINAL,
    run=lambda ids, token: operations.delete(ids),
)

#: In the order of the buttons.
VERBS = (REQUEUE, RUN_AGAIN, WITHDRAW, DELETE)
