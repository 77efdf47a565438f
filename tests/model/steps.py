"""What every step needs: the size of the world, the kinds of steps, and a way to call a verb."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from tests.model.changes import posted, raised
from tests.model.verbs import Verbs
from tests.model.world import World

#: What carrot does by itself, sooner or later; a part of that is to look after claims of nobody.
HELPER, KEEPER = "helper", "keeper"
#: What may happen or not, what goes wrong, and what an operator does.
CHOICE, FAULT, OPERATOR = "choice", "fault", "operator"


class Step(NamedTuple):
    """One thing that may happen next."""

    words: str
    kind: str
    world: World


Steps: TypeAlias = Iterator[Step]


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of the world there is. Workers are two; everything below may happen any number of times."""

    tasks: int = 1
    #: Messages of one task that may be in the queue or at workers at one time.
    messages: int = 1
    #: The embedded broker: the rows are the messages.
    rows_are_messages: bool = False
    #: Other programs consume the queue.
    handed_over: bool = False
    #: Withdraw, Requeue, Purge, and everything rung again.
    operators: bool = True
    #: Tasks fail as well as complete.
    failures: bool = True
    #: How many workers at one time may have been declared lost and live on.
    zombies: int = 2
    #: Confirms arrive after the next claim of their row.
    late_confirms: bool = True
    #: Messages are sent after the next claim of their row; and a claim comes between the relay's statement and what the
    #: relay does next. Without, what is not sent before the claim is not sent: it is only one bell too many.
    late_messages: bool = False
    #: The database commits and its answer is lost; it refuses a statement; an acknowledgement is lost.
    lost_answers: bool = False
    #: Claims are committed after the death of their worker.
    late_claims: bool = False
    #: Something comes in between a reaper's look and what it does.
    slow_reapers: bool = False
    #: Workers are killed by what they run.
    blame: bool = False
    #: The clock of one relay is a day ahead.
    wrong_clock: bool = False
    #: The reconciler's markers.
    markers: bool = False

    @property
    def tasks_alike(self) -> bool:
        # The embedded broker claims the older one first.
        return not self.rows_are_messages


class Calls:
    """Calls verbs in worlds. ``doing`` says which one: a verb may find a violation."""

    def __init__(self, verbs: Verbs, size: Size) -> None:
        self.verbs = verbs
        self.size = size
        self.doing = ""

    def __call__(self, world: World, words: str, verb: Callable[..., Any], *arguments: Any) -> tuple[World, Any]:
        """The world after ``verb(*arguments)``, and its answer."""
        self.doing = words
        effect = self.verbs.do(world, verb, *arguments)
        after = World(effect.rows, world.posts, world.workers, world.marker)
        for task, is_raised in enumerate(effect.raised):
            if is_raised:
                after = raised(after, task, keep_confirm=self.size.late_confirms, keep_unsent=self.size.late_messages)
        for task, age in () if self.size.rows_are_messages else effect.rung:
            after = posted(after, task, unsent=age)
        return after, effect.answer

    def step(self, world: World, kind: str, words: str, verb: Callable[..., Any], *arguments: Any) -> Step:
        """A step that is a verb and nothing else."""
        return Step(words, kind, self(world, words, verb, *arguments)[0])
