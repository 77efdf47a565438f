"""The environment of the demo: a virtual environment with the checkout installed, made once for each state of it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from launcher import DemoError
from launcher.processes import run
from launcher.state import lock

#: What the distribution is built from.
SOURCES = ("carrot", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")
#: The same function as the other scripts use: venv, virtualenv, uv, or apt-get; else a sentence that names the package.
CREATE = '. scripts/environment.sh; python=$1; create_environment "$2"'
#: Variables that would lead Python, pip or Django elsewhere begin with one of these.
MISLEADING = (
    *("PYTHON", "VIRTUAL_ENV", "__PYVENV", "DJANGO_", "CARROT", "DEMO_"),
    *("PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_ROOT", "PIP_REQUIRE_VIRTUALENV", "PIP_PYTHON"),
)
#: Lines of pip's output that are shown when it fails.
SHOWN = 30


def ready_environment(state: Path, checkout: Path) -> Path:
    """Return the interpreter of an environment with this checkout installed; make it if need be. Raises DemoError.

    Neither the system's Python nor the checkout is written to.
    """
    environments = state / "environments"
    environments.mkdir(exist_ok=True)
    key = _key(checkout)
    directory, python = environments / key, environments / key / "bin" / "python"
    lock_path = environments / f"{key}.lock"
    held = lock(lock_path, fcntl.LOCK_SH)
    if not _is_complete(directory) and held is not None:
        os.close(held)
        held = lock(lock_path, fcntl.LOCK_EX)  # another demo may be making it: then this waits
        if not _is_complete(directory):
            _make(directory, python, checkout)
        if held is not None:
            fcntl.flock(held, fcntl.LOCK_SH)
    _remove_others(environments, key)
    return python


def clean_variables() -> dict[str, str]:
    """The environment variables without those that lead Python, pip or Django elsewhere."""
    return {name: value for name, value in os.environ.items() if not name.startswith(MISLEADING)}


def _key(checkout: Path) -> str:
    content = hashlib.sha256(f"{sys.version} {sys.executable}".encode())
    for path in _sources(checkout):
        content.update(str(path.relative_to(checkout)).encode() + b"\0" + path.read_bytes() + b"\0")
    return f"python{sys.version_info[0]}.{sys.version_info[1]}-{content.hexdigest()[:12]}"


def _sources(checkout: Path) -> Iterator[Path]:
    for name in SOURCES:
        top = checkout / name
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path


def _is_complete(directory: Path) -> bool:
    # The interpreter too: the one the environment was made from may have been uninstalled.
    return (directory / "complete").exists() and (directory / "bin" / "python").exists()


def _make(directory: Path, python: Path, checkout: Path) -> None:
    begun = time.monotonic()
    version = sys.version.split()[0]
    print(f"Making an environment with Python {version} in {directory} ...", flush=True)
    if run(["sh", "-euc", CREATE, "sh", sys.executable, str(directory)], cwd=checkout, env=clean_variables()):
        raise SystemExit(1)  # it has said why, and what to install
    with tempfile.TemporaryDirectory(prefix="build-", dir=directory.parent) as scratch:
        # A copy: building leaves build/ and *.egg-info where the sources are.
        for path in _sources(checkout):
            target = Path(scratch) / "django-carrot" / path.relative_to(checkout)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        log = directory.parent / "pip.log"
        words = ["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
        command = [str(python), *words, str(Path(scratch) / "django-carrot")]
        if run(command, cwd=Path(scratch), env=clean_variables(), log=log):
            said = log.read_text("utf-8", "replace").splitlines()[-SHOWN:]
            raise DemoError(
                "The packages could not be installed; check that the package index is reached. pip said:\n"
                + "\n".join(said)
            )
    (directory / "complete").touch()
    print(f"The environment was made in {time.monotonic() - begun:.0f} s; the next run uses it again.", flush=True)


def _remove_others(environments: Path, key: str) -> None:
    """Remove environments of earlier states of the checkout, unless a demo still runs in them."""
    for path in environments.glob("*.lock"):
        if path.stem == key:
            continue
        held = lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if held is not None:
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
            path.unlink(missing_ok=True)
            os.close(held)
