"""The log file of a daemon: where its log lines go, and all that its processes and their children print."""

from __future__ import annotations

import fcntl
import logging
import os
import sys
from io import TextIOWrapper

from carrot import logs
from carrot.exceptions import ServiceError
from carrot.trusted_file import open_trusted


class DaemonLog(logging.FileHandler):
    """Opens ``path`` at once and only adds to it; opens it anew when something like logrotate has moved it away.

    Raises ``ServiceError`` for a path that cannot be written, or cannot be trusted.
    """

    def __init__(self, path: str) -> None:
        self._takes_output = False
        super().__init__(os.path.abspath(path), encoding="utf-8", errors="backslashreplace")
        self.setFormatter(logging.Formatter(logs.FORMAT))

    def fileno(self) -> int:
        """The descriptor of the file, so that ``DaemonContext`` takes this object for a file."""
        return self._stream.fileno()

    @property
    def _stream(self) -> TextIOWrapper:
        if self.stream is None:
            raise ValueError("The log file is closed.")  # as closed files do
        return self.stream

    def take_over(self, level: int) -> None:
        """From now on all log lines, standard output and standard error of this process and its children go here."""
        root = logging.getLogger()
        consoles = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
        for handler in list(root.handlers):
            if isinstance(handler, logging.StreamHandler) and handler.stream in consoles:
                root.removeHandler(handler)  # its lines would come here a second time
        root.addHandler(self)
        logs.set_level(level)
        self._takes_output = True
        self._redirect(self._stream.fileno())
        # By lines, whatever they were before: what a task prints is wanted before the process ends.
        sys.stdout, sys.stderr = (
            os.fdopen(number, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
            for number in (1, 2)
        )

    def emit(self, record: logging.LogRecord) -> None:
        self._follow()
        super().emit(record)

    def _follow(self) -> None:
        try:
            if os.path.samestat(os.fstat(self._stream.fileno()), os.lstat(self.baseFilename)):
                return
        except FileNotFoundError:
            pass  # moved away
        try:
            stream = self._open()
        except ServiceError:
            return  # goes on in the file that is open: better there than nowhere
        self._stream.close()
        self.stream = stream

    def _open(self) -> TextIOWrapper:
        opened = open_trusted(
            self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT, option="--logfile", what="log file"
        )
        if opened is None:
            raise ServiceError(f"The log file {self.baseFilename} cannot be written: give another --logfile.")
        # Never 0, 1 or 2, which are free where the caller had closed them: they are to be the standard streams.
        fd = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, 3)
        os.close(opened)
        if self._takes_output:
            self._redirect(fd)
        return open(fd, "a", encoding="utf-8", errors="backslashreplace")

    def _redirect(self, fd: int) -> None:
        for number in (1, 2):
            os.dup2(fd, number)
