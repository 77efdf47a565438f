"""The sources of the standard library that this Python runs on."""

from __future__ import annotations

import sysconfig
from pathlib import Path

LIBRARY = Path(sysconfig.get_path("stdlib"))


def source(name: str) -> Path:
    """The file of a module such as ``argparse.py``. Raises FileNotFoundError that says which was asked for."""
    path = LIBRARY / name
    if not path.is_file():
        raise FileNotFoundError(f"The standard library has no file {name}.")
    return path


def modules() -> list[Path]:
    """The modules that are a single file, the largest first."""
    found = [path for path in LIBRARY.glob("[a-z]*.py") if path.is_file()]
    return sorted(found, key=lambda path: (-path.stat().st_size, path.name))


def packages(limit: int) -> list[Path]:
    """The first packages by name, without tests and what others have installed."""
    found = sorted(path.parent for path in LIBRARY.glob("[a-z]*/__init__.py"))
    return [path for path in found if path.name not in ("site-packages", "dist-packages", "test")][:limit]
