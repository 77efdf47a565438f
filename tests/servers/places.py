"""Where private servers keep their data: short paths in the temporary directory, which every account can reach.

carrot-<uid>-<checkout>/      servers started for work by hand; one place per checkout
carrot-<uid>-run-<random>/    servers of one test run; removed at its end, or by the next run after it was killed
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.postgresql import PostgreSQL
from tests.servers.process import Process, ServerError
from tests.servers.rabbitmq import RabbitMQ

CHECKOUT = Path(__file__).resolve().parent.parent.parent
_PREFIX = f"carrot-{os.geteuid()}-"


def place_of_checkout() -> Path:
    """Return (and make) the directory of the servers that belong to this checkout."""
    key = hashlib.sha256(str(CHECKOUT).encode()).hexdigest()[:8]
    return _own_directory(_temporary() / f"{_PREFIX}{key}")


def new_place() -> Path:
    """Make a directory for the servers of this process; what killed runs left behind is stopped and removed first."""
    _sweep()
    place = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}run-", dir=_temporary()))
    place.chmod(0o755)
    owner = Process.of(os.getpid())
    if owner is None:
        raise ServerError("This process does not find itself in the list of processes.")
    written = place / "owner.new"
    written.write_text(f"{owner.pid} {owner.started}")
    written.rename(place / "owner")  # at once: another run may be sweeping
    return place


def remove_place(place: Path) -> None:
    """Crash the servers that run in ``place`` and delete everything."""
    for base in (*place.glob("node-*"), place):  # nodes of a cluster; one server
        RabbitMQ(base).remove()
    PostgreSQL(place).remove()
    shutil.rmtree(place, ignore_errors=True)


@contextmanager
def locked(place: Path) -> Iterator[None]:
    """Hold ``place`` for one starter or stopper at a time; others wait."""
    with open(place / "lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _sweep() -> None:
    for place in _temporary().glob(f"{_PREFIX}run-*"):
        try:
            pid, _, started = (place / "owner").read_text().partition(" ")
        except OSError:
            continue  # being made at this moment
        if not Process(pid=int(pid), started=started).alive:
            remove_place(place)


def _temporary() -> Path:
    """Return the temporary directory, unless it is one of those long private ones: then /tmp."""
    usual = Path(tempfile.gettempdir())
    return usual if len(str(usual)) <= 40 else Path("/tmp")  # what we make there is checked to be ours


def _own_directory(path: Path) -> Path:
    path.mkdir(mode=0o755, exist_ok=True)
    found = path.lstat()
    if path.is_symlink() or found.st_uid != os.geteuid():
        raise ServerError(f"{path} belongs to user {found.st_uid}, not to us: remove it.")
    path.chmod(0o755)
    return path
