"""The system checks of carrot: everything that `manage.py check` can know before a task is lost over it.

Receives the settings and what is installed; hands on Django's check messages, each with a stable id and a hint. The ids
of `settings.CARROT` itself are given in `carrot.conf`; `docs/checks.md` lists them all.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from django.apps import AppConfig, apps
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.checks import Warning as Doubt
from django.db import connections, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.module_loading import import_string

import carrot
from carrot import conf
from carrot.conf import CarrotSettings
from carrot.models import MessageLog
from carrot.not_json import error_text
from carrot.setting_values import shown

# What the pages of the monitor are made with.
ADMIN_APPS = ("rangefilter", "django_json_widget")
# The migrations of 1.x, as its databases have them on record.
MIGRATIONS_OF_1 = ("0001_initial", "0002_add_task_name", "0003_populate_task_name", "0004_set_unique_task_name")
SQLITE_OPTIONS = '"OPTIONS": {"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL"}'


def register_checks() -> None:
    """Tell Django of the checks. Doing it twice does no harm."""
    register(check_project, "carrot")
    register(check_databases, "carrot", Tags.database)


def check_project(app_configs: Sequence[AppConfig] | None = None, **_: Any) -> list[CheckMessage]:
    """The checks that need no connection; Django runs them before nearly every command."""
    if not _concerns_carrot(app_configs):
        return []
    raw = conf.raw_settings()
    found = [
        *package_messages(carrot),
        *installed_apps_messages(),
        *settings_messages(raw),
        *database_settings_messages(),
    ]
    settings = conf.read(raw)[0]
    if settings is not None:
        found += [
            *monitor_authentication_messages(settings.monitor_authentication),
            *task_module_messages(settings.task_modules),
            *consumer_class_messages(settings),
            *tls_file_messages(settings),
        ]
    return found


def check_databases(
    app_configs: Sequence[AppConfig] | None = None, databases: Sequence[str] | None = None, **_: Any
) -> list[CheckMessage]:
    """The checks that look into a database; Django runs them for `check --database …` and before `migrate`."""
    found: list[CheckMessage] = []
    if _concerns_carrot(app_configs):
        for alias in databases or ():
            if router.allow_migrate(alias, "carrot"):
                found += first_version_messages(connections[alias])
            if alias == router.db_for_write(MessageLog):
                found += journal_messages(connections[alias])
    return found


def _concerns_carrot(app_configs: Sequence[AppConfig] | None) -> bool:
    return app_configs is None or any(each.name == "carrot" for each in app_configs)


def package_messages(package: ModuleType) -> Iterator[CheckMessage]:
    """A package that is called carrot too, and whose files stand before or among ours."""
    here = Path(__file__).resolve().parent
    path = Path(package.__file__ or "").resolve().parent
    version = str(getattr(package, "__version__", ""))
    match = re.match(r"(\d+)\.", version)
    foreign = path != here or match is None or int(match[1]) < 2
    try:
        other = metadata.distribution("carrot")  # ours is called django-carrot
    except metadata.PackageNotFoundError:
        pass
    else:
        foreign = foreign or Path(str(other.locate_file("carrot"))).resolve() == here
    if foreign:
        yield Error(
            f"The package carrot in {path} is not django-carrot 2, or another distribution has written into it "
            f"(version {version or 'unknown'}; these checks are in {here}).",
            hint="Run: pip uninstall carrot django-carrot, then install django-carrot again; and rename any directory "
            "or module of the project that is called carrot.",
            id="carrot.E031",
        )


def installed_apps_messages() -> Iterator[CheckMessage]:
    """The apps that the monitor is made with; without the admin there is no monitor, and none is needed."""
    if apps.is_installed("django.contrib.admin"):
        for name in ADMIN_APPS:
            if not apps.is_installed(name):
                yield Error(
                    f'INSTALLED_APPS has no "{name}", which the pages of carrot in the admin are made with.',
                    hint=f'Add the line "{name}", to INSTALLED_APPS, before "carrot".',
                    id="carrot.E030",
                )


def settings_messages(raw: object) -> Iterator[CheckMessage]:
    """Everything wrong or doubtful in the dict `CARROT`."""
    for problem in conf.problems(raw):
        kind = Error if problem.level == "error" else Doubt
        yield kind(problem.message, hint=problem.hint, id=problem.id)


def _import(load: Callable[[str], object], path: str) -> tuple[object, str]:
    """What the path leads to, and what is wrong with it. Importing runs code of the project: it may raise anything."""
    try:
        return load(path), ""
    except (Exception, SystemExit) as error:
        return None, f"does not import ({error_text(error)})"


def monitor_authentication_messages(paths: Iterable[str]) -> Iterator[CheckMessage]:
    """Decorators that do not resolve. The monitor refuses its pages then; it never shows them unguarded."""
    for path in paths:
        decorator, found = _import(import_string, path)
        if not found and callable(decorator):
            continue
        found = found or f"is a {type(decorator).__name__}, which cannot be called"
        yield Error(
            f'CARROT["monitor_authentication"] has "{path}", which {found}.',
            hint="Write the dotted path of a view decorator. Until then the monitor shows none of its pages.",
            id="carrot.E032",
        )


def task_module_messages(paths: Iterable[str]) -> Iterator[CheckMessage]:
    """Modules of tasks that do not import; each is tried, whatever became of the others."""
    for path in paths:
        found = _import(importlib.import_module, path)[1]
        if found:
            yield Error(
                f'CARROT["task_modules"] has "{path}", which {found}.',
                hint=f"Correct the name or the module; typing import {path} in manage.py shell shows the traceback.",
                id="carrot.E033",
            )


def consumer_class_messages(settings: CarrotSettings) -> Iterator[CheckMessage]:
    """Consumer classes that do not import, or are no consumers."""
    for queue in settings.queues.values():
        if queue.consumer_class == conf.DEFAULT_CONSUMER:
            continue
        consumer_class, found = _import(import_string, queue.consumer_class)
        if isinstance(consumer_class, type) and issubclass(consumer_class, import_string(conf.DEFAULT_CONSUMER)):
            continue
        found = found or "is not a subclass of carrot.consumer.Consumer"
        yield Error(
            f'The queue {shown(queue.name)} has the consumer_class "{queue.consumer_class}", which {found}.',
            hint="Write the dotted path of a subclass of carrot.consumer.Consumer, or leave it out.",
            id="carrot.E034",
        )


def tls_file_messages(settings: CarrotSettings) -> Iterator[CheckMessage]:
    """Files for TLS that this process could not read either."""
    hosts = dict.fromkeys([settings.default_broker, *(queue.host for queue in settings.queues.values())])
    for host in hosts:
        for option in ("cafile", "certfile", "keyfile"):
            path = host.options.get(option)
            if path is not None and not (os.path.isfile(path) and os.access(path, os.R_OK)):
                yield Error(
                    f"The broker {host.address} has {option}={path}, which is not a file that can be read.",
                    hint="Correct the path, which had best be absolute, or let the user of this process read the file.",
                    id="carrot.E036",
                )


def database_settings_messages() -> Iterator[CheckMessage]:
    """What the settings alone say about the database of the rows."""
    alias = router.db_for_write(MessageLog)
    if alias != "default":
        yield Doubt(
            f'A database router sends MessageLog to "{alias}". A task published in a transaction of another database '
            "is not part of it: it may run although that transaction is rolled back, or be lost with one that commits.",
            hint=f'Publish within transaction.atomic(using="{alias}"), or keep MessageLog in the database whose '
            "data the tasks are about.",
            id="carrot.W005",
        )
    connection = connections[alias]
    if connection.vendor != "sqlite":
        return
    if _is_in_memory(connection):
        # Django's test runner puts its database in memory: there the service runs within the test or not at all.
        if not str(connection.settings_dict["NAME"]).startswith("file:memorydb_"):
            yield Doubt(
                f'The database "{alias}" is SQLite in memory, which no other process sees: the service would find '
                "no task.",
                hint='Give it a file as "NAME", or use PostgreSQL.',
                id="carrot.W006",
            )
        return
    mode = connection.settings_dict["OPTIONS"].get("transaction_mode") or "DEFERRED"
    if str(mode).upper() not in ("IMMEDIATE", "EXCLUSIVE"):
        yield Doubt(
            f'The SQLite database "{alias}" has the transaction mode {mode}: two transactions that read and then write '
            'fail with "database is locked" without waiting for each other.',
            hint=f"Add to its settings: {SQLITE_OPTIONS}.",
            id="carrot.W007",
        )


def journal_messages(connection: BaseDatabaseWrapper) -> Iterator[CheckMessage]:
    """A SQLite database in which readers and the writer wait for each other."""
    if connection.vendor != "sqlite" or _is_in_memory(connection):
        return
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA journal_mode")
        journal = str(cursor.fetchone()[0])
    if journal.lower() != "wal":
        yield Doubt(
            f'The SQLite database "{connection.alias}" has the journal mode {journal}: pages of the monitor and the '
            "service block each other.",
            hint=f"Add to its settings: {SQLITE_OPTIONS}.",
            id="carrot.W008",
        )


def _is_in_memory(connection: BaseDatabaseWrapper) -> bool:
    name = str(connection.settings_dict["NAME"])
    return name in ("", ":memory:") or "mode=memory" in name or name.startswith("file::memory:")


def first_version_messages(connection: BaseDatabaseWrapper) -> Iterator[CheckMessage]:
    """A database of django-carrot 1.x, whose tables 2.0 neither reads nor overwrites."""
    traces = []
    with connection.cursor() as cursor:
        tables = connection.introspection.table_names(cursor)
        if "django_migrations" in tables:
            cursor.execute("SELECT name FROM django_migrations WHERE app = 'carrot'")
            applied = [name for (name,) in cursor.fetchall()]
            traces += [f"the migration {name} on record" for name in MIGRATIONS_OF_1 if name in applied]
        if MessageLog._meta.db_table in tables:
            columns = connection.introspection.get_table_description(cursor, MessageLog._meta.db_table)
            if "fence" not in [column.name for column in columns]:
                traces.append(f"a table {MessageLog._meta.db_table} without the column fence")
    if traces:
        yield Error(
            f'The database "{connection.alias}" is one of django-carrot 1.x: it has {", ".join(traces)}. '
            "Version 2.0 has its own tables and does not take the rows of 1.x over.",
            hint="Back the database up; let 1.x finish its queued tasks; drop the tables carrot_messagelog "
            "and carrot_scheduledtask; run DELETE FROM django_migrations WHERE app = 'carrot'; then run migrate. "
            "Or use a fresh database.",
            id="carrot.E035",
        )
