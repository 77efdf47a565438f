"""Which functions can be tasks, and where they are found.

A task is named by its dotted path, so that another process can import it: it must be a function at the top level of a
module. ``async def`` functions are tasks like others.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    FunctionType,
    MethodDescriptorType,
    MethodWrapperType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any, NoReturn, TypeAlias, TypeVar, cast, overload
from weakref import WeakKeyDictionary

from carrot.exceptions import TaskAttributeError, TaskImportError

_F = TypeVar("_F", bound=Callable[..., object])

_Names: TypeAlias = "list[str] | tuple[str, ...]"

_MARK = "carrot_task"
_MAX_PRIORITY = 255
_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_MOVE = "move it to the top level of a module, for instance tasks.py of an installed app"

# Where functions live that were typed at a prompt; `manage.py shell -c` runs code in the namespace of its own module.
_SHELLS = frozenset({"__main__", "__console__", "builtins", "django.core.management.commands.shell"})
_PROMPTS = frozenset({"<stdin>", "<console>"})

_BUILT_IN = (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    MethodDescriptorType,
    MethodWrapperType,
    WrapperDescriptorType,
)


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """What ``@carrot.task(...)`` says about a task: used where the publishing code says nothing. None is no opinion."""

    queue: str | None = None
    priority: int | None = None
    #: Names of parameters, and of keys at any depth of the arguments, whose values the monitor masks.
    redact: tuple[str, ...] = ()
    #: Whether the function's work in the database and the task's end are one transaction.
    atomic: bool = False


NO_OPTIONS = TaskOptions()


@overload
def task(
    function: _F, /, *, queue: str | None = ..., priority: int | None = ..., redact: _Names = ..., atomic: bool = ...
) -> _F: ...
@overload
def task(
    *, queue: str | None = ..., priority: int | None = ..., redact: _Names = ..., atomic: bool = ...
) -> Callable[[_F], _F]: ...
def task(
    function: Callable[..., object] | None = None,
    /,
    *,
    queue: str | None = None,
    priority: int | None = None,
    redact: _Names = (),
    atomic: bool = False,
) -> Callable[..., object]:
    """Marks a function of a ``tasks`` module as a task that the admin and other programs may start.

    ``@carrot.task`` or ``@carrot.task(queue="emails", priority=3)``. It returns the same function, callable as before;
    put it above other decorators. ``queue`` and ``priority`` are the defaults of publishing. ``redact=["card"]`` names
    parameters, and keys in the arguments, whose values the monitor masks, beside those the setting ``redact`` tells.
    ``atomic=True``: what the function does in the database that has carrot's tables is committed together with the
    word that the task is completed, so that it counts exactly once; see :mod:`carrot.atomic`.

    Raises `TaskAttributeError` if what is decorated can be no task, TypeError or ValueError for wrong options.
    """
    _check_options(queue, priority, redact, atomic)
    options = TaskOptions(queue=queue, priority=priority, redact=tuple(redact), atomic=atomic)

    def mark(function: _F) -> _F:
        fault = _kind_fault(function) or _place_fault(cast(FunctionType, function))
        if fault is not None:
            raise TaskAttributeError(f"@carrot.task: {_label(function)} {fault}.")
        setattr(function, _MARK, options)
        return function

    return mark if function is None else mark(function)


def _check_options(queue: object, priority: object, redact: object, atomic: object) -> None:
    if queue is not None and (not isinstance(queue, str) or not queue):
        raise TypeError(f"@carrot.task: queue is {queue!r:.50}; it must be the name of a queue.")
    if priority is not None:
        if not isinstance(priority, int) or isinstance(priority, bool):
            raise TypeError(f"@carrot.task: priority is {priority!r:.50}; it must be a whole number.")
        if not 0 <= priority <= _MAX_PRIORITY:
            raise ValueError(f"@carrot.task: priority is {priority}; 0 (last) to {_MAX_PRIORITY} (first) are allowed.")
    if not isinstance(redact, (list, tuple)) or not all(isinstance(name, str) and name for name in redact):
        raise TypeError(f"@carrot.task: redact is {redact!r:.50}; it must be a list of names, as ['card', 'pin'].")
    if not isinstance(atomic, bool):
        raise TypeError(f"@carrot.task: atomic is {atomic!r:.50}; it must be True or False.")


def options_of(function: object) -> TaskOptions | None:
    """What ``@carrot.task`` said about a function; None if it is not marked."""
    options = getattr(function, _MARK, None)
    return options if isinstance(options, TaskOptions) else None


def task_options(path: str) -> TaskOptions:
    """The options of the task at a dotted path, all None for a function that is not marked.

    Raises what `validate_task` raises.
    """
    return options_of(function_at(path)) or NO_OPTIONS


# Validated functions, for as long as they live. A pure cache: two threads that fill it at once write the same.
_paths: WeakKeyDictionary[FunctionType, str] = WeakKeyDictionary()


def validate_task(task: Callable[..., Any] | str) -> str:
    """The dotted path of a task, after making sure that a worker can import it and finds this function there.

    Raises `TaskImportError` (also an ImportError) or `TaskAttributeError` (also an AttributeError), with the cure.
    """
    if isinstance(task, str):
        fault = _kind_fault(function_at(task))
        if fault is not None:
            raise TaskAttributeError(f"{task} {fault}.")
        return task
    path = _paths.get(task) if isinstance(task, FunctionType) else None
    if path is None:
        fault = _kind_fault(task)
        if fault is not None:
            raise TaskAttributeError(f"{_label(task)} {fault}.")
        path = _path_of(cast(FunctionType, task))
        _paths[cast(FunctionType, task)] = path
    return path


def function_at(path: str) -> FunctionType:
    """The function at a dotted path, importing its module if need be. Raises what `validate_task` raises.

    Always what the module holds now: cheap enough for every message, and a test may replace a task by another function.
    """
    module_name, _, name = path.rpartition(".")
    module = sys.modules.get(module_name)
    if module is not None and module_name not in _SHELLS:
        found = getattr(module, name, None)
        if isinstance(found, FunctionType):
            return found
    return _import(path, module_name, name)


def _kind_fault(task: object) -> str | None:
    """Why something is not a plain function, with the cure; None for functions."""
    if isinstance(task, (functools.partial, functools.partialmethod)):
        return "is a functools.partial: publish the function itself, and pass the bound values as arguments"
    if isinstance(task, ModuleType):
        return "is a module: name a function in it"
    if inspect.isclass(task):
        return "is a class: define a function at the top level of a module that uses it, and publish that"
    if inspect.ismethod(task) or isinstance(task, (staticmethod, classmethod)):
        return "is a method: define a function at the top level of a module that calls it, and takes the object's pk"
    if isinstance(task, _BUILT_IN):
        return "is built into Python: define a function at the top level of a module that calls it"
    if not inspect.isfunction(task):
        if callable(task):
            return "is a callable object: define a function at the top level of a module that calls it"
        return "is not a function: pass the function itself, f and not f(), or its dotted path"
    if inspect.isgeneratorfunction(task) or inspect.isasyncgenfunction(task):
        return "is a generator function, and calling it runs nothing: define a function that goes through the generator"
    return None


def _place_fault(function: FunctionType) -> str | None:
    """Why a function cannot be imported by its name, as far as the name tells; None if it might be."""
    if function.__name__ == "<lambda>":
        return "is a lambda, which has no name to import: write it with def at the top level of a module"
    if "<locals>" in function.__qualname__:
        return (
            f"is defined inside another function, where no worker finds it: {_MOVE}; "
            "if a decorator made it, use functools.wraps in the decorator"
        )
    if "." in function.__qualname__:
        return "is a method of a class: define a function at the top level of a module that calls it"
    return None


def _path_of(function: FunctionType) -> str:
    fault = _place_fault(function)
    if fault is not None:
        raise TaskAttributeError(f"{_label(function)} {fault}.")
    # A function typed in Django's shell has no module at all.
    module_name: str | None = function.__module__
    name = function.__qualname__
    if module_name is None or module_name in _SHELLS or function.__code__.co_filename in _PROMPTS:
        _refuse_shell(name, module_name)
    module = sys.modules.get(module_name)
    if module is None:
        module = _import_module(f"{module_name}.{name}", module_name)
    found = getattr(module, name, None)
    if found is not function:
        there = f"holds another {name!r} (a decorator without functools.wraps, a redefinition or a reload)"
        raise TaskAttributeError(
            f"The function {name!r} cannot be imported: its module {module_name} "
            f"{'has no such name' if found is None else there}. Publish what the module holds, at its top level."
        )
    return f"{module_name}.{name}"


def _refuse_shell(name: str, module_name: object) -> NoReturn:
    main = sys.modules.get("__main__")
    script = getattr(main, "__file__", None) if module_name == "__main__" else None
    where = "the script that was started" if script else "a shell"
    raise TaskAttributeError(
        f"The function {name!r} lives in {where}, which no worker can import: save it at the top level of a module, "
        f"for instance tasks.py of an installed app, and import it from there."
    )


def _import(path: str, module_name: str, name: str) -> FunctionType:
    if module_name in _SHELLS:
        _refuse_shell(name, module_name)
    if _PATH.fullmatch(path) is None:
        raise TaskImportError(f"{path!r:.200} is not the dotted path of a function, as 'app.tasks.add'.")
    module = _import_module(path, module_name)
    if not hasattr(module, name):
        functions = [key for key, value in vars(module).items() if isinstance(value, FunctionType)]
        close = difflib.get_close_matches(name, functions, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "check the name, and that workers run the same code."
        raise TaskAttributeError(f"The module {module_name} has no function {name!r}: {hint}")
    found = getattr(module, name)
    if not isinstance(found, FunctionType):
        raise TaskAttributeError(f"{path} {_kind_fault(found)}.")
    return found


def _import_module(path: str, module_name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        parent = sys.modules.get(module_name.rpartition(".")[0])
        if inspect.isclass(getattr(parent, module_name.rpartition(".")[2], None)):
            raise TaskAttributeError(
                f"{path} is a method of a class: define a function at the top level of a module that calls it."
            ) from None
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise TaskImportError(
                f"{path} cannot be imported: there is no module {error.name!r}. Check the spelling and the Python path."
            ) from error
        raise TaskImportError(f"{path} cannot be imported: its module {module_name} raised {_text(error)}.") from error
    except (Exception, SystemExit) as error:
        raise TaskImportError(f"{path} cannot be imported: its module {module_name} raised {_text(error)}.") from error


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:300]


def _label(task: object) -> str:
    if isinstance(task, functools.partial):
        return f"A partial of {_label(task.func)}"
    name = getattr(task, "__qualname__", None)
    if isinstance(name, str):
        return f"{getattr(task, '__module__', None) or '?'}.{name}"
    return f"An object of type {type(task).__module__}.{type(task).__qualname__}"
