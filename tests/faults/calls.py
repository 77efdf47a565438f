"""How long those who publish had to wait."""

from __future__ import annotations

from tests.faults.form import Form
from tests.faults.workload import Workload

#: Seconds that 99 of 100 publications may take while the broker is in trouble: promised, and in the short form, whose
#: calls wait for a processor and a database that are shared with other tests.
PROMISED, SHARED = 0.05, 0.25
#: Seconds any publication may take: far less than a connection attempt, or than the trouble lasts.
LONGEST = 2.0


def never_waited(load: Workload, form: Form, since: float, until: float) -> None:
    """Check that nobody waited for the broker who published between two moments on time.monotonic."""
    p99 = load.publish_p99(since, until)
    longest = max(call.took for call in load.calls() if since <= call.ended <= until)
    if load.scenario is not None:
        load.scenario.publish_away = max(load.scenario.publish_away or 0.0, p99)
    assert p99 < form.seconds(SHARED, PROMISED), (p99, longest)
    assert longest < LONGEST, (p99, longest)
