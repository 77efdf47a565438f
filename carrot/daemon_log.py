"""The log file of a daemon: where its log lines go, and all that its processes and their children print."""

from __future__ import annotations

import fcntl
import logging
import os
import sys
from io import BufferedWriter, FileIO, TextIOWrapper
from typing import Any

from carrot.logs import LogFile, set_level


class Printed(FileIO):
    """What is printed, on its way into the log. What a full disk does not take is lost: no task fails over it."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


class DaemonLog(LogFile):
    """A log file that can also take what is printed. For its user alone, as everything a daemon makes.

    Raises ``ServiceError`` for a path that cannot be written, or cannot be trusted.
    """

    rights = 0o600

    def __init__(self, path: str) -> None:
        self._takes_output = False
        super().__init__(path)

    def fileno(self) -> int:
        """The descriptor of the file, so that ``DaemonContext`` takes this object for a file."""
        if self.stream is None:
            raise ValueError("The log file is closed.")  # as closed files do
        return self.stream.fileno()

    def take_over(self, level: int) -> None:
        """From now on all log lines, standard output and standard error of this process and its children go here."""
        root = logging.getLogger()
        consoles = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
        for handler in list(root.handlers):
            if isinstance(handler, logging.StreamHandler) and handler.stream in consoles:
                root.removeHandler(handler)  # its lines would come here a second time
        root.addHandler(self)
        set_level(level)
        self._takes_output = True
        self._redirect(self.fileno())
        # By lines, whatever they were before: what a task prints is wanted before the process ends.
        sys.stdout, sys.stderr = (
            TextIOWrapper(
                BufferedWriter(Printed(number, "w", closefd=False)),
                encoding="utf-8",
                errors="backslashreplace",
                line_buffering=True,
            )
            for number in (1, 2)
        )

    def _opened(self) -> int:
        opened = super()._opened()
        # Never 0, 1 or 2, which are free where the caller had closed them: they are to be the standard streams.
        fd = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, 3)
        os.close(opened)
        if self._takes_output:
            self._redirect(fd)
        return fd

    def _redirect(self, fd: int) -> None:
        for number in (1, 2):
            os.dup2(fd, number)
