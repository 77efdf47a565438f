"""The numbers on the first page of the monitor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.http import HttpRequest
from django.utils.translation import gettext as _

from carrot.admin import display
from carrot.admin.access import let_in
from carrot.admin.paginator import CAP
from carrot.admin.task_lists import hindrances
from carrot.models import CompletedTask, DelayedTask, FailedTask, QueuedTask, RunningTask, WorkerProcess

#: The lists that are counted, in this order.
COUNTED: tuple[Any, ...] = (QueuedTask, RunningTask, FailedTask, CompletedTask, DelayedTask)


@dataclass(frozen=True, kw_only=True)
class Card:
    """A number, and the list it counts."""

    label: str
    number: str
    url: str
    alarming: bool = False


@dataclass(frozen=True, kw_only=True)
class Overview:
    cards: list[Card]
    notices: list[Any] = field(default_factory=list)


def overview_of(request: HttpRequest, app_list: Iterable[Mapping[str, Any]]) -> Overview:
    """The numbers of the lists in ``app_list``, which the admin made for this person; each is counted up to a cap."""
    if not let_in(request):
        return Overview(cards=[])
    shown = {model["model"]: model for app in app_list for model in app["models"]}
    cards = []
    for model in COUNTED:
        if model in shown:
            number = model.objects.order_by().values("pk")[: CAP + 1].count()
            cards.append(
                Card(
                    label=str(shown[model]["name"]),
                    number=display.count(min(number, CAP), more=number > CAP),
                    url=shown[model]["admin_url"],
                    alarming=model is FailedTask and number > 0,
                )
            )
    if WorkerProcess in shown:
        alive = WorkerProcess.objects.alive().count()
        url = shown[WorkerProcess]["admin_url"] + "?state=alive"
        cards.append(Card(label=_("Workers alive"), number=display.count(alive), url=url, alarming=not alive))
    return Overview(cards=cards, notices=hindrances(request) if QueuedTask in shown else [])
