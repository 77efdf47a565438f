"""``manage.py carrot_daemon``: starts, stops, restarts and looks at the service as a daemon."""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.module_loading import import_string

from carrot.conf import DEFAULT_CONSUMER, QueueSettings
from carrot.exceptions import ServiceError
from carrot.logs import DEFAULT_LOGFILE
from carrot.management.commands.carrot import add_service_arguments, chosen_queues, make_service

if TYPE_CHECKING:
    from carrot.daemon import Launch
    from carrot.pidfile import PidFile
    from carrot.service import Service

DEFAULT_PIDFILE = "/var/run/carrot.pid"
MODES = ("start", "stop", "restart", "status")

#: The exit code of ``status`` where it cannot tell: 1 and 3 have meanings of their own (Linux Standard Base).
UNKNOWN = 4


class Command(BaseCommand):
    help = "Runs the carrot service as a daemon: start, stop, restart, status."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("mode", nargs="?", choices=MODES, default="start", help="default: start")
        parser.add_argument(
            "-p",
            "--pidfile",
            default=DEFAULT_PIDFILE,
            help=f"pid file (default: {DEFAULT_PIDFILE}); give all modes the same",
        )
        add_service_arguments(parser)
        parser.add_argument(
            "--consumer-class", metavar="PATH", help="consume all queues with this subclass of carrot.consumer.Consumer"
        )
        parser.add_argument(
            "--hard", action="store_true", help="stop, restart: do not wait for running tasks; they run again"
        )

    def execute(self, *args: Any, **options: Any) -> str | None:
        # Broken settings must keep nobody from stopping the service, nor make a status look like that of a dead one.
        if options["mode"] in ("stop", "status"):
            options["skip_checks"] = True
        return super().execute(*args, **options)

    def handle(self, *args: Any, **options: Any) -> None:
        mode = options["mode"]
        if options["hard"] and mode not in ("stop", "restart"):
            raise CommandError(f"--hard goes with stop and restart, not with {mode}.")
        if sys.platform == "win32":
            raise CommandError("A daemon needs Linux, macOS or another Unix.")
        try:
            self._do(mode, options)
        except ServiceError as error:
            raise CommandError(str(error), returncode=UNKNOWN if mode == "status" else 1) from error
        except KeyboardInterrupt:
            raise CommandError("Interrupted; carrot_daemon status tells how the service is.", returncode=130) from None

    def _do(self, mode: str, options: dict[str, Any]) -> None:
        from carrot import daemon  # needs fork() and a pid file's lock: no import for --help elsewhere
        from carrot.pidfile import PidFile

        pidfile = PidFile(options["pidfile"])
        if mode == "status":
            code = daemon.status(pidfile, self._say)
            if code:
                sys.exit(code)
            return
        if mode == "stop":
            daemon.stop(pidfile, self._say, hard=options["hard"])
            return
        launch = self._launch(pidfile, options)  # before the stop: what cannot start again is not stopped
        try:
            if mode == "restart":
                daemon.stop(pidfile, self._say, hard=options["hard"])
            pid = daemon.start(launch)
        finally:
            launch.log.close()
        self._say(f"carrot has started: process {pid}, log file {launch.log.baseFilename}, pid file {pidfile.path}")

    def _launch(self, pidfile: PidFile, options: dict[str, Any]) -> Launch:
        from carrot.daemon import Launch
        from carrot.daemon_log import DaemonLog

        queues = with_consumer(chosen_queues(options["queue"]), options["consumer_class"])

        def service(say: Callable[[str], None], ready: Callable[[], None]) -> Service:
            return make_service(options, queues, say, ready)

        return Launch(
            pidfile=pidfile,
            log=DaemonLog(options["logfile"] or DEFAULT_LOGFILE),
            level=getattr(logging, options["loglevel"]),
            make_service=service,
        )

    def _say(self, text: str) -> None:
        if sys.stdout is not None:  # closed by the caller (>&-)
            self.stdout.write(text)
            self.stdout.flush()


def with_consumer(queues: Sequence[QueueSettings], path: str | None) -> list[QueueSettings]:
    """The queues, consumed by the class at ``path`` if one is given.

    Raises ``CommandError`` for a path that leads to no consumer class.
    """
    if path is None:
        return list(queues)
    try:
        found = import_string(path)
    except Exception as error:
        raise CommandError(
            f"--consumer-class {path} cannot be imported ({type(error).__name__}: {error}): give the dotted path of a "
            f"subclass of {DEFAULT_CONSUMER}."
        ) from error
    if not isinstance(found, type) or not issubclass(found, import_string(DEFAULT_CONSUMER)):
        raise CommandError(f"--consumer-class {path} is not a subclass of {DEFAULT_CONSUMER}: give one that is.")
    return [dataclasses.replace(queue, consumer_class=path) for queue in queues]
