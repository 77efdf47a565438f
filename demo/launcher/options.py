"""What can be said on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from launcher.broker import EMBEDDED

DEFAULT_PORT = 8000


@dataclass(frozen=True, kw_only=True)
class Options:
    """The words of the command line, understood."""

    check: bool
    #: the first port to try
    port: int
    #: a URL
    broker: str


def port(text: str) -> int:
    """An ``argparse`` type: 1 to 65535."""
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: give a number from 1 to 65535")
    return int(text)


def read_options(words: Sequence[str]) -> Options:
    """Understand the command line. Raises SystemExit after printing the help, or what is wrong."""
    parser = argparse.ArgumentParser(
        prog="scripts/demo",
        description="A small site with django-carrot, its service and real tasks, in an environment of its own.",
        epilog="Everything is kept in demo/.state (a cache directory where the checkout is not yours), "
        "which may be deleted at any time the demo does not run.",
    )
    parser.add_argument(
        "--check", action="store_true", help="do not stay: look at every task and page, and say what is wrong"
    )
    parser.add_argument(
        "--port",
        type=port,
        default=DEFAULT_PORT,
        metavar="N",
        help=f"the site's port, or the next free one (default: {DEFAULT_PORT})",
    )
    parser.add_argument(
        "--broker",
        default=EMBEDDED,
        metavar="URL",
        help="run on RabbitMQ: amqp://user:password@host:5672/vhost (default: the embedded broker)",
    )
    known = parser.parse_args(words)
    return Options(check=known.check, port=known.port, broker=known.broker)
