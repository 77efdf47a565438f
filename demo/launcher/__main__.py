"""``scripts/demo``: from a bare interpreter to ``manage.py demo`` in an environment of its own."""
# ruff: noqa: E402 - what concerns signals comes before the other imports

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

# Nothing has begun yet: until `catch_signals`, Ctrl+C just ends this process, without a traceback.
signal.signal(signal.SIGINT, signal.SIG_DFL)

from launcher import DemoError
from launcher.broker import reach
from launcher.environment import clean_variables, ready_environment
from launcher.options import read_options
from launcher.processes import catch_signals
from launcher.state import find_state, take_site

CHECKOUT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Prepare, then become ``manage.py demo``; exit where that is not reached."""
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    catch_signals()
    options = read_options(sys.argv[1:])
    try:
        # First, so that an address nobody answers at is told within seconds, before anything is made.
        broker = reach(options.broker)
        state = find_state(CHECKOUT)
        python = ready_environment(state, CHECKOUT)
        site = take_site(state, CHECKOUT)
    except DemoError as error:
        sys.exit(f"scripts/demo: {error}")
    except OSError as error:
        sys.exit(f"scripts/demo: {error}; make room or give access there, and try again.")
    except KeyboardInterrupt:
        print("Interrupted; nothing is left running.", file=sys.stderr)
        sys.exit(130)
    command = [str(python), str(CHECKOUT / "demo" / "manage.py"), "demo", f"--port={options.port}"]
    command += ["--check"] if options.check else []
    variables = {**clean_variables(), "DEMO_SITE": str(site), "DEMO_BROKER": broker, "PYTHONDONTWRITEBYTECODE": "1"}
    write_manage(site, python)
    sys.stdout.flush()
    os.execve(command[0], command, variables)  # noqa: S606 - the locks on site and environment go along


def write_manage(site: Path, python: Path) -> None:
    """Write the command for work by hand on the site: ``…/manage shell``."""
    words = [str(python), str(CHECKOUT / "demo" / "manage.py")]
    quoted = " ".join("'" + word.replace("'", "'\\''") + "'" for word in [f"DEMO_SITE={site}", *words])
    script = site / "manage"
    script.write_text(f'#!/bin/sh\nexec env {quoted} "$@"\n', "utf-8")
    script.chmod(0o700)


if __name__ == "__main__":
    main()
