"""The service as a daemon: started, looked at and stopped by ``manage.py carrot_daemon``.

Receives a service that is ready to run; hands its process over to the system, with a pid file that it holds for life.
The command that starts it stays until the service is ready, or until it is known why it cannot be.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import select
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

import daemon
from daemon.daemon import make_default_signal_map
from django.db import connections

from carrot import clock, publisher
from carrot.conf import get_settings
from carrot.daemon_log import DaemonLog
from carrot.exceptions import CarrotConfigException, ServiceError
from carrot.pidfile import PidFile, Process
from carrot.service import OVERTIME, Service
from carrot.work_in_hand import WorkInHand, seconds_in_words

logger = logging.getLogger(__name__)

#: Seconds a daemon may take until it is ready.
START_LIMIT = 60.0
#: Seconds, over the grace, after which ``stop`` gives up: the service kills its workers well before.
STOP_LIMIT = OVERTIME + 20.0
#: Seconds in which a daemon says which process it is, after a command that was interrupted.
INTRODUCTION = 2.0
#: Seconds between two looks at a daemon that is stopping, and at what it still runs.
LOOK = 0.1
LOOK_AT_TASKS = 1.0

#: What ``status`` says with its exit code, as the init scripts of the Linux Standard Base do.
RUNNING, DEAD, STOPPED = 0, 1, 3

READY = "ready"
#: How a daemon begins once it has the pid file: then it is no other's process that is to be ended.
INTRODUCED = re.compile(rb"daemon (\d+)\n")

Say = Callable[[str], None]
#: Makes the service, given where it says things and what it calls when it is ready.
MakeService = Callable[[Say, Callable[[], None]], Service]


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What makes a daemon."""

    pidfile: PidFile
    log: DaemonLog
    level: int
    make_service: MakeService


# -- start ------------------------------------------------------------------------------------------------------------


def start(launch: Launch) -> int:
    """Makes a daemon and blocks until its service is ready; returns its pid.

    Raises ``ServiceError``, with the reason, where the service cannot start: then no process and no pid file is left.
    """
    try:
        directory = os.getcwd()
    except OSError as error:
        raise ServiceError("The working directory is gone: change to one that exists.") from error
    # What is open now would be shared by two processes: the daemon's own processes connect for themselves.
    connections.close_all()
    publisher.close(2.0)
    reader, writer = _pipe()
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.flush()  # or the daemon would print it once more
    child = os.fork()
    if child == 0:
        os.close(reader)
        _become_daemon(launch, directory, _Word(writer))
    os.close(writer)
    with _Hearing(reader) as hearing:
        try:
            if not hearing.listen(START_LIMIT):
                raise ServiceError(
                    f"The service was not ready within {START_LIMIT:g} s and is stopped: its log file says more."
                )
        except BaseException:
            hearing.listen(INTRODUCTION, to_the_end=False)
            if hearing.pid and (process := Process.of(hearing.pid)):
                process.signal(signal.SIGQUIT)
            raise
        finally:
            os.waitpid(child, 0)
    if not hearing.pid or hearing.text != READY:
        raise ServiceError(hearing.text or f"The daemon ended before it could say why: see {launch.log.baseFilename}.")
    return hearing.pid


class _Hearing:
    """What a :class:`_Word` says, at the other end of the pipe."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._heard = b""

    def __enter__(self) -> _Hearing:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def listen(self, seconds: float, *, to_the_end: bool = True) -> bool:
        """Until all is said or the daemon has ended; or, if not ``to_the_end``, until it is known which process it is.
        False where that took longer."""
        ends = clock.monotonic() + seconds
        while to_the_end or not self.pid:
            if not select.select([self._fd], [], [], max(0.0, ends - clock.monotonic()))[0]:
                return False
            chunk = os.read(self._fd, 4096)
            if not chunk:
                break
            self._heard += chunk
        return True

    @property
    def pid(self) -> int:
        """The daemon's; 0 where it has not introduced itself."""
        found = INTRODUCED.match(self._heard)
        return int(found[1]) if found else 0

    @property
    def text(self) -> str:
        """What it says."""
        return INTRODUCED.sub(b"", self._heard, count=1).decode(errors="replace")


