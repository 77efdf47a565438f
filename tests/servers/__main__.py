"""The private servers of this checkout, for work by hand: ``scripts/servers start|stop|env|status``."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from tests.servers import PostgreSQL, RabbitMQ, ServerError, ensure_installed
from tests.servers.places import locked, place_of_checkout


def main() -> int:
    """Do what the command line says; return the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/servers", description=__doc__)
    actions = {"start": start, "stop": stop, "env": environment, "status": status}
    parser.add_argument(
        "action",
        choices=list(actions),
        help="start: start both and wait until they take connections; stop: end both, keep their data;"
        ' env: print the lines for `eval "$(scripts/servers env)"`; status: what runs where (exit code 3: not both)',
    )
    parser.add_argument("--place", type=Path, help="directory of the servers; default: one in /tmp for this checkout")
    parser.add_argument("--wipe", action="store_true", help="with stop: crash them and delete their data")
    options = parser.parse_args()
    place = options.place.resolve() if options.place else place_of_checkout()
    place.mkdir(mode=0o755, parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, _interrupt)  # so that what is half done is undone
    try:
        with locked(place):
            return actions[options.action](RabbitMQ(place), PostgreSQL(place), place, options.wipe)
    except ServerError as error:
        print(f"scripts/servers {options.action}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def start(rabbitmq: RabbitMQ, postgresql: PostgreSQL, place: Path, wipe: bool) -> int:
    """Install what is missing, start what does not run."""
    ensure_installed()
    for server in (postgresql, rabbitmq):
        begun = time.monotonic()
        server.start()
        print(f"{type(server).__name__} ready after {time.monotonic() - begun:.1f} s, data in {server.directory}")
    return 0


def stop(rabbitmq: RabbitMQ, postgresql: PostgreSQL, place: Path, wipe: bool) -> int:
    """Stop what runs."""
    for server in (rabbitmq, postgresql):
        if wipe:
            server.remove()
        else:
            server.stop()
        print(f"{type(server).__name__} {'removed' if wipe else 'stopped'}")
    return 0


def environment(rabbitmq: RabbitMQ, postgresql: PostgreSQL, place: Path, wipe: bool) -> int:
    """Print where they are, as lines for a shell."""
    if not (rabbitmq.is_running() and postgresql.is_running()):
        raise ServerError("the servers do not run; begin with `scripts/servers start`.")
    print(f"export CARROT_TEST_RABBITMQ={shlex.quote(rabbitmq.url)}")
    print(f"export CARROT_TEST_POSTGRES={shlex.quote(postgresql.url)}")
    print(f"export CARROT_TEST_SERVERS={shlex.quote(str(place))}")
    return 0


def status(rabbitmq: RabbitMQ, postgresql: PostgreSQL, place: Path, wipe: bool) -> int:
    """Say what runs where, without passwords."""
    for server in (rabbitmq, postgresql):
        where = f"runs on 127.0.0.1:{server.port}" if server.is_running() else "does not run"
        print(f"{type(server).__name__} {where}, data in {server.directory}")
    return 0 if rabbitmq.is_running() and postgresql.is_running() else 3


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
