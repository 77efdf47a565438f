"""One measurement, in a process of the measured site: ``python -m benchmarks.measures NAME COUNT``; prints JSON."""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

import django

django.setup()

from benchmarks import tasks
from carrot import publisher
from carrot.models import MessageLog
from carrot.services import create_message, publish_many, publish_message

FLUSH = 60.0


def fill(count: int) -> dict[str, Any]:
    """A backlog of ``count`` tasks, every message confirmed."""
    publish_many(create_message(tasks.noop, "default") for _ in range(count))
    if not publisher.flush(FLUSH):
        raise SystemExit("the backlog was not confirmed in time")
    return {"published": count}


def publish_one_by_one(count: int) -> dict[str, Any]:
    """Each in autocommit; timed until the broker has confirmed the last."""
    publish_message(tasks.noop)
    publisher.flush(FLUSH)
    began = time.perf_counter()
    for _ in range(count):
        publish_message(tasks.noop)
    called = time.perf_counter()
    settled = publisher.flush(FLUSH)
    ended = time.perf_counter()
    return {
        "published": count,
        "settled": settled,
        "per_second": round(count / (ended - began)),
        "per_second_calls_alone": round(count / (called - began)),
    }


def publish_in_bulk(count: int) -> dict[str, Any]:
    """One ``publish_many``, its messages made beforehand; timed until the last confirm."""
    publish_message(tasks.noop)
    publisher.flush(FLUSH)
    began = time.perf_counter()
    messages = [create_message(tasks.noop, "default") for _ in range(count)]
    publish_many(messages)
    settled = publisher.flush(FLUSH)
    return {"published": count, "settled": settled, "per_second": round(count / (time.perf_counter() - began))}


def latency(count: int) -> dict[str, Any]:
    """From the call of ``publish_message`` to the recorded completion, one task at a time, in milliseconds."""
    took = []
    for _ in range(count):
        began = time.perf_counter()
        row = publish_message(tasks.noop)
        while not MessageLog.objects.filter(pk=row.pk, status="COMPLETED").exists():
            time.sleep(0.0005)
        took.append((time.perf_counter() - began) * 1000)
        time.sleep(0.05)
    took.sort()
    return {
        "tasks": count,
        "p50_ms": round(statistics.median(took), 2),
        "p95_ms": round(took[int(len(took) * 0.95)], 2),
        "max_ms": round(took[-1], 2),
    }


def watch(count: int) -> dict[str, Any]:
    """Waits until ``count`` tasks are recorded as completed; the rate between a tenth and nine tenths of them.

    None where most were recorded before the first look.
    """
    marks: dict[float, float] = {}
    began = time.perf_counter()
    while time.perf_counter() - began < FLUSH * 2:
        done = MessageLog.objects.filter(status="COMPLETED").count()
        now = time.perf_counter()
        for part in (0.1, 0.9, 1.0):
            if done >= count * part:
                marks.setdefault(part, now)
        if done >= count:
            took = marks[0.9] - marks[0.1]
            return {"tasks": count, "per_second": round(count * 0.8 / took) if took else None}
        time.sleep(0.02)
    raise SystemExit(f"{done} of {count} tasks were recorded in time")


if __name__ == "__main__":
    measure = {f.__name__: f for f in (fill, publish_one_by_one, publish_in_bulk, latency, watch)}[sys.argv[1]]
    print(json.dumps(measure(int(sys.argv[2]))))
    sys.stdout.flush()
