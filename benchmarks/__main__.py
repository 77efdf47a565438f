"""Measures every figure on private servers with their package's defaults, and prints JSON.

    python -m benchmarks [SCENARIO …] [--tasks 20000] [--repeat 3] [--json FILE]

Scenarios: drain_rabbitmq, drain_embedded_postgresql, drain_embedded_sqlite, publish, publish_many, latency, memory.
Of the repetitions the median is the figure; all are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.servers import PostgreSQL, RabbitMQ

ROOT = Path(__file__).resolve().parent.parent
PROCESSES = 2
CONCURRENCY = 4


class Bench:
    """Servers, scratch databases and the site's processes."""

    def __init__(self, directory: Path, tasks: int) -> None:
        self.directory = directory
        self.tasks = tasks
        self.postgresql = PostgreSQL(directory / "pg")
        self.rabbitmq = RabbitMQ(directory / "mq")

    def site(self, database: str, broker: str) -> dict[str, str]:
        """The environment of a fresh, migrated site."""
        name = f"bench_{uuid.uuid4().hex[:12]}"
        env = {**os.environ, "DJANGO_SETTINGS_MODULE": "benchmarks.settings", "PYTHONPATH": str(ROOT)}
        if database == "sqlite":
            env |= {"BENCH_DATABASE": "sqlite", "BENCH_DATABASE_NAME": str(self.directory / f"{name}.sqlite3")}
        else:
            server = urlsplit(self.postgresql.create_database(name))
            env |= {
                "BENCH_DATABASE": "postgresql",
                "BENCH_DATABASE_NAME": name,
                "BENCH_HOST": str(server.hostname),
                "BENCH_PORT": str(server.port),
                "BENCH_USER": unquote(server.username or ""),
                "BENCH_PASSWORD": unquote(server.password or ""),
            }
        url = self.rabbitmq.add_vhost(name) if broker == "rabbitmq" else "database://"
        env["BENCH_CARROT"] = json.dumps(
            {"default_broker": url, "queues": [{"name": "default", "concurrency": CONCURRENCY}]}
        )
        subprocess.run([sys.executable, "-m", "django", "migrate", "-v0"], env=env, check=True, cwd=ROOT)
        return env

    def measure(self, env: dict[str, str], name: str, count: int) -> dict[str, Any]:
        command = [sys.executable, "-m", "benchmarks.measures", name, str(count)]
        done = subprocess.run(command, env=env, check=True, cwd=ROOT, capture_output=True, text=True)
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    def service(self, env: dict[str, str], *options: str) -> subprocess.Popen[bytes]:
        log = self.directory / "service.log"
        command = [sys.executable, "-m", "django", "carrot", "--processes", str(PROCESSES), "--logfile", str(log)]
        with open(self.directory / "service.out", "ab") as out:
            return subprocess.Popen([*command, *options], env=env, cwd=ROOT, stdout=out, stderr=out)

    # -- scenarios ------------------------------------------------------------------------------------------------

    def drain(self, database: str, broker: str) -> dict[str, Any]:
        env = self.site(database, broker)
        self.measure(env, "fill", self.tasks)
        return self.beside(self.service(env), lambda: self.measure(env, "watch", self.tasks))

    def publish(self) -> dict[str, Any]:
        return self.measure(self.site("postgresql", "rabbitmq"), "publish_one_by_one", self.tasks // 4)

    def publish_many(self) -> dict[str, Any]:
        return self.measure(self.site("postgresql", "rabbitmq"), "publish_in_bulk", self.tasks)

    def latency(self) -> dict[str, Any]:
        env = self.site("postgresql", "rabbitmq")

        def measure() -> dict[str, Any]:
            self.measure(env, "latency", 5)  # until the service has declared its queue
            return self.measure(env, "latency", 200)

        return self.beside(self.service(env), measure)

    def memory(self) -> dict[str, Any]:
        """Proportional set size of all processes, after a backlog was drained."""
        env = self.site("postgresql", "rabbitmq")
        service = self.service(env)

        def measure() -> dict[str, Any]:
            self.measure(env, "fill", self.tasks // 4)
            self.measure(env, "watch", self.tasks // 4)
            sizes = [_pss(pid) for pid in [service.pid, *_children(service.pid)]]
            return {"processes": len(sizes), "pss_mib": round(sum(sizes) / 1024, 1)}

        return self.beside(service, measure)

    @staticmethod
    def beside(service: subprocess.Popen[bytes], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Measures while ``service`` runs, and stops it."""
        try:
            return measure()
        finally:
            service.terminate()
            service.wait(60)


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _pss(pid: int) -> int:
    """Kibibytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise ValueError(f"process {pid} has no Pss")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*")
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cb-") as scratch:
        os.chmod(scratch, 0o755)  # the servers run as other users
        bench = Bench(Path(scratch), options.tasks)
        scenarios: dict[str, Callable[[], dict[str, Any]]] = {
            "drain_rabbitmq": lambda: bench.drain("postgresql", "rabbitmq"),
            "drain_embedded_postgresql": lambda: bench.drain("postgresql", "database"),
            "drain_embedded_sqlite": lambda: bench.drain("sqlite", "database"),
            "publish": bench.publish,
            "publish_many": bench.publish_many,
            "latency": bench.latency,
            "memory": bench.memory,
        }
        unknown = set(options.scenarios) - set(scenarios)
        if unknown:
            parser.error(f"no such scenario: {', '.join(sorted(unknown))}. There are: {', '.join(scenarios)}")
        bench.postgresql.start()
        bench.rabbitmq.start()
        try:
            report = run(scenarios, options.scenarios or list(scenarios), options)
        finally:
            bench.rabbitmq.remove()
            bench.postgresql.remove()
    text = json.dumps(report, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


def run(
    scenarios: dict[str, Callable[[], dict[str, Any]]], names: list[str], options: argparse.Namespace
) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for name in names:
        runs = []
        for _ in range(options.repeat):
            runs.append(scenarios[name]())
            print(name, runs[-1], file=sys.stderr, flush=True)
        figures = [key for key in ("per_second", "p50_ms", "pss_mib") if key in runs[0]]
        results[name] = {**{f"median_{key}": statistics.median(r[key] for r in runs) for key in figures}, "runs": runs}
    return {
        "settings": {
            "tasks": options.tasks,
            "processes": PROCESSES,
            "concurrency": CONCURRENCY,
            "queue": "durable classic, persistent messages, confirms",
            "servers": "RabbitMQ and PostgreSQL with their package's defaults, same machine",
            "python": platform.python_version(),
            "cpus": os.cpu_count(),
        },
        "results": results,
    }


if __name__ == "__main__":
    main()
