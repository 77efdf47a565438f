"""Where the service's log lines go, the console and a file, and what a line is."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from io import TextIOWrapper

from carrot.context import as_entry
from carrot.exceptions import ServiceError

DEFAULT_LOGFILE = "/var/log/carrot.log"
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
#: Libraries whose own debugging is not the operator's business; a project's LOGGING may say otherwise.
QUIET = ("pika", "django", "asyncio", "psycopg")


class LineFormatter(logging.Formatter):
    """A record as a line. What follows a line break in it is indented, and control characters are written out: what a
    stranger's message says forges no line, and does nothing to a terminal."""

    def __init__(self) -> None:
        super().__init__(FORMAT)

    def format(self, record: logging.LogRecord) -> str:
        return as_entry(super().format(record))


class LogFile(logging.FileHandler):
    """Opens ``path`` at once and only adds to it; opens it anew when something like logrotate has moved it away.

    Raises ``ServiceError`` for a path that cannot be written, or cannot be trusted.
    """

    #: The rights of a file that is made; the umask takes from them.
    rights = 0o666

    def __init__(self, path: str) -> None:
        super().__init__(os.path.abspath(path), encoding="utf-8", errors="backslashreplace")
        self.setFormatter(LineFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        stream: TextIOWrapper | None = self.stream
        if stream is not None and self._is_moved(stream):
            # Where none can be opened it goes on in the one that is open: better there than nowhere. And closing that
            # one fails where the disk was full: no thread is to end, and no task to fail, over lines that are lost.
            with suppress(ServiceError, OSError):
                self.stream = self._open()
                stream.close()
        super().emit(record)

    def _is_moved(self, stream: TextIOWrapper) -> bool:
        try:
            return not os.path.samestat(os.fstat(stream.fileno()), os.lstat(self.baseFilename))
        except OSError:  # away, or where nobody can look any more
            return True

    def _open(self) -> TextIOWrapper:
        return open(self._opened(), "a", encoding="utf-8", errors="backslashreplace")

    def _opened(self) -> int:
        from carrot.trusted_file import open_trusted  # needs a Unix, and the command its --help anywhere

        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        fd = open_trusted(self.baseFilename, flags, option="--logfile", what="log file", rights=self.rights)
        if fd is None:
            raise ServiceError(f"The log file {self.baseFilename} cannot be written: give another --logfile.")
        return fd


def configure(logfile: str | None, level: int) -> None:
    """Sends what carrot and the project log at ``level`` and above to the console and to ``logfile``.

    None: :data:`DEFAULT_LOGFILE`, and where that cannot be written the console alone, with one line that names the
    option. Handlers and levels that the project's LOGGING has set stay. Raises :class:`ServiceError` for a given path
    that cannot be written, or cannot be trusted.
    """
    root = logging.getLogger()
    if not any(_to_console(handler) for handler in root.handlers):
        console = logging.StreamHandler(sys.stdout)
        console.setFormatter(LineFormatter())
        root.addHandler(console)
    try:
        root.addHandler(LogFile(logfile or DEFAULT_LOGFILE))
    except ServiceError as error:
        if logfile is not None:
            raise
        print(f"{error} Logging to the console alone.")  # noqa: T201
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
