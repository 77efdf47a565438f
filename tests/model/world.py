"""The world of the model: what the rows say, what is on its way to and from the broker, what the workers remember.

A world is a value. Numbers that only ever grow are kept as far as they tell two worlds apart: of a fence, whether it is
the row's own or an older one; of a bell, whether its time has come. So there are finitely many worlds, however long
they go on.
"""

from __future__ import annotations

from typing import NamedTuple

#: The bell of a row: it has none; its time has come; it will come; a wrong clock has set it a day ahead.
SILENT, DUE, LATER, ABSURD = "", "due", "later", "a day ahead"

#: Whose claim a row is, beside the workers 0 and 1: nobody's, or that of a process whose place another one has taken.
NOBODY, GONE = -1, 2

#: The fence that a claim, a confirm or a pending release was made with: the row's own, or an older one.
NEW, OLD = 1, 2

#: A worker process: it lives; it lives and was declared lost; it is dead and counts as alive; it is dead, declared
#: lost, and not yet blamed for the tasks that ran in it.
LIVE, ZOMBIE, DEAD, ENDED = "lives", "lives, declared lost", "is dead", "is dead, declared lost"

#: What became of a claim in a worker's memory. The last: an outcome that was written while its answer was lost; the
#: recorder writes it again. Of a COMPLETED one nothing could come in between.
READY, RUNNING, COMPLETED, FAILED, AGAIN = "ready", "running", "COMPLETED", "FAILED", "FAILED, written, not known"

UNFINISHED = ("PUBLISHED", "WAITING", "IN_PROGRESS")


class Row(NamedTuple):
    """A task's row, without what no verb of the life cycle reads."""

    status: str
    bell: str
    worker: int
    crashes: int


class Post(NamedTuple):
    """What is on its way for one task. Where an age is told, 0 stands for "none"."""

    #: The age of a message that was handed to a publisher and is not sent yet.
    unsent: int
    #: Messages in the queue.
    ready: int
    #: The age of a confirm that has come, and that no row has been told of.
    confirm: int
    #: The broker has lost a message that it had taken since the last claim.
    lost: bool
    #: A claim of a process that is gone waits for a lock in the database, and may yet be committed.
    late: bool
    #: The age of a claim that somebody has found to be without a living worker, and is about to release.
    doomed: int


class Worker(NamedTuple):
    """A place for a worker process, and what the process in it remembers."""

    process: str
    #: Unacknowledged messages, by task.
    delivered: tuple[int, ...]
    #: Claims in memory: task, age of the fence, what became of it.
    held: tuple[tuple[int, int, str], ...] = ()
    #: Tasks that its last audit has found in its name and not in its memory.
    strangers: tuple[int, ...] = ()
    #: Tasks that ran in it when it was killed, and that nobody has blamed yet.
    suspects: tuple[int, ...] = ()


class World(NamedTuple):
    rows: tuple[Row, ...]
    posts: tuple[Post, ...]
    workers: tuple[Worker, Worker]
    #: The reconciler's marker is in the queue.
    marker: bool


def counts_as_alive(world: World) -> tuple[bool, bool]:
    """What the workers' own rows say."""
    first, second = world.workers
    return first.process in (LIVE, DEAD), second.process in (LIVE, DEAD)


def is_over(world: World) -> bool:
    """Nothing waits or runs any more."""
    return all(row.status not in UNFINISHED for row in world.rows)


# -- one world for all that differ in names only ----------------------------------------------------------------------


def canonical(world: World, *, tasks_alike: bool) -> World:
    """The same world for all that differ only in which worker, or which task, is called what."""
    if tasks_alike and len(world.rows) == 2:
        return min(_workers_sorted(world), _workers_sorted(_tasks_swapped(world)))
    return _workers_sorted(world)


