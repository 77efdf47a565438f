"""django-carrot: a task queue for Django over RabbitMQ in which every task is a row.

Importing this package needs neither Django settings nor the app registry: ``tasks.py`` modules, ``setup.py`` and
documentation builds may import it at any time.
"""

__version__ = "2.0.0"

#: the broker of projects whose settings name none
DEFAULT_BROKER = "amqp://guest:guest@localhost:5672/"

# After the constants: what it imports may in turn read them from the half-built package.
from carrot.functions import task  # noqa: E402

__all__ = ["DEFAULT_BROKER", "__version__", "task"]