class _Word:
    """The daemon's one message to the command that started it, after its name."""

    def __init__(self, fd: int) -> None:
        self._fd: int | None = fd

    def introduce(self) -> None:
        """Says which process the daemon is. Raises ``ServiceError`` where nobody waits for it any more."""
        if self._fd is not None:
            try:
                os.write(self._fd, b"daemon %d\n" % os.getpid())
            except BrokenPipeError:
                raise ServiceError("The command that started this daemon was interrupted.") from None

    def say(self, text: str) -> None:
        """Says it, once; later calls do nothing."""
        if self._fd is not None:
            with contextlib.suppress(BrokenPipeError):  # nobody waits any more
                os.write(self._fd, text.encode(errors="replace"))
        self.close()

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _become_daemon(launch: Launch, directory: str, word: _Word) -> NoReturn:
    """The life of the forked process. Never returns into the code of its parent."""
    status, problem, is_daemon = 1, "", False
    try:
        _open_standard_streams()
        with daemon.DaemonContext(
            detach_process=True,
            umask=0o077,
            working_directory=directory,
            files_preserve=_own_files(),
            stdout=launch.log,
            stderr=launch.log,
            pidfile=launch.pidfile,
            # Until the service handles them: a daemon that is ended leaves no pid file.
            signal_map=make_default_signal_map() | {signal.SIGQUIT: "terminate"},
        ):
            is_daemon = True
            word.introduce()
            os.register_at_fork(after_in_child=word.close)
            launch.log.take_over(launch.level)
            service = launch.make_service(logger.info, lambda: word.say(READY))
            status = service.run()
        # A service in test mode may be done before all of its workers were ready.
        problem = READY if status == 0 else f"The service ended with status {status}; see its log."
    except ServiceError as error:
        problem = str(error)
        if is_daemon:  # else the log file may be that of another daemon, which has the pid file
            logger.error("%s", problem)
    except SystemExit as error:
        problem = str(error)
        logger.error("%s", problem)
    except BaseException as error:
        problem = f"The service cannot start: {type(error).__name__}: {error}"
        logger.exception("The daemon ends over an error.")
    finally:
        word.say(problem)
        logging.shutdown()
        os._exit(status)


def _pipe() -> tuple[int, int]:
    """A pipe whose ends are not 0, 1 or 2, which are free where the caller had closed them."""
    ends = os.pipe()
    moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 3) for end in ends]
    for end in ends:
        os.close(end)
    return moved[0], moved[1]


def _open_standard_streams() -> None:
    """Gives 0, 1 and 2 to the three streams again, as python-daemon expects: the caller may have closed some."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
        setattr(sys, name, os.fdopen(number, mode, closefd=False))


def _own_files() -> list[int]:
    """What this process has opened itself, such as the log files of the project's LOGGING and sockets of its libraries.

    Left open in the daemon, because their owners would go on writing to the number, whatever file had got it by then.
    What was inherited from the caller is not close-on-exec (else it would not be here): it is closed.
    """
    found = []
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):  # the list's own descriptor is closed by now
            if int(name) > 2 and fcntl.fcntl(int(name), fcntl.F_GETFD) & fcntl.FD_CLOEXEC:
                found.append(int(name))
    return found


# -- stop -------------------------------------------------------------------------------------------------------------


def stop(pidfile: PidFile, say: Say, *, hard: bool = False) -> bool:
    """Stops the daemon and blocks until it is gone; False if there was none.

    Its running tasks get the grace to finish; with ``hard`` they go back to their queues at once. Raises
    ``ServiceError`` if it cannot be stopped.
    """
    process = pidfile.wait_for_holder()
    if process is None:
        if pidfile.exists():
            left = pidfile.pid_left()
            pidfile.clear()
            say(
                f"carrot is not running: process {left} has ended, and left the pid file {pidfile.path}. It is removed."
            )
        else:
            say(
                f"carrot is not running: there is no pid file {pidfile.path}. A service started with another --pidfile "
                "is stopped with the same."
            )
        return False
    process.signal(signal.SIGQUIT if hard else signal.SIGTERM)
    say(f"Stopping process {process.pid}{': its running tasks go back to their queues' if hard else ''}.")
    _wait_for_end(process, say, hard=hard)
    say("carrot has stopped.")
    return True


def _wait_for_end(process: Process, say: Say, *, hard: bool) -> None:
    limit = STOP_LIMIT + (0.0 if hard else _grace())
    begun = clock.monotonic()
    look_at = begun
    shown = ""
    while process.alive:
        now = clock.monotonic()
        if now > begun + limit:
            cure = f"end it with kill -9 {process.pid}" if hard else "stop --hard ends it at once"
            raise ServiceError(f"Process {process.pid} still runs after {limit:g} s: {cure}.")
        if now >= look_at and not hard:
            look_at = now + LOOK_AT_TASKS
            waits_for = WorkInHand.of(process.pid).waiting_for()
            if waits_for and waits_for != shown:
                shown = waits_for
                say(waits_for)
        select.select([], [], [], LOOK)


def _grace() -> float:
    try:
        return get_settings().grace
    except CarrotConfigException:
        return 25.0  # a service can be stopped after its settings were broken


# -- status -----------------------------------------------------------------------------------------------------------


def status(pidfile: PidFile, say: Say) -> int:
    """Says how the daemon is; returns ``RUNNING``, ``DEAD`` or ``STOPPED``.

    Raises ``ServiceError`` if it cannot tell.
    """
    process = pidfile.wait_for_holder()
    if process is None and pidfile.exists():
        say(
            f"carrot is dead: process {pidfile.pid_left()} has ended, and left the pid file {pidfile.path}. "
            "The next start takes it over."
        )
        return DEAD
    if process is None:
        say(f"carrot is not running: there is no pid file {pidfile.path}.")
        return STOPPED
    say(f"carrot is running: process {process.pid}, up {seconds_in_words(process.age())}, pid file {pidfile.path}")
    for line in WorkInHand.of(process.pid).lines():
        say(line)
    return RUNNING
