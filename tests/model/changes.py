"""Changes of one part of a world."""

from __future__ import annotations

from typing import Any, TypeVar

from tests.model.world import AGAIN, COMPLETED, ENDED, FAILED, GONE, LIVE, NEW, OLD, READY, Post, Worker, World

T = TypeVar("T")


def changed(values: tuple[T, ...], index: int, value: T) -> tuple[T, ...]:
    """``values`` with another one at ``index``."""
    return (*values[:index], value, *values[index + 1 :])


def without(values: tuple[T, ...], value: T) -> tuple[T, ...]:
    return tuple(each for each in values if each != value)


# -- messages ---------------------------------------------------------------------------------------------------------


def posted(world: World, task: int, **changes: Any) -> World:
    """Something moved on the way to or from the broker."""
    post = world.posts[task]._replace(**changes)
    return World(world.rows, changed(world.posts, task, post), world.workers, world.marker)


def returned(world: World, tasks: tuple[int, ...]) -> World:
    """A message of each of ``tasks`` is in the queue again."""
    for task in tasks:
        world = posted(world, task, ready=world.posts[task].ready + 1)
    return world


# -- workers ----------------------------------------------------------------------------------------------------------


def placed(world: World, number: int, worker: Worker) -> World:
    """Another state of worker ``number``."""
    first, second = world.workers
    return World(world.rows, world.posts, (worker, second) if number == 0 else (first, worker), world.marker)


def remembering(worker: Worker, held: tuple[tuple[int, int, str], ...]) -> Worker:
    """The worker with other claims in its memory."""
    return Worker(worker.process, worker.delivered, held, worker.strangers, worker.suspects)


def holding(world: World, number: int, task: int, age: int = NEW, phase: str = READY) -> World:
    """The worker has one more claim in its memory."""
    worker = world.workers[number]
    return placed(world, number, remembering(worker, tuple(sorted({*worker.held, (task, age, phase)}))))


def all_delivered(worker: Worker) -> tuple[int, ...]:
    """The task of each message that the worker has not acknowledged."""
    return tuple(task for task, count in enumerate(worker.delivered) for _ in range(count))


def renewed(world: World, number: int) -> World:
    """Where a process is dead, declared lost and blamed, a new one takes its place at once."""
    worker = world.workers[number]
    if worker.process != ENDED or worker.suspects:
        return world
    rows = tuple(row._replace(worker=GONE) if row.worker == number else row for row in world.rows)
    return placed(world._replace(rows=rows), number, Worker(LIVE, (0,) * len(rows)))


# -- fences -----------------------------------------------------------------------------------------------------------


def raised(world: World, task: int, *, keep_confirm: bool, keep_unsent: bool) -> World:
    """The fence of ``task`` was raised: what was new is old."""
    post = world.posts[task]
    aged = Post(
        unsent=OLD if post.unsent and keep_unsent else 0,
        ready=post.ready,
        confirm=OLD if post.confirm and keep_confirm else 0,
        lost=False,
        late=post.late,
        doomed=OLD if post.doomed else 0,
    )
    first, second = world.workers
    return World(world.rows, changed(world.posts, task, aged), (_aged(first, task), _aged(second, task)), world.marker)


def _aged(worker: Worker, task: int) -> Worker:
    if not worker.held and not worker.strangers:
        return worker
    # Of an outcome that comes too late it does not matter what it is.
    late = {FAILED: COMPLETED, AGAIN: AGAIN if worker.process == LIVE else COMPLETED}
    held = {
        (each, OLD, late.get(phase, phase)) if each == task else (each, age, phase) for each, age, phase in worker.held
    }
    return worker._replace(held=tuple(sorted(held)), strangers=without(worker.strangers, task))
