"""Breadth-first search through every world that can be reached, and what is found out about them."""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product

from tests.model import messages, services, workers
from tests.model.steps import HELPER, KEEPER, Calls, Steps
from tests.model.table import Violation
from tests.model.world import LIVE, NEW, Post, Worker, World, canonical, complaint, describe, is_over, is_owned


class Counterexample(AssertionError):
    """A shortest way to where something does not hold, in words."""


@dataclass(kw_only=True)
class Found:
    """What a search has seen."""

    worlds: int = 0
    transitions: int = 0
    #: Different calls of real verbs.
    calls: int = 0
    #: Steps from the beginning to the farthest world.
    depth: int = 0
    #: Steps that carrot needs by itself, at most, until every claim is in the memory of a live worker; and until all
    #: tasks have ended.
    to_an_owner: int = 0
    to_the_end: int = 0
    seconds: float = 0.0
    statuses: set[str] = field(default_factory=set)


class Edges:
    """Which world may follow which."""

    def __init__(self) -> None:
        self._sources = array("l")
        self._targets = array("l")

    def add(self, source: int, target: int) -> None:
        self._sources.append(source)
        self._targets.append(target)

    def distances(self, goals: list[bool]) -> list[int]:
        """Steps from each world to the nearest goal; -1 where no way leads to one."""
        before: list[list[int]] = [[] for _ in goals]
        for source, target in zip(self._sources, self._targets, strict=True):
            before[target].append(source)
        distances = [0 if goal else -1 for goal in goals]
        queue = deque(number for number, goal in enumerate(goals) if goal)
        while queue:
            number = queue.popleft()
            for source in before[number]:
                if distances[source] < 0:
                    distances[source] = distances[number] + 1
                    queue.append(source)
        return distances


class Search:
    def __init__(self, call: Calls) -> None:
        self._call = call
        self._worlds: list[World] = []
        self._numbers: dict[World, int] = {}
        self._parents = array("l")
        self._depths = array("l")
        #: What carrot does by itself, and the part of it that looks after claims of nobody.
        self._helped, self._kept = Edges(), Edges()

    def run(self) -> Found:
        """Sees every world. Raises :class:`Counterexample`."""
        begun = time.monotonic()
        found = Found()
        for first in self._first():
            self._number(first, -1)
        number = 0
        while number < len(self._worlds):  # it grows meanwhile
            found.transitions += self._expand(number)
            number += 1
        found.worlds, found.calls, found.depth = len(self._worlds), self._call.verbs.calls, max(self._depths)
        found.statuses = {row.status for world in self._worlds for row in world.rows}
        found.to_an_owner = self._farthest(
            is_owned, self._kept, "O: a claim is in no living worker's memory, and nobody will release it"
        )
        found.to_the_end = self._farthest(is_over, self._helped, "carrot does not bring this to an end by itself")
        found.seconds = time.monotonic() - begun
        return found

    def _first(self) -> list[World]:
        """Worlds in which the tasks have just been published, each to be run now or later."""
        verbs, size = self._call.verbs, self._call.size
        nothing = Post(0, 0, 0, False, False, 0)
        sent = nothing if size.rows_are_messages else nothing._replace(unsent=NEW)
        worker = Worker(LIVE, (0,) * size.tasks)
        worlds = []
        for chosen in product([(verbs.published(None), sent), (verbs.published(5.0), nothing)], repeat=size.tasks):
            rows, posts = zip(*chosen, strict=True)
            worlds.append(World(rows, posts, (worker, worker), False))
        return worlds

    def _steps(self, world: World) -> Steps:
        yield from services.steps(self._call, world)
        for task in range(self._call.size.tasks):
            yield from messages.steps(self._call, world, task)
        for number in (0, 1):
            yield from workers.steps(self._call, world, number)

    def _expand(self, number: int) -> int:
        world, count = self._worlds[number], 0
        try:
            for _words, kind, after in self._steps(world):
                count += 1
                if after == world:
                    continue
                to = self._number(after, number)
                if kind in (HELPER, KEEPER):
                    self._helped.add(number, to)
                if kind == KEEPER:
                    self._kept.add(number, to)
        except Violation as violation:
            raise self._counterexample(str(violation), number) from violation
        return count

    def _canonical(self, world: World) -> World:
        return canonical(world, tasks_alike=self._call.size.tasks_alike)

    def _number(self, world: World, parent: int) -> int:
        world = self._canonical(world)
        number = self._numbers.get(world)
        if number is None:
            number = self._numbers[world] = len(self._worlds)
            self._worlds.append(world)
            self._parents.append(parent)
            self._depths.append(self._depths[parent] + 1 if parent >= 0 else 0)
            if wrong := complaint(world, rows_are_messages=self._call.size.rows_are_messages):
                raise self._counterexample(wrong, number)
        return number

    def _farthest(self, good: Callable[[World], bool], edges: Edges, wrong: str) -> int:
        """Steps along ``edges`` from the farthest world to a good one. From every world there has to be a way."""
        distances = edges.distances([good(world) for world in self._worlds])
        if -1 in distances:
            raise self._counterexample(wrong, distances.index(-1))
        return max(distances)

    # -- in words -------------------------------------------------------------------------------------------------

    def _counterexample(self, wrong: str, number: int) -> Counterexample:
        """The shortest way to a world, and what a verb did there; with the same names from its beginning to its end."""
        way = [self._worlds[number]]
        while self._parents[number] >= 0:
            number = self._parents[number]
            way.append(self._worlds[number])
        world = next(first for first in self._first() if self._canonical(first) == way[-1])
        lines = ["The tasks are published:", describe(world)]
        for count, goal in enumerate(reversed(way[:-1]), 1):
            step = next(step for step in self._steps(world) if self._canonical(step.world) == goal)
            world = step.world
            lines.append(f"{count}. {step.words}")
        lines += ["Then:", describe(world)]
        # With the names of this way, which may be others than those of the search.
        wrong = complaint(world, rows_are_messages=self._call.size.rows_are_messages) or wrong
        try:
            deque(self._steps(world), maxlen=0)
        except Violation as violation:
            wrong = str(violation)
            lines.append(f"{len(way)}. {self._call.doing}: {violation}")
        return Counterexample("\n".join([wrong, *lines]))
