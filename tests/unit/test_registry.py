"""The registered tasks."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.apps import apps
from django.test import override_settings

from carrot import registry
from carrot.exceptions import TaskAttributeError, TaskImportError

_numbers = itertools.count()

Package = Callable[..., str]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Package]:
    """Makes a package out of file names and contents, and returns its name."""
    monkeypatch.syspath_prepend(tmp_path)
    made: list[str] = []

    def make(**files: str) -> str:
        name = f"registry_package_{next(_numbers)}"
        made.append(name)
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
        for path, content in files.items():
            file = tmp_path / name / f"{path.replace('__in__', '/')}.py"
            file.parent.mkdir(exist_ok=True)
            file.write_text("from carrot import task\n" + content.replace("PACKAGE", name))
        return name

    registry.clear()
    yield make
    registry.clear()
    for name in [name for name in sys.modules if name.partition(".")[0] in made]:
        del sys.modules[name]


def names_in(package: str) -> list[str]:
    return [name.removeprefix(f"{package}.") for name in registry.names() if name.startswith(f"{package}.")]


def as_app(name: str) -> override_settings:
    return override_settings(INSTALLED_APPS=["carrot", name])


def as_task_module(*names: str) -> override_settings:
    return override_settings(CARROT={"task_modules": list(names)})


def test_marked_functions_of_the_tasks_of_an_app_are_registered(package: Package) -> None:
    name = package(tasks="@task\ndef marked(): pass\n@task\ndef _private(): pass\ndef unmarked(): pass\n")
    with as_app(name):
        assert names_in(name) == ["tasks._private", "tasks.marked"]
        assert registry.is_registered(f"{name}.tasks.marked")
        assert not registry.is_registered(f"{name}.tasks.unmarked")
    assert names_in(name) == []


def test_marked_functions_that_tasks_imports_or_has_in_submodules_are_registered(package: Package) -> None:
    name = package(
        jobs="@task\ndef job(): pass\n",
        elsewhere="@task\ndef not_imported(): pass\n",
        tasks__in____init__="from PACKAGE.jobs import job\nfrom PACKAGE.tasks import emails\n",
        tasks__in__emails="@task\ndef send(): pass\n",
    )
    with as_app(name):
        __import__(f"{name}.elsewhere")
        assert names_in(name) == ["jobs.job", "tasks.emails.send"]


def test_public_functions_of_task_modules_are_registered_and_imported_ones_are_not(package: Package) -> None:
    name = package(
        jobs="""
from os.path import join
from functools import partial
from json import dumps
CONSTANT = 5
class Class: pass
def public(): pass
async def asynchronous(): pass
def _private(): pass
@task
def _marked(): pass
bound = partial(public)
"""
    )
    with as_task_module(f"{name}.jobs"):
        assert names_in(name) == ["jobs._marked", "jobs.asynchronous", "jobs.public"]
        assert not registry.is_registered("posixpath.join")
        assert not registry.is_registered("json.dumps")
        assert not registry.load_errors()


def test_all_says_what_a_task_module_offers(package: Package) -> None:
    name = package(
        library="def imported(): pass\n",
        jobs="""
from PACKAGE.library import imported
__all__ = ["imported", "_chosen", "CONSTANT", "made"]
CONSTANT = 5
def _chosen(): pass
def left_out(): pass
def make():
    def inner(): pass
    return inner
