"""What a confirmation page has asked, so that exactly this is done once it is answered.

Signed, because its answer comes from a browser.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.core import signing
from django.db.models import Max, QuerySet

from carrot import clock
from carrot.admin.verbs import Verb
from carrot.message import uuid7
from carrot.models import MessageLog

#: Seconds for which an answer is taken.
MAX_AGE = 86_400


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """The question: so many tasks, as they were at that moment. ``more``: they were not counted to the end."""

    number: int
    more: bool
    until: datetime
    last: int
    token: UUID

    @classmethod
    def of(cls, number: int, *, more: bool = False) -> Confirmation:
        """A question about what there is now."""
        last = MessageLog.objects.aggregate(last=Max("pk"))["last"] or 0
        return cls(number=number, more=more, until=clock.now(), last=last, token=uuid7())

    def bound(self, tasks: QuerySet[Any]) -> QuerySet[Any]:
        """Those of ``tasks`` that are now as they were then: none that came, or changed its status, since."""
        return tasks.filter(state_at__lte=self.until, pk__lte=self.last)

    def sealed(self, verb: Verb) -> str:
        """The question as a text that only this verb can open."""
        content = [self.number, self.more, self.until.isoformat(), self.last, self.token.hex]
        return signing.dumps(content, salt=f"carrot.{verb.name}")


def opened(text: str, verb: Verb) -> Confirmation | None:
    """The question that was answered; None where the text is none of ours, or is too old."""
    try:
        number, more, until, last, token = signing.loads(text, salt=f"carrot.{verb.name}", max_age=MAX_AGE)
    except signing.BadSignature:
        return None
    return Confirmation(number=number, more=more, until=datetime.fromisoformat(until), last=last, token=UUID(hex=token))
