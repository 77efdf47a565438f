"""What is run."""

import carrot


@carrot.task
def noop() -> None:
    """Nothing: all that is measured is the queue."""
