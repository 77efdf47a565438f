"""The system checks: what `manage.py check` says about a project, and when."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.apps import apps
from django.core.checks import CheckMessage, registry
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import ConnectionHandler
from django.test import modify_settings, override_settings
from django.utils.module_loading import import_string
from pytest_django import DjangoDbBlocker

import carrot
from carrot import checks, conf
from carrot.apps import CarrotConfig

ROOT = Path(__file__).resolve().parents[2]
SQLITE = "django.db.backends.sqlite3"
GOOD_OPTIONS = {"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL"}

# What monitor_authentication and consumer_class name in these tests.
NOT_CALLABLE = 5


class NoConsumer:
    """A class that is not a consumer."""


def ids(messages: Iterable[CheckMessage]) -> list[str | None]:
    return [each.id for each in messages]


def settings_of(**keys: Any) -> conf.CarrotSettings:
    read = conf.read(keys)[0]
    assert read is not None
    return read


Databases = Callable[..., BaseDatabaseWrapper]


@pytest.fixture
def database(
    tmp_path: Path, django_db_blocker: DjangoDbBlocker, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Databases]:
    """Makes the SQLite database of a project, which the checks then take for its default one."""
    handlers = []

    def make(name: str | None = None, **options: str) -> BaseDatabaseWrapper:
        path = str(tmp_path / "db.sqlite3") if name is None else name
        handler = ConnectionHandler({"default": {"ENGINE": SQLITE, "NAME": path, "OPTIONS": options}})
        handlers.append(handler)
        monkeypatch.setattr(checks, "connections", handler)
        return handler["default"]

    with django_db_blocker.unblock():
        yield make
        for handler in handlers:
            if handler["default"].connection is not None:
                handler["default"].connection.close()  # Django's own close() lets a database in memory live


def test_this_project_has_no_problem() -> None:
    assert checks.check_project() == []


def test_the_app_registers_its_checks() -> None:
    assert isinstance(apps.get_app_config("carrot"), CarrotConfig)
    registered = registry.registry.get_checks()
    assert {checks.check_project, checks.check_databases} <= set(registered)
    assert registry.Tags.database in checks.check_databases.tags  # type: ignore[attr-defined]
    assert registry.Tags.database not in checks.check_project.tags  # type: ignore[attr-defined]


def test_checks_of_other_apps_alone_leave_carrot_out() -> None:
    with override_settings(CARROT=None):
        assert checks.check_project(app_configs=[apps.get_app_config("auth")]) == []
        assert ids(checks.check_project(app_configs=[apps.get_app_config("carrot")])) == ["carrot.E001"]
        assert checks.check_databases(app_configs=[apps.get_app_config("auth")], databases=["default"]) == []


def test_wrong_settings_are_errors_with_the_id_and_hint_of_their_problem() -> None:
    raw = {"lease": -1, "queues": [{"name": "mail"}]}
    with override_settings(CARROT=raw):
        found = checks.check_project()
    assert [(each.id, each.msg, each.hint) for each in found] == [
        (each.id, each.message, each.hint) for each in conf.problems(raw)
    ]
    assert [each.is_serious() for each in found] == [each.id.startswith("carrot.E") for each in conf.problems(raw)]
    assert {"carrot.E016", "carrot.W002"} == set(ids(found))


@pytest.mark.parametrize("name", ["rangefilter", "django_json_widget"])
def test_a_missing_app_names_the_line_to_add(name: str) -> None:
    with modify_settings(INSTALLED_APPS={"remove": name}):
        [message] = checks.check_project()
    assert message.id == "carrot.E030"
    assert message.hint is not None
    assert f'Add the line "{name}", to INSTALLED_APPS' in message.hint


def test_without_the_admin_its_apps_are_not_needed() -> None:
    with modify_settings(INSTALLED_APPS={"remove": ["django.contrib.admin", *checks.ADMIN_APPS]}):
        assert checks.check_project() == []


def foreign_package(path: str, version: str | None) -> ModuleType:
    package = ModuleType("carrot")
    package.__file__ = path
    if version is not None:
        package.__version__ = version  # type: ignore[attr-defined]
    return package


@pytest.mark.parametrize(
    ("path", "version"),
    [
        ("/elsewhere/carrot/__init__.py", "2.0.0"),
        (str(carrot.__file__), "0.10.7"),
        (str(carrot.__file__), "1.4.2"),
        (str(carrot.__file__), None),
        (str(carrot.__file__), "stable"),
    ],
)
def test_another_package_of_our_name_is_an_error(path: str, version: str | None) -> None:
    [message] = checks.package_messages(foreign_package(path, version))
    assert message.id == "carrot.E031"
    assert str(Path(path).parent) in message.msg
    assert "pip uninstall carrot" in str(message.hint)


def test_our_package_is_none() -> None:
    assert list(checks.package_messages(carrot)) == []
    assert list(checks.package_messages(foreign_package(str(carrot.__file__), "10.0"))) == []


@pytest.mark.parametrize(("directory", "wrong"), [(ROOT, True), (Path("/elsewhere"), False)])
def test_another_distribution_in_our_directory_is_an_error(
    monkeypatch: pytest.MonkeyPatch, directory: Path, wrong: bool
) -> None:
    class Other:
        def locate_file(self, path: str) -> Path:
            return directory / path

    monkeypatch.setattr("importlib.metadata.distribution", lambda name: Other())
    assert ids(checks.package_messages(carrot)) == (["carrot.E031"] if wrong else [])


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("no.such.module", "does not import (ModuleNotFoundError"),
        ("tests.unit.test_checks.no_such_name", "does not import (ImportError"),
        ("tests.unit.test_checks.NOT_CALLABLE", "is a int, which cannot be called"),
    ],
)
def test_a_decorator_that_does_not_resolve_is_an_error(path: str, complaint: str) -> None:
    good = "django.contrib.admin.views.decorators.staff_member_required"
    with override_settings(CARROT={"monitor_authentication": [good, path]}):
        [message] = checks.check_project()
    assert message.id == "carrot.E032"
    assert f'"{path}"' in message.msg
    assert complaint in message.msg


def write_module(monkeypatch: pytest.MonkeyPatch, directory: Path, name: str, code: str) -> None:
    (directory / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(directory)
    monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.parametrize(
    "code", ["raise ValueError('a reason')", "import no_such_module", "1/", "raise SystemExit('no')"]
)
def test_a_task_module_that_does_not_import_is_an_error_and_the_others_are_checked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str
) -> None:
    write_module(monkeypatch, tmp_path, "broken_tasks", code)
    with override_settings(CARROT={"task_modules": ["broken_tasks", "tests.app.tasks", "no_such_tasks"]}):
        found = checks.check_project()
    assert ids(found) == ["carrot.E033", "carrot.E033"]
    assert '"broken_tasks"' in found[0].msg
    assert '"no_such_tasks"' in found[1].msg


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("tests.unit.test_checks.NoConsumer", "not a subclass"),
        ("tests.unit.test_checks.ids", "not a subclass"),
        ("tests.unit.test_checks.Missing", "does not import"),
    ],
)
def test_a_consumer_class_is_a_consumer(path: str, complaint: str) -> None:
    with override_settings(CARROT={"queues": [{"name": "default"}, {"name": "mail", "consumer_class": path}]}):
        [message] = checks.check_project()
    assert message.id == "carrot.E034"
    assert 'The queue "mail"' in message.msg
    assert complaint in message.msg


def test_a_subclass_of_consumer_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = type("Mine", (import_string(conf.DEFAULT_CONSUMER),), {})
    monkeypatch.setattr(sys.modules[__name__], "Mine", mine, raising=False)
    queue = {"name": "default", "consumer_class": f"{__name__}.Mine"}
    assert list(checks.consumer_class_messages(settings_of(queues=[queue]))) == []


def test_a_tls_file_that_cannot_be_read_is_an_error_per_broker(tmp_path: Path) -> None:
    there = tmp_path / "ca.pem"
    there.touch()
    missing = tmp_path / "key.pem"
    broker = f"amqps://u:s3cr3t@h/?cafile={there}&keyfile={missing}&certfile={tmp_path}"
    found = list(checks.tls_file_messages(settings_of(default_broker=broker)))
    assert ids(found) == ["carrot.E036", "carrot.E036"]
    assert f"certfile={tmp_path}" in found[0].msg
    assert f"keyfile={missing}" in found[1].msg
    assert "s3cr3t" not in str(found)


class Router:
    """Sends the rows of carrot elsewhere."""

    def db_for_write(self, model: type, **hints: object) -> str | None:
        return "rows" if model._meta.app_label == "carrot" else None  # type: ignore[attr-defined]


def test_rows_in_another_database_are_a_warning_that_explains_the_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    databases = {alias: {"ENGINE": SQLITE, "NAME": alias, "OPTIONS": GOOD_OPTIONS} for alias in ("default", "rows")}
    monkeypatch.setattr(checks, "connections", ConnectionHandler(databases))
    with override_settings(DATABASE_ROUTERS=["tests.unit.test_checks.Router"]):
        [message] = checks.database_settings_messages()
    assert message.id == "carrot.W005"
    assert '"rows"' in message.msg
    assert 'atomic(using="rows")' in str(message.hint)
    assert not message.is_serious()


@pytest.mark.parametrize("name", [":memory:", "file:shared?mode=memory&cache=shared", "file::memory:?cache=shared"])
def test_sqlite_in_memory_is_a_warning(database: Databases, name: str) -> None:
    database(name)
    assert ids(checks.database_settings_messages()) == ["carrot.W006"]


def test_the_database_in_memory_of_django_s_test_runner_is_fine(database: Databases) -> None:
    database("file:memorydb_default?mode=memory&cache=shared")
    assert ids(checks.database_settings_messages()) == []
    assert ids(checks.check_databases(databases=["default"])) == []


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({}, True),
        ({"transaction_mode": "DEFERRED"}, True),
        ({"transaction_mode": "immediate"}, False),
        ({"transaction_mode": "EXCLUSIVE"}, False),
    ],
)
def test_a_deferred_transaction_mode_of_sqlite_is_a_warning(
    database: Databases, options: dict[str, str], wrong: bool
) -> None:
    database(**options)
    found = list(checks.database_settings_messages())
    assert ids(found) == (["carrot.W007"] if wrong else [])
    assert all(checks.SQLITE_OPTIONS in str(each.hint) for each in found)


def test_sqlite_without_a_write_ahead_log_is_a_warning(database: Databases) -> None:
    database()
    [message] = checks.check_databases(databases=["default"])
    assert message.id == "carrot.W008"
    assert "journal mode delete" in message.msg
    assert checks.SQLITE_OPTIONS in str(message.hint)


def test_the_options_of_the_hint_silence_the_warnings(database: Databases) -> None:
    database(**GOOD_OPTIONS)
    assert checks.check_databases(databases=["default"]) == []
    assert list(checks.database_settings_messages()) == []
    assert all(str(value) in checks.SQLITE_OPTIONS for value in GOOD_OPTIONS.values())


def test_without_a_database_given_none_is_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "connections", None)
    assert checks.check_databases(databases=None) == []
    assert checks.check_databases(databases=[]) == []


def make_database_of_1_x(connection: BaseDatabaseWrapper, *migrations: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE carrot_messagelog (id integer PRIMARY KEY, status varchar(11), queue varchar(200))"
        )
        if migrations:
            cursor.execute("CREATE TABLE django_migrations (id integer PRIMARY KEY, app text, name text, applied text)")
        for name in migrations:
            cursor.execute("INSERT INTO django_migrations (app, name) VALUES ('carrot', %s)", [name])


@pytest.mark.parametrize("migrations", [checks.MIGRATIONS_OF_1, checks.MIGRATIONS_OF_1[:1], ()])
def test_a_database_of_1_x_is_an_error_that_says_what_to_do(database: Databases, migrations: tuple[str, ...]) -> None:
    make_database_of_1_x(database(**GOOD_OPTIONS), *migrations)
    [message] = checks.check_databases(databases=["default"])
    assert message.id == "carrot.E035"
    assert message.is_serious()
    assert all(name in message.msg for name in migrations)
    for word in ("carrot_messagelog", "carrot_scheduledtask", "DELETE FROM django_migrations WHERE app = 'carrot'"):
        assert word in str(message.hint)


def test_left_over_migration_rows_of_1_x_are_an_error_even_without_its_tables(database: Databases) -> None:
    connection = database(**GOOD_OPTIONS)
    make_database_of_1_x(connection, *checks.MIGRATIONS_OF_1)
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE carrot_messagelog")
    assert ids(checks.check_databases(databases=["default"])) == ["carrot.E035"]


def test_a_database_where_the_hint_was_followed_is_fine(database: Databases) -> None:
    connection = database(**GOOD_OPTIONS)
    make_database_of_1_x(connection, *checks.MIGRATIONS_OF_1)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE carrot_messagelog RENAME TO old_messagelog")
        cursor.execute("DELETE FROM django_migrations WHERE app = 'carrot'")
    assert checks.check_databases(databases=["default"]) == []


@pytest.mark.django_db
def test_a_migrated_database_of_2_0_is_fine() -> None:
    assert "carrot_messagelog" in connections["default"].introspection.table_names()
    assert checks.check_databases(databases=["default"]) == []


def django_command(directory: Path, settings: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of a project in `directory` whose settings module has this text."""
    (directory / "site_settings.py").write_text(f"DATABASES = {{}}\nSECRET_KEY = 'x'\nUSE_TZ = True\n{settings}")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CARROT_", "DJANGO", "PYTHON"))}
    env = kept | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(directory)]), "PYTHONWARNINGS": "error"}
    return subprocess.run(
        [sys.executable, "-m", "django", *words, "--settings", "site_settings"],
        capture_output=True,
        text=True,
        check=False,
        env=env,
        cwd=directory,
    )


