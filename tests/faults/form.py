"""How large and how long: the short form, part of every test run, or the full one with the figures of the workload.

CARROT_FAULTS       short (default) | full
CARROT_FAULTS_SEED  what everything random is made from; default: 1 in the short form, random in the full one
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from typing import Any

SHORT_SEED = 1


@dataclass(frozen=True, kw_only=True)
class Form:
    """Sizes and durations of one test; ``random`` is its own, the same in every run with the same seed."""

    full: bool
    seed: int
    random: random.Random = field(default_factory=random.Random)

    @property
    def tasks(self) -> int:
        """How many tasks the workload publishes at least."""
        return self.times(300, 5000)

    @property
    def rate(self) -> float:
        """Publications a second, of all producers together."""
        return 80.0 if not self.full else 100.0

    @property
    def settings(self) -> dict[str, Any]:
        """Keys of the setting CARROT: short leases in the short form, the defaults in the full one."""
        return {} if self.full else {"lease": 3.0, "heartbeat": 0.5}

    @property
    def calm_settings(self) -> dict[str, Any]:
        """``settings`` where the lease is not what is tested: no busy machine lets this one end."""
        return self.settings | {"lease": self.seconds(15.0, 30.0)}

    @property
    def lease(self) -> float:
        """Seconds of the lease that ``settings`` make."""
        return 30.0 if self.full else 3.0

    def times(self, short: int, full: int) -> int:
        """How often."""
        return full if self.full else short

    def seconds(self, short: float, full: float) -> float:
        """How long."""
        return full if self.full else short

    def limit(self, seconds: float) -> float:
        """The bound to assert for a promised time: the promise in the full form, which has the machine for itself.

        The short form runs beside other tests, so it allows much more; what was measured is in the report either way.
        """
        return seconds if self.full else 5.0 * seconds + 5.0


def form_of_run() -> Form:
    """The form that the environment asks for."""
    name = os.environ.get("CARROT_FAULTS", "short")
    if name not in ("short", "full"):
        raise ValueError(f"CARROT_FAULTS is {name!r}; allowed are short and full.")
    full = name == "full"
    if "CARROT_FAULTS_SEED" not in os.environ:  # once in a run: the same for all tests
        os.environ["CARROT_FAULTS_SEED"] = str(random.randrange(1, 1_000_000) if full else SHORT_SEED)
    return Form(full=full, seed=int(os.environ["CARROT_FAULTS_SEED"]))


def form_of_test(name: str) -> Form:
    """The form of one test, with a random generator that depends on nothing but the seed and the test's name."""
    run = form_of_run()
    return Form(full=run.full, seed=run.seed, random=random.Random(f"{run.seed} {name}"))
