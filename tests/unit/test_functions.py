"""Which functions can be tasks."""

from __future__ import annotations

import functools
import gc
import math
import subprocess
import sys
import types
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import carrot
from carrot.exceptions import InvalidTask, TaskAttributeError, TaskImportError
from carrot.functions import TaskOptions, function_at, options_of, task, task_options, validate_task

HERE = __name__


def redacting(card: str, amount: int) -> None:
    """Is marked by a test."""


def plain(a: int, b: int = 2) -> int:
    return a + b


@carrot.task
def marked(a: int) -> str:
    return str(a)


@carrot.task(queue="emails", priority=3)
def with_options() -> None:
    pass


async def asynchronous() -> None:
    pass


def wrapping(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


def hiding(function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


@wrapping
def wrapped(a: int) -> int:
    return a


@hiding
def hidden(a: int) -> int:
    return a


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


class Class:
    def method(self) -> None:
        pass

    @classmethod
    def class_method(cls) -> None:
        pass

    @staticmethod
    def static_method() -> None:
        pass

    def __call__(self) -> None:
        pass


callable_object = Class()
bound = functools.partial(plain, 1)
cached = functools.lru_cache(plain)
anonymous = lambda: 1  # noqa: E731


def test_the_path_of_a_function_leads_to_it() -> None:
    for function in (plain, marked, with_options, asynchronous, wrapped):
        path = validate_task(function)
        assert path == f"{HERE}.{function.__name__}"
        assert validate_task(path) == path
        assert function_at(path) is function


def nested_function() -> Callable[[], None]:
    def inside() -> None:
        pass

    return inside


@pytest.mark.parametrize(
    ("task", "cure"),
    [
        (lambda: 1, "lambda"),
        (anonymous, "lambda"),
        (nested_function(), "inside another function"),
        (hidden, "functools.wraps"),
        (Class().method, "method"),
        (Class.method, "method"),
        (Class.class_method, "method"),
        (Class.static_method, "method"),
        (Class.__dict__["static_method"], "method"),
        (Class.__dict__["class_method"], "method"),
        (Class, "is a class"),
        (callable_object, "callable object"),
        (cached, "callable object"),
        (bound, "functools.partial"),
        (math.sqrt, "built into Python"),
        (print, "built into Python"),
        (str.upper, "built into Python"),
        ([].append, "built into Python"),
        (wrapped.__wrapped__, "holds another 'wrapped'"),  # type: ignore[attr-defined]
        (generator, "generator"),
        (async_generator, "generator"),
        (math, "is a module"),
        (None, "f and not f()"),
        (5, "f and not f()"),
        (b"app.tasks.add", "f and not f()"),
    ],
)
def test_what_no_worker_can_import_is_refused_with_the_cure(task: Any, cure: str) -> None:
    with pytest.raises(TaskAttributeError) as caught:
        validate_task(task)
    assert isinstance(caught.value, AttributeError)
    assert isinstance(caught.value, InvalidTask)
    assert cure in str(caught.value)


def test_a_coroutine_is_not_a_task() -> None:
    coroutine = asynchronous()
    with pytest.raises(TaskAttributeError, match=r"f and not f\(\)"):
        validate_task(coroutine)  # type: ignore[arg-type]
    coroutine.close()


@pytest.mark.parametrize(
    ("path", "cure"),
    [
        ("", "not the dotted path"),
        ("add", "not the dotted path"),
        ("app tasks.add", "not the dotted path"),
        (".tasks.add", "not the dotted path"),
        ("tasks.", "not the dotted path"),
        ("a..b", "not the dotted path"),
        ("a.b()", "not the dotted path"),
        ("a.b\n", "not the dotted path"),
        ("a\0.b", "not the dotted path"),
        ("a." * 10_000, "not the dotted path"),
        ("no_such_package.tasks.add", "no module 'no_such_package'"),
        ("carrot.no_such_module.add", "no module 'carrot.no_such_module'"),
    ],
)
def test_a_path_to_no_module_is_an_import_error(path: str, cure: str) -> None:
    with pytest.raises(TaskImportError) as caught:
        validate_task(path)
    assert isinstance(caught.value, ImportError)
    assert cure in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("path", "cure"),
    [
        (f"{HERE}.plian", "did you mean 'plain'"),
        (f"{HERE}.zzz", "workers run the same code"),
        (f"{HERE}.Class", "is a class"),
        (f"{HERE}.Class.method", "is a method"),
        (f"{HERE}.callable_object", "callable object"),
        (f"{HERE}.bound", "functools.partial"),
        (f"{HERE}.HERE", "not a function"),
        (f"{HERE}.generator", "generator"),
        ("math.sqrt", "built into Python"),
        ("carrot.exceptions", "is a module"),
        ("builtins.print", "shell"),
        ("__main__.main", "no worker can import"),
    ],
)
def test_a_path_to_no_function_is_an_attribute_error(path: str, cure: str) -> None:
    with pytest.raises(TaskAttributeError) as caught:
        validate_task(path)
    assert isinstance(caught.value, AttributeError)
    assert cure in str(caught.value)


@pytest.mark.parametrize("fault", ["1 / 0", "raise SystemExit(3)", "def f(:", "import no_such_package"])
def test_a_module_that_fails_is_an_import_error_that_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    (tmp_path / "faulty_tasks.py").write_text(fault)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TaskImportError, match=r"division|SystemExit: 3|SyntaxError|no_such_package") as caught:
        validate_task("faulty_tasks.add")
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    "module", ["__main__", "__console__", "builtins", "django.core.management.commands.shell", None]
)
def test_a_function_typed_in_a_shell_is_refused(module: str | None) -> None:
    namespace: dict[str, Any] = {} if module is None else {"__name__": module}
    exec("def my_task(**kwargs): return 'hello world'", namespace)
    with pytest.raises(TaskAttributeError, match="no worker can import: save it"):
        validate_task(namespace["my_task"])


