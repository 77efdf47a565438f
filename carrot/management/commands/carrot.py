"""``manage.py carrot``: runs the service in the foreground."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from carrot import logs
from carrot.conf import QueueSettings, get_queue, get_settings
from carrot.exceptions import CarrotConfigException, ServiceError
from carrot.service import Service

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
MAX_PROCESSES = 256


def process_count(text: str) -> int:
    """An ``argparse`` type: 1 to 256."""
    if not text.isdecimal() or not 1 <= int(text) <= MAX_PROCESSES:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of processes: give 1 to {MAX_PROCESSES}")
    return int(text)


def log_level(text: str) -> str:
    """An ``argparse`` type: the name of a level of ``logging``, in any case."""
    if text.upper() not in LEVELS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a log level: give one of {', '.join(LEVELS)}")
    return text.upper()


def add_service_arguments(parser: CommandParser) -> None:
    """The options that ``carrot`` and ``carrot_daemon`` share."""
    parser.add_argument("-l", "--logfile", help=f"log file (default: {logs.DEFAULT_LOGFILE})")
    parser.add_argument(
        "--loglevel", type=log_level, default="DEBUG", help="DEBUG (default), INFO, WARNING, ERROR, CRITICAL"
    )
    parser.add_argument("--no-scheduler", action="store_true", help="do not publish scheduled tasks")
    parser.add_argument("--testmode", action="store_true", help="handle what is due now, then stop")
    parser.add_argument("--processes", type=process_count, default=1, metavar="N", help="worker processes (default: 1)")
    parser.add_argument("--queue", action="append", metavar="NAME", help="consume this queue only; may be repeated")


def chosen_queues(names: list[str] | None) -> list[QueueSettings]:
    """The queues to consume: those named, or every consumable one of the settings. Raises ``CommandError``."""
    try:
        if names:
            queues = [get_queue(name) for name in dict.fromkeys(names)]
            handed_over = [queue.name for queue in queues if not queue.consumable]
            if handed_over:
                raise CommandError(f"{', '.join(handed_over)}: not consumable by the settings (consumable: False).")
            return queues
        queues = [queue for queue in get_settings().queues.values() if queue.consumable]
    except CarrotConfigException as error:
        raise CommandError(str(error)) from error
    if not queues:
        raise CommandError('No queue to consume: every entry of CARROT["queues"] has consumable: False.')
    return queues


def make_service(
    options: Mapping[str, Any],
    queues: Sequence[QueueSettings],
    say: Callable[[str], None],
    ready: Callable[[], None] = lambda: None,
) -> Service:
    """The service that these options of the command line mean, not yet running."""
    return Service(
        get_settings(),
        queues,
        processes=options["processes"],
        testmode=options["testmode"],
        scheduler=not options["no_scheduler"],
        say=say,
        ready=ready,
    )


class Command(BaseCommand):
    help = "Consumes tasks from the configured brokers, and publishes scheduled tasks at their intervals."

    def add_arguments(self, parser: CommandParser) -> None:
        add_service_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        queues = chosen_queues(options["queue"])
        try:
            logs.configure(options["logfile"], getattr(logging, options["loglevel"]))
            status = make_service(options, queues, self._say).run()
        except ServiceError as error:
            raise CommandError(str(error)) from error
        if status:
            sys.exit(status)

    def _say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()
