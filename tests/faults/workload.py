"""Workload W: producers, services, and what must be true of all their tasks afterwards.

site = project(database=database, broker=broker, **form.settings)
with Workload(site, form, scenario) as load:     # services ready, warmed up; producers publish
    load.work_goes_on(50)
    ...                                          # the fault
    load.finish()                                # producers end, once form.tasks are published
balance = load.check()                           # all at rest, I1-I7, services stopped; told to the scenario
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Collection

from tests.faults import invariants
from tests.faults.balance import Balance, balance, check_history
from tests.faults.clocks import Clock
from tests.faults.footprint import Footprint
from tests.faults.form import Form
from tests.faults.load import Journal, completed
from tests.faults.producers import Call, Plan, Producer
from tests.faults.recovery import Deaths
from tests.faults.report import Record, quantile
from tests.project import Project
from tests.servers.process import wait_until
from tests.service import Service

#: I4: outcomes that a process may have kept from the database at the moment it was killed, beside its running tasks.
UNFLUSHED = 16
#: Seconds between two looks, and seconds in which what was opened for a fault has to be closed again.
LOOK, TIDY = 0.1, 30.0


class Workload:
    """Runs within its block. ``services``, ``journal``, ``clocks`` and ``deaths`` are the test's to use.

    ``rate``: publications a second of all producers. ``longest``: seconds up to which tasks take. ``clocks``: each
    service and the producers get a clock of their own: ``clocks["service 1"]``, ..., ``clocks["producers"]``.
    """

    def __init__(
        self,
        site: Project,
        form: Form,
        scenario: Record | None = None,
        *,
        services: int = 2,
        processes: int = 2,
        threads: int = 4,
        producers: int = 2,
        tasks: int | None = None,
        rate: float | None = None,
        longest: float = 0.1,
        clocks: bool = False,
    ) -> None:
        if "queues" not in site.settings:
            site.configure(queues=[{"name": "default", "concurrency": threads}])
        self.site, self.form, self.scenario = site, form, scenario
        self.processes, self.threads = processes, threads
        self.tasks = form.tasks if tasks is None else tasks
        self.journal = Journal(site)
        self.deaths = Deaths(site, self.journal)
        self.services: list[Service] = []
        self.producers: list[Producer] = []
        self.clocks: dict[str, Clock] = {}
        self._producer_killed = False
        self._with_clocks, self._service_count = clocks, services
        self._warm, self._go, self._end = (site.directory / name for name in ("warm", "go", "end"))
        rate = form.rate if rate is None else rate
        slots = services * processes * threads
        self._plans = [
            Plan(
                prefix=f"p{number}",
                journal=str(self.journal.path),
                ledger=str(site.directory / f"ledger-{number}"),
                warm=str(self._warm),
                go=str(self._go),
                end=str(self._end),
                seed=form.random.randrange(1 << 32),
                rate=rate / producers,
                warm_up=slots // producers + (number < slots % producers),
                longest=longest,
                longest_atomic=0.0 if site.database == "sqlite" else longest,  # where it locks the whole database
            )
            for number in range(producers)
        ]

    def __enter__(self) -> Workload:
        try:
            self._begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._producer_killed = any(producer.killed for producer in self.producers)
        for producer in self.producers:
            producer.kill()

    # -- while it runs --------------------------------------------------------------------------------------------

    def start_service(self, *, wait: bool = True) -> Service:
        """Start one more service, as one does after another was killed or stopped; it is in ``services``."""
        service = self.site.service(
            "--processes", str(self.processes), env=self._clock(f"service {len(self.services) + 1}")
        )
        self.services.append(service)
        if wait:
            service.wait_ready(60.0)
        return service

    def running_services(self) -> list[Service]:
        return [service for service in self.services if service.returncode is None]

    def go_on(self, count: int, timeout: float = 60.0) -> None:
        """Wait until ``count`` more publications have returned, or failed."""
        goal = len(self.calls()) + count
        self._wait(lambda: len(self.calls()) >= goal, timeout, f"{count} more tasks are published")

    def work_goes_on(self, count: int, timeout: float = 60.0) -> None:
        """Wait until ``count`` more tasks are COMPLETED. Needs the database."""
        goal = completed(self.site) + count
        self._wait(lambda: completed(self.site) >= goal, timeout, f"{count} more tasks are COMPLETED")

    def resumed(self, after: float, timeout: float = 60.0) -> float:
        """Wait for a task that is claimed and begins after a moment on ``time.monotonic``; return how many seconds
        later it began. Needs the database.

        Tell the moment at which the fault was over: this is the time to recover, and it is reported.
        """
        rows = self.site.sql("SELECT args FROM carrot_messagelog WHERE status = 'IN_PROGRESS'")
        claimed = {invariants.name_of(row) for row in rows}  # they could begin without broker and database

        def first() -> float | None:
            begun = (mark for mark in self.journal.marks() if mark.what == "begin" and mark.name not in claimed)
            return next((mark.at for mark in begun if mark.at > after), None)

        self._wait(lambda: first() is not None, timeout, "tasks begin again")
        seconds = (first() or after) - after
        if self.scenario is not None:
            self.scenario.recovered(seconds)
        return seconds

    def kill_worker(self, among: Collection[int] | None = None) -> int:
        """SIGKILL a worker process with running tasks, chosen at random (``among`` those given); return its pid.

        How long it takes until those tasks begin again goes into the report with ``check``.
        """
        pid = self.deaths.kill_one(self.form.random, among)
        if self.scenario is not None:
            self.scenario.fault()
        return pid

    def kill_service(self, service: Service) -> None:
        """SIGKILL all processes of a service at once, as a power loss would."""
        self.deaths.expect(service)
        service.kill()
        if self.scenario is not None:
            self.scenario.fault()

    def kill_producer(self, number: int = 0) -> None:
        """SIGKILL a producer. What it has committed last may not be in its ledger: it counts as unknown."""
        self.producers[number].kill()
        if self.scenario is not None:
            self.scenario.fault()

    def calls(self) -> list[Call]:
        """The publications so far, the warm-up included."""
        return [call for producer in self.producers for call in producer.ledger.calls()]

    def publish_p99(self, since: float, until: float) -> float:
        """The 99th percentile of the seconds publications took that ended between two moments on time.monotonic."""
        return quantile((call.took for call in self.calls() if since <= call.ended <= until), 0.99)

    def finish(self, timeout: float | None = None) -> None:
        """Wait until as many tasks as wanted are published; let the producers end."""
        if timeout is None:
            timeout = self.form.seconds(120.0, 1200.0)
        self._wait(lambda: len(self.calls()) >= self.tasks, timeout, f"{self.tasks} tasks are published")
        self._end.touch()
        for producer in self.producers:
            producer.wait()

    # -- afterwards -----------------------------------------------------------------------------------------------

    def settle(self, timeout: float | None = None) -> None:
        """Wait until all is at rest (I5): no task unfinished, queues empty, every consumer there, nothing more held.

        W and O are checked on every row.
        """
        site = self.site
        invariants.wait_for_rest(site, self.form.seconds(120.0, 600.0) if timeout is None else timeout)
        running = self.running_services()
        if invariants.is_amqp(site):
            expected = (0, len(running) * self.processes)
            site.wait_until(
                lambda: invariants.depth(site) == expected, 60.0, f"I5: messages and consumers are {expected}"
            )
        if len(running) == self._service_count:
            wait_until(lambda: not Footprint.of(site, running).excess(self.baseline), TIDY)
            excess = Footprint.of(site, running).excess(self.baseline)
            assert not excess, f"I6: the services do not hold what they held in the beginning: {excess}"

    def check(
        self, *, extra_runs: int = 0, planned_failures: Collection[str] = (), stop: bool = True, settle: bool = True
    ) -> Balance:
        """Settle, evaluate I1 to I7, tell the scenario, stop the services; return the balance.

        ``extra_runs``: runs of plain tasks that the fault may have doubled beside those of killed processes.
        ``planned_failures``: names of tasks that may be FAILED.
        """
        if settle:
            self.settle()
        check_history(self.site)
        ledgers = [producer.ledger for producer in self.producers]
        found = balance(
            self.site,
            self.journal,
            ledgers,
            planned_failures=planned_failures,
            producer_killed=self._producer_killed,
        )
        if self.scenario is not None:
            found.tell(self.scenario)
            self.scenario.recovered(*self.deaths.recoveries())
        assert not found.lost, f"I1: {len(found.lost)} of {found.committed} tasks lost: {found.lost[:5]}"
        assert not found.phantom, f"I2: {len(found.phantom)} phantoms: {found.phantom[:5]}"
        assert not found.doubled_atomic, f"I3: atomic tasks with effects too many: {found.doubled_atomic}"
        allowed = self.deaths.workers * (self.threads + UNFLUSHED) + extra_runs
        assert found.extra_runs <= allowed, f"I4: more than {allowed} runs too many: {found.doubled_plain}"
        if stop:
            self.stop()
        return found

    def stop(self) -> None:
        """Stop the services in order: exit code 0, no process left, and no message unacknowledged until now (I5)."""
        running = self.running_services()
        for service in running:
            service.send(signal.SIGTERM)
        for service in running:
            code = service.wait(60.0)
            assert code == 0, f"The service ended with exit code {code}:\n{service.output()}"
        invariants.check_stopped(self.site)
        if invariants.is_amqp(self.site):
            assert invariants.depth(self.site) == (0, 0), "I5: messages were neither handled nor handed back"

    # -- inside ---------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        for _ in range(self._service_count):
            self.start_service(wait=False)
        env = self._clock("producers")
        self.producers += [Producer(self.site, plan, env) for plan in self._plans]
        for service in self.services:
            service.wait_ready(60.0)
        # One task for each thread, all at the same time: every thread has then opened what it keeps.
        slots = sum(plan.warm_up for plan in self._plans)
        self._wait(
            lambda: len(set(self.journal.lines("begin"))) == slots, 60.0, "each thread has a task of the warm-up"
        )
        self._warm.touch()
        self._wait(lambda: completed(self.site) >= slots, 60.0, "the services have run the warm-up")
        self.baseline = Footprint.of(self.site, self.services)
        self._go.touch()

    def _wait(self, held: Callable[[], bool], timeout: float, message: str) -> None:
        """Wait for something that costs a query or a file to look at, as long as the producers live."""

        def look() -> bool:
            for producer in self.producers:
                producer.check_alive()
            if held():
                return True
            time.sleep(LOOK)
            return False

        self.site.wait_until(look, timeout, message)

    def _clock(self, name: str) -> dict[str, str]:
        if not self._with_clocks:
            return {}
        self.clocks[name] = Clock(self.site.directory / f"clock-{name.replace(' ', '-')}")
        return self.clocks[name].env
