"""Opens pid and log files as the service does, as another user if it is told so, and says what came of it.

Run by :data:`COMMAND` with UID PATH…; prints JSON: for each path what each way to open it led to.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from contextlib import closing

# All imported before the rights are gone: the checkout may be for the eyes of another user alone.
import carrot.trusted_file  # noqa: F401
from carrot.daemon_log import DaemonLog
from carrot.exceptions import ServiceError
from carrot.logs import LogFile
from carrot.pidfile import PidFile

#: What ``python -c`` is to run, with the settings of the tests: the log knows of tasks, and so of models.
COMMAND = "import sys, django; django.setup(); from tests.security import opener; opener.main(*sys.argv[1:])"

#: What a way to open a file led to, if it was not refused.
OPENED, KEPT = "opened", "goes on in the old file"


def hold(path: str) -> str:
    """As ``carrot_daemon start`` does with its pid file."""
    with PidFile(path):
        return OPENED


def look(path: str) -> str:
    """As ``carrot_daemon stop`` and ``status`` do."""
    file = PidFile(path)
    assert not file.exists() or not file.is_held()
    assert file.holder() is None
    file.pid_left()
    return OPENED


def clear(path: str) -> str:
    """As ``carrot_daemon stop`` does with a file that was left behind."""
    PidFile(path).clear()
    return OPENED


def log(path: str) -> str:
    """As ``carrot`` does with its log file."""
    with closing(LogFile(path)) as file:
        file.handle(_line())
    return OPENED


def daemon_log(path: str) -> str:
    """As ``carrot_daemon`` does."""
    with closing(DaemonLog(path)) as file:
        file.handle(_line())
    return OPENED


def rotate(path: str) -> str:
    """As both do when their file was moved away, and something else stands in its place."""
    for kind in (LogFile, DaemonLog):
        with closing(kind(f"{path}.moved")) as file:
            file.baseFilename = path
            file.handle(_line())
        with open(f"{path}.moved") as moved:
            followed = not moved.read()
        os.unlink(f"{path}.moved")
        if followed:
            return OPENED
    return KEPT


WAYS: dict[str, Callable[[str], str]] = {way.__name__: way for way in (look, log, daemon_log, rotate, hold, clear)}


def _line() -> logging.LogRecord:
    return logging.LogRecord("carrot", logging.INFO, "", 1, "a line", None, None)


def _attempt(way: Callable[[str], str], path: str) -> str:
    try:
        return way(path)
    except ServiceError as error:
        return str(error)


def main(user: str, *paths: str) -> None:
    uid = int(user)
    if uid != os.geteuid():
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    print(json.dumps({path: {name: _attempt(way, path) for name, way in WAYS.items()} for path in paths}))
