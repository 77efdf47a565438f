"""Schedulers that are killed at the worst moment: after the INSERT of the tasks, before the COMMIT."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

#: Names the file that is the death of the next scheduler that publishes, which removes it.
VARIABLE = "CARROT_TEST_DEADLY_SCHEDULER"


def make_mortal(path: str) -> None:
    """Have the schedulers of this process, and of those it forks, look for their death."""
    from carrot import scheduler  # which needs the models

    death = Path(path)
    whole = scheduler.publish_many

    def publish_and_die(messages: Any) -> Any:
        rows = whole(messages)
        if rows and death.exists():
            death.unlink(missing_ok=True)
            os.kill(os.getpid(), signal.SIGKILL)
        return rows

    vars(scheduler)["publish_many"] = publish_and_die
