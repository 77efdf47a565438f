"""The wheel holds what users need and says what it needs."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

import carrot

pytestmark = [pytest.mark.slow, pytest.mark.acceptance]  # no database is used: once is enough

CHECKOUT = Path(__file__).resolve().parents[2]
SOURCES = ["carrot", "tests", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"]
#: one of each kind of file that is no Python module, should the package have none of them at this moment
SAMPLES = ["templates/admin/carrot/sample.html", "static/carrot/img/sample.svg", "locale/de/LC_MESSAGES/sample.mo"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, since a build leaves directories behind; in a path with a space."""
    copy = tmp_path_factory.mktemp("a checkout")
    for name in SOURCES:
        origin = CHECKOUT / name
        if origin.is_dir():
            shutil.copytree(origin, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(origin, copy)
    for name in SAMPLES:
        sample = copy / "carrot" / name
        sample.parent.mkdir(parents=True, exist_ok=True)
        sample.touch()
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """The wheel built from the copy."""
    target = tmp_path_factory.mktemp("wheel")
    command: list[str | Path] = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    command += ["-w", target, source]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = target.iterdir()
    assert re.fullmatch(r"django_carrot-[\d.]+\w*-py3-none-any\.whl", path.name)
    with zipfile.ZipFile(path) as archive:
        yield archive


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return Parser().parsestr(wheel.read(name).decode())


def test_every_file_of_the_package_is_in_the_wheel_and_nothing_else(source: Path, wheel: zipfile.ZipFile) -> None:
    package = {str(path.relative_to(source)) for path in (source / "carrot").rglob("*") if path.is_file()}
    assert {f"carrot/{name}" for name in SAMPLES} | {"carrot/py.typed"} <= package
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == package


def test_the_wheel_carries_the_licence(wheel: zipfile.ZipFile) -> None:
    (name,) = [name for name in wheel.namelist() if name.endswith("/LICENSE")]
    assert b"Apache License" in wheel.read(name)


def test_name_and_version_are_those_of_the_package(metadata: Message) -> None:
    assert metadata["Name"] == "django-carrot"
    assert metadata["Version"] == carrot.__version__


def test_python_is_bounded_below_only(metadata: Message) -> None:
    assert metadata["Requires-Python"] == ">=3.10"


def test_it_needs_what_the_package_imports_and_no_more(metadata: Message) -> None:
    needed = {requirement for requirement in metadata.get_all("Requires-Dist", []) if "extra ==" not in requirement}
    names = {re.split(r"[<>=;~!\s]", requirement)[0].lower() for requirement in needed}
    assert names == {
        "cronsim",
        "django",
        "django-admin-rangefilter",
        "django-json-widget",
        "pika",
        "pygments",
        "python-daemon",
    }
    (daemon,) = [requirement for requirement in needed if requirement.startswith("python-daemon")]
    assert re.search(r"platform_system != [\"']Windows[\"']", daemon)


def test_the_extras_of_the_documentation_exist(metadata: Message) -> None:
    assert {"postgres", "tasks", "metrics"} <= set(metadata.get_all("Provides-Extra", []))


def test_the_readme_is_the_description(metadata: Message) -> None:
    assert metadata["Description-Content-Type"] == "text/markdown"
    payload = metadata.get_payload()
    assert isinstance(payload, str)
    assert payload.strip() == (CHECKOUT / "README.md").read_text("utf-8").strip()


def test_the_version_is_read_without_importing_the_package(source: Path, tmp_path: Path) -> None:
    """A build happens where Django is not installed: -S -I leaves only the standard library and setuptools."""
    found = importlib.util.find_spec("setuptools")
    assert found is not None
    assert found.origin is not None
    site_packages = Path(found.origin).parent.parent
    only_setuptools = tmp_path / "site"
    only_setuptools.mkdir()
    for name in ("setuptools", "pkg_resources", "_distutils_hack"):
        if (site_packages / name).exists():
            (only_setuptools / name).symlink_to(site_packages / name)
    code = f"import sys; sys.path[:0] = [{str(only_setuptools)!r}]; sys.argv = ['setup.py', '--version'];"
    code += "import runpy; runpy.run_path('setup.py', run_name='__main__')"
    command = [sys.executable, "-I", "-S", "-c", code]
    asked = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.split()[-1] == carrot.__version__
