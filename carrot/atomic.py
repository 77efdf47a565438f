"""Tasks whose work and whose end are one transaction: ``@carrot.task(atomic=True)``.

Receives from the executor what runs the function; hands back an outcome that is written already. Either the function's
work in the database and the word COMPLETED are committed together, or neither is: whatever dies, and however often the
task is begun, its work there counts once.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable

from django.db import Error as DatabaseFailure
from django.db import connections, transaction

from carrot import database
from carrot.models import MessageLog, Status
from carrot.models.claim import Claim, Outcome

logger = logging.getLogger(__name__)

#: Attempts in a row whose transaction the database may break off before the task is FAILED like any other. With the
#: delays they take a minute: a database that fails over has calmed down by then.
MAX_BROKEN = 8
#: Seconds until the next attempt after the first that was broken off, about; doubled with each.
FIRST_DELAY = 0.5
#: Share of a delay by which it differs from task to task: those broken off together shall not meet again.
JITTER = 0.25
#: Seconds between tries to learn what became of a transaction while the database is away.
RETRY = 0.5


class Superseded(Exception):
    """The claim was released while the function ran; what it did in the database is undone."""


def run_atomic(claim: Claim, completed: Callable[[], Outcome], broken: Callable[[BaseException], Outcome]) -> Outcome:
    """Calls ``completed``, which runs the function, and commits its work together with the outcome it returns.

    ``broken`` makes the outcome PUBLISHED of an attempt that the database broke off (a lost connection, a deadlock): it
    left nothing behind, so the task runs again. Raises what the function raised, with nothing committed, and
    :class:`Superseded`.

    Who else may touch the row: the reaper, if this worker was declared lost, and whoever claims it then. The outcome
    compares the fence in the transaction of the work, so of two that ran, one is committed.
    """
    alias = database.alias()
    outcome: Outcome | None = None
    session: object = None
    committed = False

    def note() -> None:
        nonlocal committed
        committed = True

    try:
        with transaction.atomic(using=alias):
            session = connections[alias].connection
            transaction.on_commit(note, using=alias)  # the first of all: called where the COMMIT went well
            outcome = completed()
            if not MessageLog.objects.complete(outcome):
                raise Superseded("the task was released meanwhile; what it did in the database is undone")
    except BaseException as error:
        if committed and outcome is not None:
            logger.exception("%s %s is completed; what it gave to on_commit() raised.", claim.task, claim.uuid)
            return outcome
        # Counted over the life of the row: one that was requeued gets as many again.
        if not database.broke_off(error, alias, session) or claim.tries % MAX_BROKEN == 0:
            raise
        if _released(claim, error):
            return broken(error)
        if outcome is None or not _stands(claim):
            raise
    return outcome


def _released(claim: Claim, error: BaseException) -> bool:
    """Gives the claim up; waits for a database that is away. False: it was not ours to give any more.

    A COMMIT whose answer was lost may still be on its way through the server: the row is locked until it is decided, so
    this statement learns the truth, which a mere look would not.
    """
    delay = FIRST_DELAY * 2 ** ((claim.tries - 1) % MAX_BROKEN) * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
    note = f"the database broke off its transaction: {' '.join(str(error).split())}"
    return bool(_patiently(lambda: MessageLog.objects.release([(claim.id, claim.fence)], ring_in=delay, note=note)))


def _stands(claim: Claim) -> bool:
    """Whether the very transaction whose COMMIT raised is committed all the same."""
    own = MessageLog.objects.filter(pk=claim.id, fence=claim.fence, status=Status.COMPLETED)
    return bool(_patiently(own.count))


def _patiently(statement: Callable[[], int]) -> int:
    complain = database.Complaint(logger)
    database.drop_broken()
    while True:
        try:
            return statement()
        except DatabaseFailure as error:
            complain("An atomic task waits for the database: %s", str(error).strip())
            database.drop_broken()
            time.sleep(RETRY)
