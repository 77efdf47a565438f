"""Finds the programs of both servers, a browser and libfaketime; as root on Debian or Ubuntu installs what is missing.

No service is started by that.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.process import ServerError

POLICY = Path("/usr/sbin/policy-rc.d")
DENY_ALL = "#!/bin/sh\n# Put here by carrot's tests while they install packages: no service is started.\nexit 101\n"
PACKAGES = {
    "RabbitMQ": "rabbitmq-server",
    "PostgreSQL": "postgresql",
    "Chromium": "chromium",
    "libfaketime": "libfaketime",
}
BROWSERS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
SEARCH_PATH = os.pathsep.join(
    [os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin", "/opt/homebrew/sbin"]
)


def find_rabbitmq() -> Path | None:
    """Return the directory of RabbitMQ's own scripts, or None.

    On Debian the programs on the PATH are wrappers that insist on root or the user rabbitmq: the scripts behind them do
    not.
    """
    places = [Path("/usr/lib/rabbitmq/bin")]
    places += sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin"), reverse=True)
    on_path = shutil.which("rabbitmq-server", path=SEARCH_PATH)
    if on_path:
        places.append(Path(on_path).resolve().parent)
        places.append(Path(on_path).parent)
    for place in places:
        if all((place / name).exists() for name in ("rabbitmq-server", "rabbitmqctl")):
            return place
    return None


def find_postgresql() -> Path | None:
    """Return the directory with ``initdb``, ``pg_ctl``, ``postgres`` and ``psql`` of the newest version, or None."""

    def version(place: Path) -> float:
        found = re.search(r"[\d.]+", place.parent.name)
        return float(found.group()) if found else 0.0

    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=version, reverse=True)
    for name in ("pg_ctl", "initdb", "postgres"):
        on_path = shutil.which(name, path=SEARCH_PATH)
        if on_path:
            places += [Path(on_path).resolve().parent, Path(on_path).parent]
    for place in places:
        if all((place / name).exists() for name in ("initdb", "pg_ctl", "postgres", "psql")):
            return place
    return None


def find_chromium() -> Path | None:
    """Return the program of a Chromium, or of a Chrome, or None."""
    found = next(filter(None, (shutil.which(name, path=SEARCH_PATH) for name in BROWSERS)), None)
    return Path(found) if found else None


def find_faketime() -> Path | None:
    """Return the library that gives a program another clock (its variant for threads), or None."""
    places = [Path("/usr/lib"), Path("/usr/lib64"), Path("/usr/local/lib"), Path("/opt/homebrew/lib")]
    for pattern in ("faketime/libfaketimeMT.*", "*/faketime/libfaketimeMT.so.1", "libfaketimeMT.so.1"):
        for place in places:
            if found := sorted(place.glob(pattern)):
                return found[0]
    return None


def rabbitmq_programs() -> Path:
    """As ``find_rabbitmq``, but raises ServerError that says what to install."""
    found = find_rabbitmq()
    if found is None:
        raise ServerError(_what_to_install(["RabbitMQ"]))
    return found


def postgresql_programs() -> Path:
    """As ``find_postgresql``, but raises ServerError that says what to install."""
    found = find_postgresql()
    if found is None:
        raise ServerError(_what_to_install(["PostgreSQL"]))
    return found


def chromium_program() -> Path:
    """As ``find_chromium``, but raises ServerError that says what to install."""
    found = find_chromium()
    if found is None:
        raise ServerError(_what_to_install(["Chromium"]))
    return found


def faketime_library() -> Path:
    """As ``find_faketime``, but raises ServerError that says what to install."""
    found = find_faketime()
    if found is None:
        raise ServerError(_what_to_install(["libfaketime"]))
    return found


def missing(*, browser: bool = False, faketime: bool = False) -> list[str]:
    """Return the names of the servers (and the browser, and libfaketime) that are not on this machine."""
    found = {"RabbitMQ": find_rabbitmq(), "PostgreSQL": find_postgresql()}
    if browser:
        found["Chromium"] = find_chromium()
    if faketime:
        found["libfaketime"] = find_faketime()
    return [name for name, place in found.items() if place is None]


def ensure_installed(*, browser: bool = False, faketime: bool = False) -> None:
    """Make sure the programs of both servers are there: find them, or as root on Debian or Ubuntu install them.

    With ``browser`` also a Chromium, with ``faketime`` the library. Raises ServerError that says which packages to
    install, where this cannot do it or the installation failed.
    """
    absent = missing(browser=browser, faketime=faketime)
    if not absent:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise ServerError(_what_to_install(absent))
    packages = [PACKAGES[name] for name in absent]
    print(f"Installing {' and '.join(packages)} with apt-get (no service is started) ...", file=sys.stderr, flush=True)
    with _services_held_back():
        _apt("update")
        _apt("install", "-y", "--no-install-recommends", *packages)
    if absent := missing(browser=browser, faketime=faketime):
        raise ServerError(f"apt-get ended well, but no programs were found. {_what_to_install(absent)}")


def _what_to_install(absent: list[str]) -> str:
    debian = " ".join(PACKAGES[name] for name in absent)
    fedora = " ".join({**PACKAGES, "PostgreSQL": "postgresql-server"}[name] for name in absent)
    script = "test" if "Chromium" in absent else "faults" if "libfaketime" in absent else "servers start"
    return (
        f"The tests need {' and '.join(absent)} on this machine; they start private instances themselves.\n"
        f"As root on Debian or Ubuntu `scripts/{script}` installs them; otherwise:\n"
        f"  Debian, Ubuntu:  sudo apt-get install --no-install-recommends {debian}\n"
        f"  Fedora:          sudo dnf install {fedora}\n"
        f"  macOS:           brew install {' '.join(name.lower() for name in absent)}"
    )


def _apt(*words: str) -> None:
    command = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", *words]
    done = subprocess.run(
        command,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        end = "\n".join(done.stdout.splitlines()[-20:])
        raise ServerError(f"{' '.join(command)}: exit code {done.returncode}\n{end}")


@contextmanager
def _services_held_back() -> Iterator[None]:
    """Keep packages from starting their services, by Debian's policy-rc.d; put back afterwards what was there."""
    kept = POLICY.with_name("policy-rc.d.before-carrot")
    if (POLICY.exists() or POLICY.is_symlink()) and not kept.exists():  # it exists after an installation was killed
        POLICY.rename(kept)
    try:
        POLICY.write_text(DENY_ALL)
        POLICY.chmod(0o755)
        yield
    finally:
        POLICY.unlink(missing_ok=True)
        if kept.exists() or kept.is_symlink():
            kept.rename(POLICY)
