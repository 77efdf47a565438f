"""Steps of the worker processes: claims, tasks, outcomes, audits, and the ways they end."""

from __future__ import annotations

from tests.model.changes import all_delivered, changed, holding, placed, posted, remembering, renewed, returned, without
from tests.model.steps import CHOICE, FAULT, HELPER, KEEPER, Calls, Step, Steps
from tests.model.table import Violation
from tests.model.world import AGAIN, COMPLETED, DEAD, DUE, ENDED, FAILED, LIVE, READY, RUNNING, ZOMBIE, Worker, World

#: What the recorder writes of a claim in memory.
OUTCOMES = {COMPLETED: COMPLETED, FAILED: FAILED, AGAIN: FAILED}


def steps(call: Calls, world: World, number: int) -> Steps:
    if world.workers[number].process not in (LIVE, ZOMBIE):
        yield from _burial(call, world, number)
        return
    if call.size.rows_are_messages:
        yield from _claims_of_rows(call, world, number)
    else:
        yield from _claims(call, world, number)
    for claim in world.workers[number].held:
        yield from _task(call, world, number, claim)
    yield from _recorder(call, world, number)
    yield from _audit(call, world, number)
    yield from _end(call, world, number)


# -- claims -----------------------------------------------------------------------------------------------------------


def _claims(call: Calls, world: World, number: int) -> Steps:
    worker = world.workers[number]
    tasks = all_delivered(worker)
    for task in sorted(set(tasks)):
        fewer = worker._replace(delivered=changed(worker.delivered, task, worker.delivered[task] - 1))
        words = f"worker {number + 1} gives a message of task {'AB'[task]} back to the broker"
        yield Step(words, CHOICE, returned(placed(world, number, fewer), (task,)))
    if not tasks:
        return
    empty = placed(world, number, worker._replace(delivered=(0,) * call.size.tasks))
    words = f"worker {number + 1} claims what was delivered to it"
    after, (claimed, back) = call(empty, words, call.verbs.take, number, tasks)
    _check_alive(world, number, claimed)
    yield Step(words, HELPER, _claimed(returned(after, back), number, claimed))
    if call.size.late_messages and any(row.bell == DUE for row in world.rows):
        late = f"the relay rings what is due; before it goes on, worker {number + 1} claims what was delivered to it"
        yield Step(late, CHOICE, _overtaking(call, empty, late, number, tasks))
    if call.size.lost_answers:
        # Either way its connection is closed, and the broker delivers again.
        again = returned(after, tasks)
        yield Step(f"{words}; the acknowledgement is lost", FAULT, _claimed(again, number, claimed))
        yield Step(f"{words}; the answer to its commit is lost", FAULT, again)


def _overtaking(call: Calls, world: World, words: str, number: int, tasks: tuple[int, ...]) -> World:
    after, (claimed, back) = call(world, words, call.verbs.relay_overtaken, number, tasks)
    return _claimed(returned(after, back), number, claimed)


def _claims_of_rows(call: Calls, world: World, number: int) -> Steps:
    for limit in range(1, call.size.tasks + 1):
        words = f"worker {number + 1} claims {limit} of the waiting tasks"
        after, claimed = call(world, words, call.verbs.claim_next, number, limit)
        _check_alive(world, number, claimed)
        yield Step(words, HELPER, _claimed(after, number, claimed))
        if call.size.lost_answers:
            yield Step(f"{words}; the answer to its commit is lost", FAULT, after)


def _claimed(world: World, number: int, tasks: tuple[int, ...]) -> World:
    for task in tasks:
        world = holding(world, number, task)
    return world


def _check_alive(world: World, number: int, claimed: tuple[int, ...]) -> None:
    if claimed and world.workers[number].process == ZOMBIE:
        raise Violation(f"worker {number + 1} was declared lost, and claims")


# -- tasks ------------------------------------------------------------------------------------------------------------


def _task(call: Calls, world: World, number: int, claim: tuple[int, int, str]) -> Steps:
    task, age, phase = claim
    worker, who, what = world.workers[number], f"worker {number + 1}", f"task {'AB'[task]}"
    rest = placed(world, number, remembering(worker, without(worker.held, claim)))
    if phase == RUNNING:
        for outcome in (COMPLETED, FAILED) if call.size.failures else (COMPLETED,):
            words = f"{what} ends in {who}: {outcome}"
            yield Step(words, HELPER, holding(rest, number, task, age, outcome))
        yield from _atomic_end(call, rest, number, claim)
        return
    if phase == READY:
        # Who was declared lost starts nothing: its lease was over before.
        if worker.process == LIVE:
            yield Step(f"{who} starts {what}", HELPER, holding(rest, number, task, age, RUNNING))
        yield call.step(rest, CHOICE, f"{who} hands {what} back", call.verbs.hand_back, number, task, age, 0.0)
        words = f"{who} hands {what} back, to be rung later"
        yield call.step(rest, CHOICE, words, call.verbs.hand_back, number, task, age, 5.0)
    if call.size.lost_answers:
        yield Step(f"{who} forgets {what}: the database has refused what it wrote of it", FAULT, rest)