made = make()
""",
    )
    with as_task_module(f"{name}.jobs"):
        assert names_in(name) == ["jobs._chosen", "jobs.made", "library.imported"]
        assert registry.resolve(f"{name}.jobs.made", registered_only=True).__name__ == "inner"


def test_a_name_in_all_that_does_not_exist_is_an_error_of_its_module(package: Package) -> None:
    name = package(jobs="__all__ = ['gone', 'there']\ndef there(): pass\n")
    with as_task_module(f"{name}.jobs"):
        assert names_in(name) == ["jobs.there"]
        assert "'gone'" in registry.load_errors()[f"{name}.jobs"]


@pytest.mark.parametrize("fault", ["1 / 0", "raise SystemExit", "def f(:", "import no_such_package"])
def test_a_module_that_fails_is_remembered_and_the_others_load(package: Package, fault: str) -> None:
    name = package(good="def there(): pass\n", bad=fault)
    with as_task_module(f"{name}.bad", f"{name}.good", f"{name}.missing"):
        registry.load()
        assert names_in(name) == ["good.there"]
        assert set(registry.load_errors()) == {f"{name}.bad", f"{name}.missing"}
        with pytest.raises(TaskAttributeError, match="Its module did not import"):
            registry.resolve(f"{name}.bad.f", registered_only=True)


def test_wrong_settings_are_a_load_error_and_nothing_is_raised() -> None:
    with override_settings(CARROT={"task_modules": 5}):
        registry.load()
        assert "task_modules" in registry.load_errors()["CARROT"]


def test_nothing_is_registered_before_the_apps_are_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.clear()
    monkeypatch.setattr(apps, "models_ready", False)
    assert registry.names() == ()
    monkeypatch.setattr(apps, "models_ready", True)
    assert registry.is_registered("tests.app.tasks.add")


def test_modules_are_loaded_once(package: Package) -> None:
    name = package(jobs="def there(): pass\n")
    with as_task_module(f"{name}.jobs"):
        registry.load()
        del sys.modules[f"{name}.jobs"]
        assert names_in(name) == ["jobs.there"]
        assert f"{name}.jobs" not in sys.modules


def test_a_tasks_module_may_ask_the_registry_while_it_is_loaded(package: Package) -> None:
    name = package(jobs="from carrot import registry\nseen = registry.names()\ndef after(): pass\n")
    with as_task_module(f"{name}.jobs"):
        assert names_in(name) == ["jobs.after"]


def test_a_module_half_imported_by_this_thread_is_asked_again_later(package: Package) -> None:
    name = package(jobs="from carrot import registry\nseen = registry.names()\ndef after(): pass\n")
    with as_task_module(f"{name}.jobs"):
        __import__(f"{name}.jobs")
        assert names_in(name) == ["jobs.after"]


def test_many_threads_load_at_once_and_see_all(package: Package) -> None:
    name = package(jobs="def there(): pass\n")
    found: list[list[str]] = []
    start = threading.Barrier(8)

    def ask() -> None:
        start.wait(10)
        found.append(names_in(name))

    with as_task_module(f"{name}.jobs"):
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert found == [["jobs.there"]] * 8


def test_a_thread_that_imports_a_tasks_module_does_not_deadlock_with_one_that_loads(package: Package) -> None:
    name = package(
        gate="import threading\nentered, go_on = threading.Event(), threading.Event()\n",
        jobs="from PACKAGE import gate\nfrom carrot import registry\n"
        "gate.entered.set()\ngate.go_on.wait(10)\nregistry.names()\ndef there(): pass\n",
    )
    gate: Any = __import__(f"{name}.gate", fromlist=["gate"])
    found: list[list[str]] = []
    with as_task_module(f"{name}.jobs"):
        importer = threading.Thread(target=__import__, args=(f"{name}.jobs",), daemon=True)
        loader = threading.Thread(target=lambda: found.append(names_in(name)), daemon=True)
        importer.start()
        assert gate.entered.wait(10)
        loader.start()
        # The loader now waits for the module that the importer holds; the importer then asks the registry.
        gate.go_on.set()
        importer.join(10)
        loader.join(10)
        assert not importer.is_alive()
        assert not loader.is_alive()
        assert found == [["jobs.there"]]


def test_registered_tasks_resolve_to_their_functions() -> None:
    function = registry.resolve("tests.app.tasks.add", registered_only=True)
    assert function is registry.resolve("tests.app.tasks.add", registered_only=False)
    assert function(1, 2) == 3


@pytest.mark.parametrize(
    "path", ["antigravity.fly", "os.system", "builtins.eval", "", "x", "a" * 100_000, "a.b\0", "../etc"]
)
def test_only_registered_paths_are_ever_imported_for_rows_from_elsewhere(path: str) -> None:
    before = set(sys.modules)
    with pytest.raises(TaskAttributeError, match="Unknown task") as caught:
        registry.resolve(path, registered_only=True)
    assert set(sys.modules) == before
    assert "tests.app.tasks.add" in str(caught.value)
    assert "@carrot.task" in str(caught.value)
    assert len(str(caught.value)) < 3000


def test_code_may_name_any_function() -> None:
    assert registry.resolve("posixpath.join", registered_only=False)("a", "b") == "a/b"
    with pytest.raises(TaskImportError, match=r"Unknown task 'no_such_package.add': .* Known tasks: "):
        registry.resolve("no_such_package.add", registered_only=False)
    with pytest.raises(TaskAttributeError, match=r"Unknown task 'posixpath.jion': .*did you mean 'join'"):
        registry.resolve("posixpath.jion", registered_only=False)


def test_the_likeliest_of_many_known_tasks_is_named_first(package: Package) -> None:
    name = package(jobs="\n".join(f"def work_{number}(): pass" for number in range(50)))
    with as_task_module(f"{name}.jobs"), pytest.raises(TaskAttributeError) as caught:
        registry.resolve(f"{name}.jobs.wrok_49", registered_only=True)
    assert f"Known tasks: {name}.jobs.work_4" in str(caught.value)
    assert "more" in str(caught.value)


def test_choices_are_grouped_by_module_with_what_a_person_needs(package: Package) -> None:
    name = package(
        b="def second(a, b=2):\n    '''Does it.\n\n    At length.\n    '''\ndef first(): pass\n",
        a="def only(*, flag: bool = False): '''  '''\n",
    )
    with as_task_module(f"{name}.b", f"{name}.a"):
        groups = [group for group in registry.choices() if group.module.startswith(name)]
    assert [group.module for group in groups] == [f"{name}.a", f"{name}.b"]
    assert [(task.name, task.signature, task.summary) for group in groups for task in group.tasks] == [
        ("only", "(*, flag=False)", ""),
        ("first", "()", ""),
        ("second", "(a, b=2)", "Does it."),
    ]
    assert groups[1].tasks[1].path == f"{name}.b.second"


def test_no_known_tasks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with override_settings(INSTALLED_APPS=["carrot"]), pytest.raises(TaskAttributeError, match="no registered tasks"):
        registry.resolve("a.b", registered_only=True)


def test_the_registry_is_the_front_door_of_functions_and_signatures() -> None:
    assert isinstance(registry, ModuleType)
    assert all(hasattr(registry, name) for name in registry.__all__)