def test_a_project_without_the_admin_and_without_any_setting_checks_and_migrates(tmp_path: Path) -> None:
    options = {"default": {"ENGINE": SQLITE, "NAME": str(tmp_path / "db.sqlite3"), "OPTIONS": GOOD_OPTIONS}}
    settings = f"INSTALLED_APPS = ['carrot']\nDATABASES = {options!r}\n"
    done = django_command(tmp_path, settings, "check", "--fail-level", "WARNING", "--database", "default")
    assert done.returncode == 0, done.stderr
    done = django_command(tmp_path, settings, "migrate")
    assert done.returncode == 0, done.stderr


def test_migrate_on_a_database_of_1_x_stops_and_says_what_to_do(tmp_path: Path, database: Databases) -> None:
    make_database_of_1_x(database(**GOOD_OPTIONS), *checks.MIGRATIONS_OF_1)
    options = {"default": {"ENGINE": SQLITE, "NAME": str(tmp_path / "db.sqlite3"), "OPTIONS": GOOD_OPTIONS}}
    done = django_command(tmp_path, f"INSTALLED_APPS = ['carrot']\nDATABASES = {options!r}\n", "migrate")
    assert done.returncode == 1
    assert "carrot.E035" in done.stderr
    assert "DELETE FROM django_migrations WHERE app = 'carrot'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_documentation_lists_every_id_and_no_other() -> None:
    modules = ("checks", "conf", "setting_keys", "setting_values")
    code = "".join((ROOT / "carrot" / f"{name}.py").read_text("utf-8") for name in modules)
    page = (ROOT / "docs" / "checks.md").read_text("utf-8")
    listed = re.findall(r"^\| (carrot\.[EW]\d{3}) \|", page, re.MULTILINE)
    assert sorted(listed) == sorted(set(re.findall(r"carrot\.[EW]\d{3}", code)))
