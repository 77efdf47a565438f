"""The site's process, on the first port that is free."""

from __future__ import annotations

import os
import socket
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from launcher import DemoError
from launcher.browser import LOGIN, Browser
from launcher.processes import LOOK, Child

HOST = "127.0.0.1"
#: Ports that are tried, from the wanted one on.
PORTS = 100
#: Seconds until the site must answer.
PATIENCE = 60.0
#: Seconds it gets to end.
GRACE = 5.0


def start_site(manage: Path, log: Path, wanted: int, running: ExitStack) -> tuple[Child, int]:
    """Start the site and wait until it answers; return it with its port. ``running`` ends it. Raises DemoError."""
    for port in range(wanted, min(wanted + PORTS, 65536)):
        if not _is_free(port):
            continue
        # --insecure: static files come from Django itself, whatever DEBUG is; fit for a demo and nothing else.
        words = [str(manage), "runserver", "--noreload", "--insecure", f"{HOST}:{port}"]
        site = Child("site", [sys.executable, *words], env=os.environ, cwd=manage.parent, log=log)
        running.callback(site.end, GRACE)
        ends = time.monotonic() + PATIENCE
        browser = Browser(f"http://{HOST}:{port}")
        while site.status is None and time.monotonic() < ends:
            if browser.get(LOGIN).status == 200 and site.status is None:
                return site, port
            time.sleep(LOOK)
        if "already in use" in site.output():
            continue  # somebody was faster
        raise DemoError(f"The site does not answer on port {port}; its log {log} ends with\n{site.tail()}")
    raise DemoError(f"No port from {wanted} on is free; give another --port.")


def _is_free(port: int) -> bool:
    """Whether a server could listen there. Raises DemoError for a port that this user may not have."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        if probe.connect_ex((HOST, port)) == 0:
            return False  # on some systems one may bind next to a server of all addresses, and gets nothing
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except PermissionError:
            raise DemoError(f"Port {port} is for the system's administrator; give a --port above 1023.") from None
        except OSError:
            return False
    return True
