"""The registered tasks: those that may be started without Python code, from the admin or by another program's message.

Registered are the functions marked with ``@carrot.task`` that the ``tasks`` module of an installed app defines, imports
or has in its submodules, and of every module in the setting ``task_modules`` the public functions that it defines, or
those that its ``__all__`` names. This is the same in every process of a project, whatever else it imported.

Python code may publish any importable function; `carrot.functions` knows those. This module is the front door of both.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import FunctionType, MappingProxyType, ModuleType
from typing import Any

from django.apps import apps
from django.core.signals import setting_changed
from django.utils.module_loading import module_has_submodule

from carrot.conf import get_settings
from carrot.exceptions import CarrotConfigException, InvalidTask, TaskAttributeError
from carrot.functions import TaskOptions, function_at, options_of, task, task_options, validate_task
from carrot.signatures import check_call, parameter_names, reserved_parameters, signature_text

__all__ = [
    "TaskChoice",
    "TaskGroup",
    "TaskOptions",
    "check_call",
    "choices",
    "is_atomic",
    "is_registered",
    "load",
    "load_errors",
    "names",
    "parameter_names",
    "reserved_parameters",
    "resolve",
    "task",
    "task_options",
    "validate_task",
]

_SHOWN = 20
_SUMMARY = 200


@dataclass(frozen=True, kw_only=True)
class TaskChoice:
    """A registered task as people choose it."""

    path: str
    name: str
    #: ``(a, b=2)``
    signature: str
    #: the first line of its docstring, or ""
    summary: str


@dataclass(frozen=True, kw_only=True)
class TaskGroup:
    """The registered tasks of one module."""

    module: str
    tasks: tuple[TaskChoice, ...]


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    tasks: dict[str, FunctionType] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


_loaded: _Loaded | None = None
_lock = threading.Lock()
_loading = threading.local()


def load() -> None:
    """Imports the modules with registered tasks, once per process; the other functions here do so at need.

    Safe in threads. Never raises: a module that fails is remembered in `load_errors` and the others still count. Does
    nothing before Django's apps are ready.
    """
    _tasks()


def load_errors() -> Mapping[str, str]:
    """Modules whose tasks are missing, with the reason; the key ``CARROT`` stands for wrong settings."""
    return MappingProxyType(_tasks().errors)


def names() -> tuple[str, ...]:
    """The dotted paths of all registered tasks, sorted."""
    return tuple(sorted(_tasks().tasks))


def is_registered(path: str) -> bool:
    """Whether the admin and other programs may start this task."""
    return path in _tasks().tasks


def resolve(path: str, *, registered_only: bool) -> FunctionType:
    """The function to run for a row. With ``registered_only`` no path outside the registry is ever imported.

    Raises `TaskImportError` or `TaskAttributeError`; the text names the known tasks.
    """
    if registered_only and not is_registered(path):
        raise TaskAttributeError(f"Unknown task {_cut(path)}: it is not registered. {_known(path)}")
    try:
        return function_at(path)
    except InvalidTask as error:
        raise type(error)(f"Unknown task {_cut(path)}: {error} {_known(path)}") from error


def is_atomic(function: FunctionType) -> bool:
    """Whether what a task does in the database and its end are one transaction."""
    options = options_of(function)
    return options is not None and options.atomic


def choices() -> tuple[TaskGroup, ...]:
    """The registered tasks grouped by module, sorted, with what a person needs to choose one."""
    groups: dict[str, list[TaskChoice]] = {}
    for path, function in sorted(_tasks().tasks.items()):
        module, _, name = path.rpartition(".")
        lines = (inspect.getdoc(function) or "").strip().splitlines()
        groups.setdefault(module, []).append(
            TaskChoice(
                path=path,
                name=name,
                signature=signature_text(function),
                summary=lines[0].strip()[:_SUMMARY] if lines else "",
            )
        )
    return tuple(TaskGroup(module=module, tasks=tuple(tasks)) for module, tasks in sorted(groups.items()))


def clear() -> None:
    """Forgets what was loaded; the next question loads again. For tests that change the settings."""
    global _loaded
    with _lock:
        _loaded = None


def _forget_on_change(*, setting: str, **kwargs: Any) -> None:
    if setting in ("CARROT", "INSTALLED_APPS"):
        clear()


setting_changed.connect(_forget_on_change, dispatch_uid="carrot.registry")


def _tasks() -> _Loaded:
    global _loaded
    if _loaded is not None:
        return _loaded
    # Modules are imported without holding a lock of ours: another thread may hold the import lock of one of them while
    # it asks us. Two threads may therefore do this at once, with the same result; the first one's counts. A tasks
    # module that asks while it is imported by this thread gets what is there, and that is not kept: it is not all.
    if not apps.models_ready or getattr(_loading, "active", False):
        return _Loaded()
    _loading.active = True
    try:
        loaded, complete = _load()
    finally:
        _loading.active = False
    with _lock:
        if complete and _loaded is None:
            _loaded = loaded
    return _loaded or loaded


def _load() -> tuple[_Loaded, bool]:
    """Everything registered, and whether all modules had been imported to their end."""
    loaded, complete = _Loaded(), True
    for name, of_app in _modules(loaded.errors):
        module = _import(name, loaded.errors)
        if module is None:
            continue
        complete = complete and not getattr(module.__spec__, "_initializing", False)
        loaded.tasks.update(_marked(module))
        if not of_app:
            loaded.tasks.update(_public(module, loaded.errors))
    return loaded, complete


def _modules(errors: dict[str, str]) -> Iterator[tuple[str, bool]]:
    """Names of the modules to import, and whether each is the ``tasks`` module of an app."""
    for config in apps.get_app_configs():
        if config.module is not None and module_has_submodule(config.module, "tasks"):
            yield f"{config.name}.tasks", True
    try:
        task_modules = get_settings().task_modules
    except CarrotConfigException as error:
        errors["CARROT"] = str(error)
        return
    for name in task_modules:
        yield name, False


def _import(name: str, errors: dict[str, str]) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        # Whatever a module of the project does: the tasks of the others must still run.
        errors[name] = f"{type(error).__name__}: {error}"
        return None


def _marked(module: ModuleType) -> Iterator[tuple[str, FunctionType]]:
    """The marked functions that a module or its imported submodules hold, by the paths of their definitions."""
    inside = f"{module.__name__}."
    for owner in [module, *(other for name, other in list(sys.modules.items()) if name.startswith(inside))]:
        for value in list(vars(owner).values()):
            if isinstance(value, FunctionType) and options_of(value) is not None:
                try:
                    yield validate_task(value), value
                except InvalidTask:
                    # An inner function that an outer decorator replaced: the module's own name for it is what counts.
                    continue


def _public(module: ModuleType, errors: dict[str, str]) -> Iterator[tuple[str, FunctionType]]:
    """The public functions that a module defines, or the functions that its ``__all__`` names."""
    content = vars(module)
    exported = content.get("__all__")
    if exported is None:
        exported = [
            name
            for name, value in content.items()
            if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
        ]
    for name in list(exported):
        value = getattr(module, name, None)
        if value is None:
            errors[module.__name__] = f"AttributeError: its __all__ names {name!r}, which it does not define"
        elif isinstance(value, FunctionType):
            try:
                yield validate_task(value), value
            except InvalidTask:
                # Made by another function: the name it has here leads to it all the same.
                yield f"{module.__name__}.{name}", value


def _known(path: str) -> str:
    """What to do about an unknown task: why its module is missing, and the names there are, the likeliest first."""
    known = names()
    text = f"Known tasks: {', '.join(_likeliest(path, known))}" if known else "There are no registered tasks"
    if len(known) > _SHOWN:
        text += f" and {len(known) - _SHOWN} more"
    failed = load_errors().get(path.rpartition(".")[0])
    if failed is not None:
        text = f"Its module did not import ({failed}). {text}"
    return (
        f"{text}. Mark the function with @carrot.task in tasks.py of an installed app, "
        "or name its module in CARROT['task_modules']."
    )


def _likeliest(path: str, known: tuple[str, ...]) -> list[str]:
    close = difflib.get_close_matches(path[:_SUMMARY], known, n=3)
    return [*close, *(name for name in known if name not in close)][:_SHOWN]


def _cut(path: str) -> str:
    return repr(path if len(path) <= _SUMMARY else f"{path[:_SUMMARY]}…")
