"""Steps of what runs once a service, and of operators: relay, reconciler, reaper; Withdraw, Requeue, Purge."""

from __future__ import annotations

from tests.model.changes import posted
from tests.model.steps import FAULT, HELPER, KEEPER, OPERATOR, Calls, Step, Steps
from tests.model.world import ABSURD, DUE, LATER, LIVE, NEW, SILENT, ZOMBIE, World


def steps(call: Calls, world: World) -> Steps:
    yield from _bells(call, world)
    yield from _reconciler(call, world)
    yield from _reaper(call, world)
    if call.size.operators:
        yield from _operators(call, world)


def _bells(call: Calls, world: World) -> Steps:
    verbs, bells = call.verbs, [row.bell for row in world.rows]
    for task, bell in enumerate(bells):
        if bell == LATER:
            rows = tuple(row._replace(bell=DUE) if each == task else row for each, row in enumerate(world.rows))
            yield Step(f"the bell of task {'AB'[task]} comes due", HELPER, world._replace(rows=rows))
    if DUE in bells:
        yield call.step(world, HELPER, "the relay rings what is due", verbs.relay, False)
    if call.size.wrong_clock and any(bells):
        yield call.step(
            world, FAULT, "a relay whose clock is a day ahead rings what it takes for due", verbs.relay, True
        )
    if ABSURD in bells:
        yield call.step(world, HELPER, "the relay looks for bells that a wrong clock has set", verbs.rewind)


def _reconciler(call: Calls, world: World) -> Steps:
    if not call.size.rows_are_messages and any(row[:2] == ("PUBLISHED", SILENT) for row in world.rows):
        words = "the reconciler looks twice"
        ready = sum(post.ready for post in world.posts)
        after, markers = call(world, words, call.verbs.reconcile, ready)
        marker = world.marker or (call.size.markers and markers > 0)
        yield Step(words, HELPER, after._replace(marker=marker))
    if world.marker:
        rest = world._replace(marker=False)
        yield Step("the marker is lost", FAULT, rest)
        for number, worker in enumerate(world.workers):
            if worker.process in (LIVE, ZOMBIE):
                words = f"worker {number + 1} receives the marker"
                yield call.step(rest, HELPER, words, call.verbs.take_marker, number)


def _reaper(call: Calls, world: World) -> Steps:
    if any(row.status == "IN_PROGRESS" for row in world.rows):
        words = "a reaper looks for claims without a living worker"
        after, found = call(world, words, call.verbs.orphans)
        for task in found:
            after = posted(after, task, doomed=NEW)
        yield Step(words, KEEPER, after if call.size.slow_reapers else _released(call, after, words))
    if any(post.doomed for post in world.posts):
        words = "a reaper releases the claims that it has found"
        yield Step(words, KEEPER, _released(call, world, words))


def _released(call: Calls, world: World, words: str) -> World:
    for task, post in enumerate(world.posts):
        if post.doomed:
            world, _ = call(posted(world, task, doomed=0), words, call.verbs.release, task, post.doomed, 0.0)
    return world


def _operators(call: Calls, world: World) -> Steps:
    verbs = call.verbs
    for task in range(call.size.tasks):
        yield call.step(world, OPERATOR, f"an operator withdraws task {'AB'[task]}", verbs.withdraw, task)
        yield call.step(world, OPERATOR, f"an operator requeues task {'AB'[task]}", verbs.requeue, task)
    purged = world
    for task, (post, row) in enumerate(zip(world.posts, world.rows, strict=True)):
        # The broker's part of a purge takes messages that were confirmed, as a loss does.
        lost = post.lost or (post.ready > 0 and row.status in ("PUBLISHED", "CANCELLED"))
        purged = posted(purged, task, ready=0, lost=lost)
    yield call.step(purged, OPERATOR, "an operator purges the queue", verbs.purge)
    yield call.step(world, OPERATOR, "an operator has everything rung again", verbs.requeue_all)
