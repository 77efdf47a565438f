"""Where the demo keeps things: one state directory, in it the environments and the sites.

A site is a database, an account, logs and reports. It is used again by the next run, and by one run at a time.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from launcher import DemoError


def find_state(checkout: Path) -> Path:
    """The state directory: in the checkout, else in the user's cache, else with the temporary files.

    It is of this user, and nobody else can read it: it holds sessions and passwords. Raises DemoError.
    """
    tried = []
    for directory in _candidates(checkout):
        tried.append(str(directory))
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = directory.lstat()
        except OSError:
            continue
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and os.access(directory, os.W_OK | os.X_OK):
            directory.chmod(0o700)
            return directory
    raise DemoError(f"None of these directories can be written: {', '.join(tried)}; set TMPDIR to one that can.")


def _candidates(checkout: Path) -> Iterator[Path]:
    yield checkout / "demo" / ".state"
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if os.path.isabs(cache):
        yield Path(cache) / "django-carrot-demo"
    yield Path(tempfile.gettempdir()) / f"django-carrot-demo-{os.geteuid()}"


def lock(path: Path, how: int) -> int | None:
    """Take a lock for as long as this process lives, whatever it becomes by exec; None if somebody else holds it.

    ``how`` is one of fcntl.LOCK_EX, LOCK_SH, perhaps with LOCK_NB; without that it waits and never returns None.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, how)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    os.set_inheritable(descriptor, True)  # by exec; subprocesses close what they are not given
    return descriptor


def take_site(state: Path, checkout: Path) -> Path:
    """A site that no other demo uses: an old one whose tables are those of this checkout, else a new one."""
    sites = state / "sites"
    sites.mkdir(exist_ok=True)
    migrations = _migrations(checkout)
    for site in sorted(sites.iterdir()):
        if not site.is_dir():
            continue
        descriptor = lock(site / "lock", fcntl.LOCK_EX | fcntl.LOCK_NB)
        if descriptor is None:
            continue
        if _fits(site, migrations):
            _note(site, migrations)
            return site
        # The tables were made by migrations that have changed since: nothing can be made of them.
        shutil.rmtree(site, ignore_errors=True)
        os.close(descriptor)
    site = sites / secrets.token_hex(2)
    site.mkdir()
    lock(site / "lock", fcntl.LOCK_EX)
    (site / "secret-key").write_text(secrets.token_urlsafe(50), "ascii")
    _note(site, migrations)
    return site


def _migrations(checkout: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((checkout / "carrot" / "migrations").glob("[0-9]*.py"))
    }


def _note(site: Path, migrations: dict[str, str]) -> None:
    (site / "migrations.json").write_text(json.dumps(migrations), "ascii")


def _fits(site: Path, migrations: dict[str, str]) -> bool:
    """Whether every migration that a site may have applied is still there, as it was."""
    try:
        noted = json.loads((site / "migrations.json").read_text("ascii"))
    except (OSError, ValueError):
        return False  # its making was interrupted
    return (site / "secret-key").exists() and all(migrations.get(name) == content for name, content in noted.items())
