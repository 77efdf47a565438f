"""Where the service's log lines go: the console and a file."""

from __future__ import annotations

import logging
import sys
from logging.handlers import WatchedFileHandler
from pathlib import Path

from carrot.exceptions import ServiceError

DEFAULT_LOGFILE = "/var/log/carrot.log"
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
#: Libraries whose own debugging is not the operator's business; a project's LOGGING may say otherwise.
QUIET = ("pika", "django", "asyncio", "psycopg")


def configure(logfile: str | None, level: int) -> None:
    """Sends what carrot and the project log at ``level`` and above to the console and to ``logfile``.

    None: :data:`DEFAULT_LOGFILE`, and where that cannot be written the console alone, with one line that names the
    option. Handlers and levels that the project's LOGGING has set stay. Raises :class:`ServiceError` for a given path
    that cannot be written.
    """
    root = logging.getLogger()
    formatter = logging.Formatter(FORMAT)
    if not any(_to_console(handler) for handler in root.handlers):
        console = logging.StreamHandler(sys.stdout)
        console.setFormatter(formatter)
        root.addHandler(console)
    path = logfile or DEFAULT_LOGFILE
    try:
        # Opened anew when something like logrotate has moved the file.
        handler = WatchedFileHandler(Path(path).absolute(), encoding="utf-8")
    except OSError as error:
        if logfile is not None:
            raise ServiceError(
                f"The log file {path} cannot be written ({error.strerror}): give another --logfile."
            ) from error
        print(  # noqa: T201
            f"The log file {path} cannot be written ({error.strerror}); logging to the console. --logfile sets another."
        )
    else:
        handler.setFormatter(formatter)
        root.addHandler(handler)
    set_level(level)


def set_level(level: int) -> None:
    """Lets the root logger's handlers pass what is at ``level`` and above, and of other libraries what is serious.

    The loggers themselves stay open: the task logs keep every level, whatever the console shows.
    """
    root = logging.getLogger()
    root.setLevel(logging.DEBUG)
    for handler in root.handlers:
        handler.setLevel(max(handler.level, level))
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger(name).level))


def _to_console(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and handler.stream in (sys.stdout, sys.stderr)