def _atomic_end(call: Calls, rest: World, number: int, claim: tuple[int, int, str]) -> Steps:
    """What runs may be a task whose work and end are one transaction."""
    task, age, _phase = claim
    who, what = f"worker {number + 1}", f"the transaction of task {'AB'[task]}"
    words = f"{what} in {who} is committed, with its end"
    after, done = call(rest, words, call.verbs.complete, number, task, age)
    # What came too late is an exception like any other, and its outcome comes too late as well.
    yield Step(words, HELPER, after if done else holding(after, number, task, age, FAILED))
    if call.size.lost_answers:
        for words, begun in (
            (f"{what} is broken off by the database; {who} gives the claim up", rest),
            (f"{what} in {who} is committed, the answer is lost; it gives the claim up", after),
        ):
            yield call.step(begun, FAULT, words, call.verbs.release, task, age, 1.0)


def _recorder(call: Calls, world: World, number: int) -> Steps:
    worker = world.workers[number]
    outcomes = tuple((task, age, OUTCOMES[phase]) for task, age, phase in worker.held if phase in OUTCOMES)
    if not outcomes:
        return
    rest = remembering(worker, tuple(claim for claim in worker.held if claim[2] not in OUTCOMES))
    words = f"worker {number + 1} records what it has"
    after, _ = call(placed(world, number, rest), words, call.verbs.record, number, outcomes)
    yield Step(words, HELPER, after)
    if call.size.lost_answers:
        for task, age, outcome in outcomes:
            if outcome == FAILED:
                after = holding(after, number, task, age, AGAIN)
        yield Step(f"{words}; the answer is lost", FAULT, after)


def _audit(call: Calls, world: World, number: int) -> Steps:
    worker = world.workers[number]
    if worker.strangers or _has_claims(world, number):
        words = f"worker {number + 1} compares its claims with its memory"
        held = tuple(sorted({(task, age) for task, age, _ in worker.held}))
        after, strangers = call(world, words, call.verbs.audit, number, held, worker.strangers)
        yield Step(words, KEEPER, placed(after, number, after.workers[number]._replace(strangers=strangers)))


def _has_claims(world: World, number: int) -> bool:
    return any(row.status == "IN_PROGRESS" and row.worker == number for row in world.rows)


# -- ends -------------------------------------------------------------------------------------------------------------


def _end(call: Calls, world: World, number: int) -> Steps:
    worker, verbs, who = world.workers[number], call.verbs, f"worker {number + 1}"
    # One that has claimed nothing needs nobody to look after it: as if it were buried already.
    process = DEAD if worker.process == LIVE and _has_claims(world, number) else ENDED
    dead = Worker(process, (0,) * call.size.tasks)
    # The broker sees its connection end, and has its messages back.
    unplugged = returned(placed(world, number, dead), all_delivered(worker))
    yield Step(f"{who} dies with its host", FAULT, renewed(unplugged, number))
    running = tuple(sorted({task for task, _, phase in worker.held if phase == RUNNING}))
    if running and call.size.blame:
        words = f"{who} is killed by what it runs"
        yield Step(words, FAULT, placed(unplugged, number, dead._replace(suspects=running)))
    claiming = all_delivered(worker)
    if call.size.rows_are_messages:
        claiming = tuple(task for task, row in enumerate(world.rows) if row.status == "PUBLISHED")
    if call.size.late_claims and claiming:
        late = unplugged
        for task in claiming:
            late = posted(late, task, late=True)
        yield Step(f"{who} dies while its claim waits for a lock", FAULT, renewed(late, number))
    if worker.process == ZOMBIE:
        words = f"{who} hears that it was declared lost, and ends"
        after, alive = call(unplugged, words, verbs.beat, number)
        if alive:
            raise Violation(f"{who} was declared lost, and is told that it lives")
        yield Step(words, KEEPER, renewed(after, number))
    elif call.size.zombies > sum(each.process == ZOMBIE for each in world.workers):
        words = f"{who} is declared lost, and lives"
        yield Step(words, FAULT, _declared_lost(call, world, number, words, worker._replace(process=ZOMBIE)))


def _burial(call: Calls, world: World, number: int) -> Steps:
    worker, who = world.workers[number], f"worker {number + 1}"
    if worker.process == DEAD:
        words = f"{who}, which is dead, is declared lost"
        yield Step(words, KEEPER, _declared_lost(call, world, number, words, worker._replace(process=ENDED)))
    if worker.suspects:
        words = f"the undertaker blames what ran in {who}"
        after, _ = call(world, words, call.verbs.blame, number, worker.suspects)
        yield Step(words, KEEPER, renewed(placed(after, number, worker._replace(suspects=())), number))


def _declared_lost(call: Calls, world: World, number: int, words: str, worker: Worker) -> World:
    after, ended = call(world, words, call.verbs.end, number)
    if not ended:
        raise Violation(f"worker {number + 1} counts as alive, and cannot be declared lost")
    return renewed(placed(after, number, worker), number)
