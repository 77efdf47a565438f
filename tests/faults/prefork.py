"""A web server that forks its workers: ``PreforkServer``. The master may have published before.

As with every such server (gunicorn, uWSGI, Celery), what the application opened in the master is there in the workers,
its database connections excepted, which such a server has closed before. Run as ``python -m tests.faults.prefork``: for
each line it reads, a JSON object, it publishes or forks.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.faults import producers
from tests.faults.producers import Ledger, Plan
from tests.project import Project
from tests.servers.process import Process, wait_until

#: What belonged to the master's threads, which a worker has not, is collected in the worker without being closed.
WARNINGS = "error,ignore::ResourceWarning"


class Worker:
    """A forked process that publishes by a plan."""

    def __init__(self, pid: int, plan: Plan) -> None:
        self.ledger = Ledger(Path(plan.ledger))
        process = Process.of(pid)
        assert process is not None, "the worker has ended at once"
        self._process = process

    def kill(self) -> None:
        """SIGKILL, at whatever it does."""
        self._process.signal(signal.SIGKILL)
        self.wait_ended()

    def wait_ended(self, timeout: float = 30.0) -> None:
        assert wait_until(lambda: not self._process.alive, timeout), f"The worker lives after {timeout:g} s."


class PreforkServer:
    """The master, ended with the block. What it and its workers print is in the file ``output``."""

    def __init__(self, site: Project) -> None:
        self.output = site.directory / "prefork.out"
        with open(self.output, "wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.prefork"],
                env=site.env | {"PYTHONWARNINGS": WARNINGS},
                cwd=site.directory,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def __enter__(self) -> PreforkServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate(timeout=10.0)

    def publish(self, task: str, *args: Any) -> None:
        """Have the master publish a task itself."""
        assert self._order(publish=[task, *args]) == "published"

    def fork(self, plan: Plan) -> Worker:
        """Have it fork a worker that publishes by ``plan``."""
        Path(plan.ledger).touch()
        return Worker(int(self._order(fork=asdict(plan))), plan)

    def _order(self, **order: object) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        assert answer, f"The master has ended:\n{self.output.read_text()}"
        return answer


def main() -> None:
    """Obey the orders on the standard input; the answers go to the standard output."""
    import django

    django.setup()
    from carrot.utilities import publish_message

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # ended workers leave no zombies
    for line in sys.stdin:
        order = json.loads(line)
        if "publish" in order:
            publish_message(*order["publish"])
            print("published", flush=True)
        elif pid := fork():
            print(pid, flush=True)
        else:
            os.dup2(2, 1)
            producers.main(Plan(**order["fork"]))
            return


def fork() -> int:
    from django.db import connections

    connections.close_all()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python: that there is the publisher's thread
        return os.fork()


if __name__ == "__main__":
    main()