def _workers_sorted(world: World) -> World:
    rows = world.rows
    first, second = world.workers
    if first < second:
        return world
    if any(NOBODY < row.worker < GONE for row in rows):
        rows = tuple(row._replace(worker=1 - row.worker) if NOBODY < row.worker < GONE else row for row in rows)
    swapped = World(rows, world.posts, (second, first), world.marker)
    return swapped if second < first else min(world, swapped)


def _tasks_swapped(world: World) -> World:
    first, second = world.workers
    return World(world.rows[::-1], world.posts[::-1], (_renamed(first), _renamed(second)), world.marker)


def _renamed(worker: Worker) -> Worker:
    return Worker(
        worker.process,
        worker.delivered[::-1],
        tuple(sorted((1 - task, age, phase) for task, age, phase in worker.held)),
        tuple(sorted(1 - task for task in worker.strangers)),
        tuple(sorted(1 - task for task in worker.suspects)),
    )


# -- what must hold in every world ------------------------------------------------------------------------------------


def complaint(world: World, *, rows_are_messages: bool) -> str:
    """What does not hold in ``world``; empty if all is well.

    W, without the reconciler's help: a row without a bell has its message in the queue or at a worker. That the broker
    loses what it has taken is the one excuse. And what a living worker has in its memory nobody takes away from it, so
    that only a task whose worker was declared lost may run twice.
    """
    for task, (row, post) in enumerate(zip(world.rows, world.posts, strict=True)):
        believes = row.status == "PUBLISHED" and row.bell == SILENT and not rows_are_messages
        if believes and not post.lost and not post.ready and not any(w.delivered[task] for w in world.workers):
            return f"W: task {'AB'[task]} has neither a bell nor a message, and the broker has lost none of it"
        if row.status == "WAITING" and row.bell == SILENT:
            return f"W: the delayed task {'AB'[task]} has no bell"
    for number, worker in enumerate(world.workers):
        for task, age, phase in worker.held if worker.process == LIVE else ():
            row = world.rows[task]
            if phase != AGAIN and not (age == NEW and row.status == "IN_PROGRESS" and row.worker == number):
                return f"task {'AB'[task]} was taken away from worker {number + 1}, which lives"
    return ""


def is_owned(world: World) -> bool:
    """Every claimed row is in the memory of a live worker: O without its "or"."""
    return all(row.status != "IN_PROGRESS" or _knows(world, task) for task, row in enumerate(world.rows))


def _knows(world: World, task: int) -> bool:
    number = world.rows[task].worker
    if number not in (0, 1):
        return False
    worker = world.workers[number]
    return worker.process == LIVE and any(claim[:2] == (task, NEW) for claim in worker.held)


# -- in words ---------------------------------------------------------------------------------------------------------


def describe(world: World) -> str:
    """A world, for whoever reads a counterexample."""
    lines = []
    for name, row, post in zip("AB", world.rows, world.posts, strict=False):
        whose = {NOBODY: "", GONE: " of a process that is gone"}.get(row.worker, f" of worker {row.worker + 1}")
        parts = [f"{row.status}{whose}", f"bell: {row.bell or 'none'}", f"messages in the queue: {post.ready}"]
        parts += [f"worker deaths: {row.crashes}"] if row.crashes else []
        parts += ["a message not sent yet"] if post.unsent else []
        parts += [f"a confirm on its way, of {_age(post.confirm)} fence"] if post.confirm else []
        parts += [f"about to be released with {_age(post.doomed)} fence"] if post.doomed else []
        parts += ["the broker has lost a message"] if post.lost else []
        lines.append(f"   task {name}: {', '.join(parts)}")
    for number, worker in enumerate(world.workers, 1):
        parts = [f"task {'AB'[task]} {phase}{' (old fence)' * (age == OLD)}" for task, age, phase in worker.held]
        parts += [f"{count} message(s) of task {'AB'[task]}" for task, count in enumerate(worker.delivered) if count]
        lines.append(f"   worker {number} {worker.process}, and has {', '.join(parts) or 'nothing'}")
    return "\n".join(lines)


def _age(age: int) -> str:
    return "the row's" if age == NEW else "an older"
