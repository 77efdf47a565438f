"""Schedules under faults: which of their slots were taken, and that each stands for one task."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import datetime, timezone
from typing import Any

from tests.faults.load import Journal
from tests.project import Project

NOTE = "tests.faults.fault_tasks.note"
#: Writes down every slot that is taken, in the transaction that takes it.
LOG = {
    "sqlite": [
        "CREATE TABLE slot_log (id INTEGER PRIMARY KEY, schedule TEXT, slot TEXT)",
        """CREATE TRIGGER log_slot AFTER UPDATE OF last_slot ON carrot_scheduledtask
        BEGIN INSERT INTO slot_log (schedule, slot) VALUES (NEW.task_name, NEW.last_slot); END""",
    ],
    "postgresql": [
        "CREATE TABLE slot_log (id BIGSERIAL PRIMARY KEY, schedule TEXT, slot TIMESTAMPTZ)",
        """CREATE FUNCTION log_slot() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO slot_log (schedule, slot) VALUES (NEW.task_name, NEW.last_slot); RETURN NULL; END $$""",
        """CREATE TRIGGER log_slot AFTER UPDATE OF last_slot ON carrot_scheduledtask
        FOR EACH ROW EXECUTE FUNCTION log_slot()""",
    ],
}


class Schedules:
    """``count`` schedules of one second, and the log of their slots. Each publishes tasks of the schedule's name."""

    def __init__(self, site: Project, journal: Journal, count: int) -> None:
        self._site = site
        self.count = count
        for statement in LOG[site.database]:
            site.sql(statement)
        site.python(
            "from carrot.models import ScheduledTask\n"
            "ScheduledTask.objects.bulk_create(\n"
            f"    ScheduledTask(task_name=f'every-second-{{n}}', task={NOTE!r},\n"
            f"                  args=[{str(journal.path)!r}, f'every-second-{{n}}'])\n"
            f"    for n in range({count}))\n"
        )

    def taken(self) -> int:
        """How many slots have been taken so far."""
        return int(self._site.sql("SELECT count(*) AS n FROM slot_log")[0]["n"])

    def go_on(self, rounds: int, timeout: float = 60.0) -> None:
        """Wait until ``rounds`` more slots of each schedule, on average, are taken."""
        goal = self.taken() + rounds * self.count
        self._site.wait_until(lambda: self.taken() >= goal, timeout, f"{rounds} more slots of each schedule are taken")

    def restart(self) -> None:
        """Disable and enable them: they begin anew."""
        self._site.python("from carrot.models import ScheduledTask as S\nS.objects.disable()\nS.objects.enable()")

    def end(self) -> None:
        """Disable them: from now on no slot is taken."""
        self._site.python("from carrot.models import ScheduledTask\nScheduledTask.objects.disable()")

    def slots(self) -> dict[str, list[datetime]]:
        """The slots of each schedule in the order in which they were taken."""
        found = defaultdict(list)
        for row in self._site.sql("SELECT schedule, slot FROM slot_log ORDER BY id"):
            found[row["schedule"]].append(_moment(row["slot"]))
        return dict(found)

    def check(self) -> None:
        """No slot was taken twice, and there is exactly one task for each. After ``end``."""
        slots = self.slots()
        twice = {name: len(found) - len(set(found)) for name, found in slots.items() if len(found) > len(set(found))}
        assert not twice, f"slots taken more than once: {twice}"
        names = Counter(
            row["task_name"]
            for row in self._site.sql(
                "SELECT s.task_name FROM carrot_messagelog m JOIN carrot_scheduledtask s ON s.args = m.args"
            )
        )
        assert names == {name: len(found) for name, found in slots.items()}, "one task for each slot"


def _moment(value: Any) -> datetime:
    """A time as either database gives it."""
    found = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)
