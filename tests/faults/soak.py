"""Load and random faults for minutes or hours, behind ``scripts/soak``: a balance at the end, and what grew meanwhile.

Two services. The first is steady: nothing is done to its processes, so that what it holds after a while can be compared
with what it held in the beginning, while connections are closed, servers restarted and rows pile up around it. The
second is killed, stopped and started again. The producers never end before the time is over.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from tests.faults.balance import Balance
from tests.faults.footprint import Footprint
from tests.faults.form import Form
from tests.faults.load import completed
from tests.faults.report import Record, quantile
from tests.faults.workload import Workload
from tests.project import Broker, Database, Project, ProjectFactory
from tests.servers import PostgreSQL, RabbitMQ, ServerError, ensure_installed
from tests.servers.places import new_place, remove_place
from tests.servers.process import session_members

#: Seconds between two looks at the steady service, and from one fault to the next.
SAMPLE, PAUSES = 5.0, (8.0, 25.0)
#: Seconds without faults at the beginning and at the end.
CALM = 20.0
#: Seconds that a server is away.
AWAY = (1.0, 6.0)
#: Growth that is allowed, as a share.
DRIFT = 0.10


class Soak:
    """One run; ``faults`` are chosen from at random."""

    def __init__(
        self, site: Project, load: Workload, chance: random.Random, postgresql: PostgreSQL, rabbitmq: RabbitMQ | None
    ) -> None:
        self.site, self.load, self.chance = site, load, chance
        self.postgresql, self.rabbitmq = postgresql, rabbitmq
        self.steady = load.services[0]
        self.members = {member.pid for member in session_members(self.steady.pid)}
        self.samples: list[Footprint] = []
        self.counts: Counter[str] = Counter()
        self.faults: dict[str, Callable[[], object]] = {
            "worker killed": self._kill_worker,
            "service killed": self._kill_service,
            "service restarted": self._restart_service,
        }
        if site.database == "postgresql":
            self.faults |= {"database sessions ended": self._end_sessions, "database crashed": self._crash_database}
        if rabbitmq is not None:
            self.faults |= {
                "broker connections closed": lambda: rabbitmq.close_all_connections("a test"),
                "broker away": self._suspend_broker,
                "queue purged": lambda: rabbitmq.ctl("purge_queue", "-p", self._vhost, "default"),
                "queue deleted": lambda: rabbitmq.ctl("delete_queue", "-p", self._vhost, "default"),
            }

    def run(self, seconds: float) -> None:
        """Inject faults and take samples until the time is over."""
        begun = time.monotonic()
        next_fault = begun + CALM
        while (elapsed := time.monotonic() - begun) < seconds:
            self.samples.append(Footprint.of(self.site, [self.steady]))
            if time.monotonic() >= next_fault and elapsed < seconds - CALM:
                name = self.chance.choice(sorted(self.faults))
                print(f"{elapsed:7.0f} s  {completed(self.site):9,} completed  {name}", flush=True)
                self.faults[name]()
                self.counts[name] += 1
                next_fault = time.monotonic() + self.chance.uniform(*PAUSES)
            time.sleep(SAMPLE)

    def drift(self) -> dict[str, tuple[float, float]]:
        """What the steady service held, by the medians of the second quarter of the samples and of the last."""
        quarter = max(1, len(self.samples) // 4)
        # Not the first: until then not every thread has opened what it keeps.
        first, last = self.samples[quarter : 2 * quarter], self.samples[-quarter:]
        return {
            name: tuple(statistics.median(getattr(sample, name) for sample in part) for part in (first, last))
            for name in ("memory", "threads", "descriptors", "connections")
        }

    # -- faults ---------------------------------------------------------------------------------------------------

    @property
    def _vhost(self) -> str:
        return self.site.broker_url.rpartition("/")[2]

    def _other(self) -> list[int]:
        return [member.pid for service in self.load.running_services()[1:] for member in session_members(service.pid)]

    def _kill_worker(self) -> None:
        self.load.kill_worker(among=self._other())

    def _kill_service(self) -> None:
        self.load.kill_service(self.load.running_services()[-1])
        self.load.start_service()

    def _restart_service(self) -> None:
        service = self.load.running_services()[-1]
        service.send(signal.SIGTERM)
        assert service.wait(90.0) == 0, service.output()
        self.load.start_service()

    def _end_sessions(self) -> None:
        self.site.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    def _crash_database(self) -> None:
        self.postgresql.kill()
        time.sleep(self.chance.uniform(*AWAY))
        self.postgresql.start()

    def _suspend_broker(self) -> None:
        assert self.rabbitmq is not None
        self.rabbitmq.suspend()
        time.sleep(self.chance.uniform(*AWAY))
        self.rabbitmq.resume()


def main() -> int:
    """Do what the command line says; 0 where the balance is zero and nothing has grown by more than a tenth."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--broker", choices=["amqp", "database"], default="amqp")
    parser.add_argument("--database", choices=["postgresql", "sqlite"], default="postgresql")
    parser.add_argument("--rate", type=float, default=100.0, help="publications a second (default: 100)")
    parser.add_argument("--seed", type=int, help="what everything random is made from; default: random, and printed")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    seed = random.randrange(1, 1_000_000) if options.seed is None else options.seed
    print(f"{options.minutes:g} minutes on {options.database} and {options.broker}, seed {seed}", flush=True)
    try:
        ensure_installed()
        return 0 if soak(options.minutes * 60, options.database, options.broker, options.rate, seed) else 1
    except (ServerError, AssertionError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130


def soak(seconds: float, database: Database, broker: Broker, rate: float, seed: int) -> bool:
    """Run, and print the result; whether it is good. Raises AssertionError where a check does not hold."""
    chance = random.Random(seed)
    form = Form(full=True, seed=seed, random=chance)
    record = Record(scenario="F42", test="soak", database=database, broker=broker, form="soak", seed=seed)
    with _servers(broker) as (postgresql, rabbitmq, factory):
        site = factory(database=database, broker=broker, **form.settings)
        with Workload(site, form, record, tasks=0, rate=rate) as load:
            run = Soak(site, load, chance, postgresql, rabbitmq)
            run.run(seconds)
            load.finish()
        balance = load.check(stop=False)
        kept = {member.pid for member in session_members(run.steady.pid)} == run.members
        load.stop()
    return tell(balance, record, run, kept)


def tell(balance: Balance, record: Record, run: Soak, kept: bool) -> bool:
    """Print balance, faults and drift; whether nothing is wrong."""
    print(
        f"\n{balance.committed:,} committed + {balance.unknown:,} unknown = {balance.sent:,} published;"
        f" {balance.rolled_back:,} rolled back"
        f"\n{balance.completed:,} completed, {balance.failed:,} failed; {len(balance.lost)} lost,"
        f" {len(balance.phantom)} phantom, {balance.extra_runs} plain tasks and {len(balance.doubled_atomic)} atomic"
        " tasks run too often"
    )
    print(f"{sum(run.counts.values())} faults: " + ", ".join(f"{name} {n}" for name, n in sorted(run.counts.items())))
    times = record.recoveries
    if times:
        print(
            f"Killed tasks began again after {quantile(times, 0.5):.2f} s (p50), {quantile(times, 0.95):.2f} s (p95),"
            f" {max(times):.2f} s at most"
        )
    print(
        f"Publishing took {balance.publish_p50 * 1000:.1f} ms (p50), {balance.publish_p99 * 1000:.1f} ms (p99),"
        f" {balance.publish_max * 1000:.0f} ms at most"
    )
    good = balance.failed == 0
    for name, (first, last) in run.drift().items():
        share = (last - first) / first if first else 0.0
        unit, divisor = (" MiB", 1 << 20) if name == "memory" else ("", 1)
        print(f"{name:12} {first / divisor:7.1f}{unit} -> {last / divisor:7.1f}{unit}  {share:+.1%}")
        good = good and share <= DRIFT
    print(f"The steady service {'kept all its processes' if kept else 'LOST a process'}.")
    print("passed" if good and kept else "FAILED")
    return good and kept


@contextlib.contextmanager
def _servers(broker: Broker) -> Iterator[tuple[PostgreSQL, RabbitMQ | None, ProjectFactory]]:
    place = new_place()
    try:
        postgresql, rabbitmq = PostgreSQL(place), RabbitMQ(place) if broker == "amqp" else None
        if rabbitmq is not None:
            rabbitmq.start()
        with tempfile.TemporaryDirectory(prefix="carrot-soak-") as directory, contextlib.ExitStack() as at_end:
            factory = ProjectFactory(Path(directory), postgresql)
            at_end.callback(factory.remove_templates)
            url = rabbitmq.add_vhost("soak") if rabbitmq is not None else ""
            yield postgresql, rabbitmq, factory.for_one_test("soak", lambda: url, at_end)
    finally:
        remove_place(place)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
