"""Steps of messages, between the publisher, the broker and the workers."""

from __future__ import annotations

from tests.model.changes import changed, placed, posted
from tests.model.steps import CHOICE, FAULT, HELPER, Calls, Step, Steps
from tests.model.world import LIVE, OLD, ZOMBIE, World


def steps(call: Calls, world: World, task: int) -> Steps:
    post = world.posts[task]
    if post.unsent:
        yield from _sending(call, world, task)
    if post.confirm:
        which = f"the confirm of task {'AB'[task]}{', sent before its last claim,' * (post.confirm == OLD)}"
        rest = posted(world, task, confirm=0)
        yield call.step(rest, HELPER, f"{which} is written", call.verbs.confirm, task, post.confirm)
        yield Step(f"{which} is lost", FAULT, rest)
    if post.ready:
        yield from _delivery(world, task)
    if post.late:
        rest = posted(world, task, late=False)
        which = f"the claim of task {'AB'[task]} by a process that is gone"
        yield call.step(rest, CHOICE, f"{which} is committed", call.verbs.claim_late, task)
        yield Step(f"{which} is rolled back", CHOICE, rest)


def _sending(call: Calls, world: World, task: int) -> Steps:
    post, which = world.posts[task], f"the message of task {'AB'[task]}"
    rest = posted(world, task, unsent=0)
    there = post.ready + sum(worker.delivered[task] for worker in world.workers)
    if there < call.size.messages:
        # The newest confirm counts; an earlier one might as well be lost.
        newest = min(age for age in (post.unsent, post.confirm) if age)
        sent = posted(rest, task, ready=post.ready + 1, confirm=newest)
        yield Step(f"{which} is sent, and the broker confirms it", HELPER, sent)
    yield Step(f"{which} is not sent: its process dies, or the broker is away", FAULT, rest)
    yield call.step(rest, FAULT, f"{which} is returned as unroutable", call.verbs.return_unroutable, task)


def _delivery(world: World, task: int) -> Steps:
    post = world.posts[task]
    rest = posted(world, task, ready=post.ready - 1)
    # A row that is claimed now gets a bell when it waits again; to a final one nothing is lost.
    matters = world.rows[task].status in ("PUBLISHED", "CANCELLED")
    lost = posted(rest, task, lost=post.lost or matters)
    yield Step(f"the broker loses a message of task {'AB'[task]}", FAULT, lost)
    for number, worker in enumerate(world.workers):
        if worker.process in (LIVE, ZOMBIE):
            delivered = changed(worker.delivered, task, worker.delivered[task] + 1)
            words = f"a message of task {'AB'[task]} is delivered to worker {number + 1}"
            kind = HELPER if worker.process == LIVE else CHOICE
            yield Step(words, kind, placed(rest, number, worker._replace(delivered=delivered)))
