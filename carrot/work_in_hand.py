"""What a service on this host has in hand, from its rows: for ``carrot_daemon stop`` and ``status``."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from django.core.exceptions import ImproperlyConfigured
from django.db import Error as DatabaseFailure

from carrot import clock, database
from carrot.models import MessageLog, WorkerProcess

#: Running tasks that are named one by one.
NAMED = 10


@dataclass(frozen=True, kw_only=True)
class RunningTask:
    task: str
    uuid: str
    since: datetime | None

    @property
    def age(self) -> str:
        return seconds_in_words((clock.now() - self.since).total_seconds()) if self.since else "about to start"


@dataclass(frozen=True, kw_only=True)
class WorkInHand:
    """The worker processes of one service and the tasks they run; ``problem`` says why that is not known."""

    pids: tuple[int, ...] = ()
    queues: tuple[str, ...] = ()
    threads: int = 0
    tasks: tuple[RunningTask, ...] = ()
    problem: str = ""

    @classmethod
    def of(cls, service_pid: int) -> WorkInHand:
        """Asks the database, and closes the connection. Never raises for a database that does not answer."""
        try:
            database.harden("carrot_daemon")
            workers = list(
                WorkerProcess.objects.alive().filter(host=socket.gethostname(), service_pid=service_pid).order_by("pk")
            )
            running = MessageLog.objects.filter(status="IN_PROGRESS", worker_id__in=[worker.pk for worker in workers])
            rows = running.order_by("start_time", "pk").values_list("task", "uuid", "start_time")
            tasks = tuple(RunningTask(task=task, uuid=str(uuid), since=since) for task, uuid, since in rows)
        except (DatabaseFailure, ImproperlyConfigured) as error:
            return cls(problem=f"The database does not answer ({str(error).strip()}).")
        finally:
            database.close()
        names = dict.fromkeys(name for worker in workers for name in worker.queues.split(", "))
        return cls(
            pids=tuple(worker.pid for worker in workers),
            queues=tuple(names),
            threads=sum(worker.concurrency for worker in workers),
            tasks=tasks,
        )

    def waiting_for(self) -> str:
        """For a stop: what the service waits for; empty if that is nothing."""
        if self.problem:
            return f"Waiting for the running tasks. {self.problem}"
        if not self.tasks:
            return ""
        names = [task.task for task in self.tasks[:NAMED]]
        more = len(self.tasks) - len(names)
        words = "1 running task" if len(self.tasks) == 1 else f"{len(self.tasks)} running tasks"
        return f"Waiting for {words}: {', '.join(names)}{f' and {more} more' if more else ''}"

    def lines(self) -> Iterator[str]:
        """For the status."""
        if self.problem:
            yield f"{self.problem} Worker processes, queues and running tasks are not known."
            return
        pids = ", ".join(map(str, self.pids))
        yield f"worker processes: {len(self.pids)}{f' ({pids})' if pids else ''}, threads: {self.threads}"
        yield f"queues: {', '.join(self.queues) or 'none yet'}"
        yield f"running tasks: {len(self.tasks)}"
        for task in self.tasks[:NAMED]:
            yield f"  {task.task} {task.uuid} ({task.age})"
        if len(self.tasks) > NAMED:
            yield f"  and {len(self.tasks) - NAMED} more"


def seconds_in_words(seconds: float) -> str:
    """The two greatest units: ``3 d 4 h``, ``5 min 0 s``, ``7 s``."""
    left = max(0, int(seconds))
    parts: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or parts or unit == "s":
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])