def test_a_function_typed_at_a_prompt_is_refused_wherever_it_claims_to_live() -> None:
    namespace: dict[str, Any] = {"__name__": HERE}
    exec(compile("def typed(): pass", "<console>", "exec"), namespace)
    with pytest.raises(TaskAttributeError, match="a shell"):
        validate_task(namespace["typed"])


def test_a_function_its_module_does_not_hold_is_refused() -> None:
    namespace: dict[str, Any] = {"__name__": HERE}
    exec("def vanished(): pass\ndef plain(): pass", namespace)
    with pytest.raises(TaskAttributeError, match="has no such name"):
        validate_task(namespace["vanished"])
    with pytest.raises(TaskAttributeError, match="holds another 'plain'"):
        validate_task(namespace["plain"])


def test_a_function_of_a_script_is_refused(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from carrot.functions import validate_task\n"
        "def work(): pass\n"
        "try: validate_task(work)\n"
        "except AttributeError as error: print(error)\n"
    )
    command = [sys.executable, str(script)]
    root = str(Path(carrot.__file__).parents[1])
    run = subprocess.run(command, env={"PYTHONPATH": root}, capture_output=True, text=True, timeout=30, check=True)
    assert "'work' lives in the script that was started" in run.stdout


def test_validated_functions_are_not_kept_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "passing_tasks.py").write_text("def work(): pass")
    monkeypatch.syspath_prepend(tmp_path)
    function = function_at("passing_tasks.work")
    validate_task(function)
    reference = weakref.ref(function)
    del function, sys.modules["passing_tasks"]
    gc.collect()
    assert reference() is None


def test_a_task_replaced_in_its_module_is_found_there(monkeypatch: pytest.MonkeyPatch) -> None:
    path = validate_task(plain)
    monkeypatch.setitem(globals(), "plain", asynchronous)
    assert function_at(path) is asynchronous


def test_the_decorator_returns_the_same_function() -> None:
    def function_of(module: types.ModuleType) -> Any:
        return module.plain

    function = function_of(sys.modules[HERE])
    assert task(function) is function
    assert task(queue="q")(function) is function
    del function.carrot_task
    assert marked(5) == "5"


def test_the_decorator_keeps_the_type() -> None:
    # mypy checks these lines.
    call: Callable[[int], str] = marked
    no_arguments: Callable[[], None] = with_options
    assert call(1) == "1"
    assert no_arguments() is None  # type: ignore[func-returns-value]


def test_options_are_found_by_path() -> None:
    assert task_options(f"{HERE}.with_options") == TaskOptions(queue="emails", priority=3)
    assert task_options(f"{HERE}.marked") == TaskOptions(queue=None, priority=None)
    assert task_options(f"{HERE}.plain") == TaskOptions()
    assert options_of(plain) is None


def test_what_is_to_be_masked_is_kept_as_it_was_said() -> None:
    names = ["card", "PIN"]
    assert task(redact=names)(redacting) is redacting
    names.append("later")
    assert task_options(f"{HERE}.redacting") == TaskOptions(redact=("card", "PIN"))
    assert TaskOptions().redact == ()


def test_a_task_is_atomic_only_where_it_says_so() -> None:
    assert not TaskOptions().atomic
    marked_atomic = options_of(task(atomic=True)(redacting))
    assert marked_atomic is not None
    assert marked_atomic.atomic


def test_a_text_instead_of_names_to_mask_is_an_error_with_the_cure() -> None:
    with pytest.raises(TypeError, match=r"redact is 'card'; it must be a list of names"):
        task(redact="card")  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "options",
    [
        {"retries": 3},
        {"queue": 5},
        {"queue": ""},
        {"priority": "3"},
        {"priority": True},
        {"atomic": 1},
        {"redact": "card"},
        {"redact": [""]},
        {"redact": [5]},
        {"redact": None},
        {"redact": {"card": True}},
    ],
)
def test_wrong_options_are_type_errors(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        task(**options)


@pytest.mark.parametrize("priority", [-1, 256])
def test_a_priority_no_queue_knows_is_a_value_error(priority: int) -> None:
    with pytest.raises(ValueError, match="255"):
        task(priority=priority)


@pytest.mark.parametrize(
    ("function", "cure"),
    [
        (lambda: 1, "lambda"),
        (nested_function(), "inside another function"),
        (bound, "functools.partial"),
        (Class.method, "method"),
        (Class().method, "method"),
        (Class.__dict__["static_method"], "method"),
        (Class, "is a class"),
        (callable_object, "callable object"),
        (print, "built into Python"),
        (generator, "generator"),
        ("emails", "not a function"),
    ],
)
def test_the_decorator_refuses_at_import_what_can_be_no_task(function: Any, cure: str) -> None:
    for decorator in (task, task(queue="q")):
        with pytest.raises(TaskAttributeError, match=r"^@carrot\.task: ") as caught:
            decorator(function)
        assert cure in str(caught.value)


def test_the_package_is_imported_without_settings_or_models() -> None:
    script = (
        "import sys, carrot\n"
        "@carrot.task\n"
        "def work(): pass\n"
        "assert carrot.__version__ and carrot.DEFAULT_BROKER.startswith('amqp://')\n"
        "assert not [name for name in sys.modules if name.startswith(('carrot.models', 'django.db', 'pika'))]\n"
    )
    root = str(Path(carrot.__file__).parents[1])
    subprocess.run([sys.executable, "-c", script], env={"PYTHONPATH": root}, timeout=30, check=True)
