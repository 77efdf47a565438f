"""The documentation says what is so: its links lead somewhere, its commands, settings and names exist in the code."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from django.apps import apps
from django.core.management import CommandError, get_commands, load_command_class
from django.core.management.base import CommandParser

import carrot
from carrot import conf, exceptions, operations
from carrot.conf import CarrotSettings, QueueSettings, Retention
from carrot.models import MessageLog

CHECKOUT = Path(__file__).resolve().parents[1]
PAGES = [CHECKOUT / "README.md", CHECKOUT / "CHANGELOG.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
COMMANDS = ("carrot", "carrot_daemon", "carrot_send")

#: Options of other programs that the documentation speaks of.
FOREIGN_OPTIONS = {"--enable-threads": "uWSGI"}
#: What 1.x had and the upgrade notes call gone.
GONE = {"carrot.api", "carrot.views", "carrot.mocks"}
#: Dotted names that are no Python objects: a unit of systemd, files.
NO_OBJECTS = {"carrot.service", "carrot.pid", "carrot.log"}

FENCE = re.compile(r"^([ ]*)```(\w*)\n(.*?)^\1```[ ]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
INLINE = re.compile(r"``?([^`\n]+)``?")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
#: Code in a line of text that is a call: ``manage.py carrot …``, ``carrot_daemon stop``, but not ``carrot worker``.
CALL = re.compile(r"(python )?manage\.py carrot|carrot_(daemon|send) [\w-]|carrot -")
#: Words that stand for a value.
PLACEHOLDERS = {"N": "2", "LEVEL": "INFO"}
CHECK_ID = re.compile(r"carrot\.([EW]\d{3})\b")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


class Block(NamedTuple):
    """A piece of code in a page. ``line`` is where it begins."""

    page: Path
    line: int
    language: str
    code: str

    @property
    def place(self) -> str:
        return f"{self.page.name}:{self.line}"


@cache
def text_of(page: Path) -> str:
    return page.read_text("utf-8")


def blocks_of(page: Path) -> Iterator[Block]:
    text = text_of(page)
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 2
        # "..." alone on a line stands for what the reader has there already.
        code = re.sub(r"^( *)\.\.\.$", r"\1...,", textwrap.dedent(match[3]), flags=re.MULTILINE)
        yield Block(page, line, match[2], code)


def python_blocks() -> list[Block]:
    return [block for page in PAGES for block in blocks_of(page) if block.language == "python"]


@cache
def prose_of(page: Path) -> str:
    return FENCE.sub("", text_of(page))


def inline_code(page: Path) -> list[str]:
    return [match[1] for match in INLINE.finditer(prose_of(page))]


def anchors_of(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ +(.+?) *$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def section_of(page: Path, heading: str) -> str:
    match = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text_of(page), re.MULTILINE | re.DOTALL)
    assert match is not None, f"{page.name} has no section {heading!r}"
    return match[1]


def first_column(section: str) -> str:
    return "\n".join(line.split("|")[1] for line in section.splitlines() if line.startswith("|"))


@cache
def parser_of(command: str) -> CommandParser:
    return load_command_class(get_commands()[command], command).create_parser("manage.py", command)


def command_lines() -> Iterator[tuple[str, str, list[str]]]:
    """Every call of a carrot command that a page shows: its place, the command, its arguments."""
    for page in PAGES:
        shown = [
            (block.place, line)
            for block in blocks_of(page)
            if block.language in ("sh", "ini", "bash")
            for line in block.code.splitlines()
            if "manage.py carrot" in line
        ]
        shown += [(page.name, code) for code in inline_code(page) if CALL.match(code)]
        for place, line in shown:
            command, *words = shlex.split(line.partition("manage.py ")[2] or line, comments=True)
            yield place, command, [PLACEHOLDERS.get(word, word) for word in words]


# -- links --------------------------------------------------------------------------------------------------------


@every_page
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    broken = []
    for target in LINK.findall(prose_of(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.is_file() or (anchor and anchor not in anchors_of(file)):
            broken.append(target)
    assert broken == []


def test_the_index_names_every_page() -> None:
    index = CHECKOUT / "docs" / "index.md"
    linked = {target.partition("#")[0] for target in LINK.findall(prose_of(index))}
    pages = {page.name for page in (CHECKOUT / "docs").glob("*.md")} - {"index.md"}
    assert pages <= linked, f"index.md lacks {sorted(pages - linked)}"


# -- commands -----------------------------------------------------------------------------------------------------


def test_every_command_line_is_one_that_its_command_takes() -> None:
    checked = 0
    for place, command, arguments in command_lines():
        try:
            parser_of(command).parse_args(arguments)
        except CommandError as error:
            pytest.fail(f"{place}: manage.py {command} {shlex.join(arguments)}: {error}")
        checked += 1
    assert checked > 10


def test_every_option_exists() -> None:
    known = set(FOREIGN_OPTIONS)
    for command in (*COMMANDS, "check", "migrate", "shell"):
        known |= {option for action in parser_of(command)._actions for option in action.option_strings}
    for script in (CHECKOUT / "scripts").iterdir():
        known |= set(OPTION.findall(script.read_text("utf-8"))) if script.is_file() else set()
    known |= set(OPTION.findall((CHECKOUT / "demo" / "launcher" / "options.py").read_text("utf-8")))
    for page in PAGES:
        unknown = {option for code in inline_code(page) for option in OPTION.findall(code)} - known
        assert unknown == set(), page.name


# -- settings -----------------------------------------------------------------------------------------------------


def settings_shown() -> Iterator[tuple[str, dict[str, Any]]]:
    for block in python_blocks():
        for node in ast.parse(block.code).body:
            if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["CARROT"]:
                yield block.place, eval(ast.unparse(node.value), {})


def test_every_setting_shown_is_one_that_the_checks_accept() -> None:
    shown = list(settings_shown())
    assert len(shown) > 5
    for place, raw in shown:
        errors = [problem.message for problem in conf.problems(raw) if problem.level == "error"]
        assert errors == [], place


@every_page
def test_links_to_the_settings_name_keys_that_exist(page: Path) -> None:
    keys = {name for kind in (CarrotSettings, QueueSettings, Retention) for name in kind.__dataclass_fields__}
    named = set(re.findall(r"\[`(\w+)`\]\(settings\.md\)", text_of(page)))
    assert named <= keys


def test_every_check_named_is_in_the_code_and_every_check_is_explained() -> None:
    sources = "\n".join(path.read_text("utf-8") for path in (CHECKOUT / "carrot").rglob("*.py"))
    existing = set(CHECK_ID.findall(sources))
    for page in PAGES:
        assert set(CHECK_ID.findall(text_of(page))) <= existing, page.name
    explained = set(CHECK_ID.findall(text_of(CHECKOUT / "docs" / "checks.md")))
    assert explained == existing


# -- names --------------------------------------------------------------------------------------------------------


def resolves(path: str) -> bool:
    """Whether a dotted path leads to a module or to something in one."""
    names = path.split(".")
    for cut in range(len(names), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(names[:cut]))
        except ModuleNotFoundError:
            continue
        for name in names[cut:]:
            if not hasattr(found, name):
                return False
            found = getattr(found, name)
        return True
    return False


def test_everything_imported_from_carrot_can_be_imported() -> None:
    imported = set()
    for block in python_blocks():
        for node in ast.walk(ast.parse(block.code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "carrot":
                imported |= {(block.place, f"{node.module}.{alias.name}") for alias in node.names}
    assert len(imported) > 10
    assert [(place, path) for place, path in sorted(imported) if not resolves(path)] == []


def permissions() -> set[str]:
    """The names of all permissions that carrot has, as ``has_perm`` takes them."""
    models = apps.get_app_config("carrot").get_models()
    return {
        f"carrot.{codename}"
        for model in models
        for codename in [
            *(f"{verb}_{model._meta.model_name}" for verb in model._meta.default_permissions),
            *(codename for codename, _name in model._meta.permissions),
        ]
    }


@every_page
def test_dotted_names_of_carrot_exist(page: Path) -> None:
    names = {
        match
        for code in inline_code(page)
        for match in re.findall(r"(?<![\w/@.-])carrot(?:\.[A-Za-z_]\w*)+(?![\w/-])", code)
        if not CHECK_ID.fullmatch(match)
    }
    assert {name for name in names - GONE - NO_OBJECTS - permissions() if not resolves(name)} == set()


def test_what_is_called_gone_is_gone() -> None:
    assert [name for name in GONE if resolves(name)] == []


def test_attributes_of_rows_exist() -> None:
    codes = [*(code for page in PAGES for code in inline_code(page)), *(block.code for block in python_blocks())]
    named = {name for code in codes for name in re.findall(r"\b(?:row|log)\.([a-z_]+)\b", code)}
    assert len(named) > 5
    known = {field.name for field in MessageLog._meta.get_fields()}
    assert {name for name in named - known if not hasattr(MessageLog, name)} == set()


def test_the_tables_of_operations_and_errors_name_what_exists() -> None:
    table = section_of(CHECKOUT / "docs" / "extending.md", "What operators do in code")
    named = re.findall(r"`(\w+)\(", first_column(table))
    assert len(named) > 3
    assert [name for name in named if not hasattr(operations, name)] == []
    table = section_of(CHECKOUT / "docs" / "tasks.md", "Errors and their cures")
    named = re.findall(r"`(\w+)`", first_column(table))
    assert len(named) > 3
    assert [name for name in named if not hasattr(exceptions, name)] == []


# -- code ---------------------------------------------------------------------------------------------------------


@every_page
def test_python_code_compiles(page: Path) -> None:
    for block in blocks_of(page):
        if block.language == "python":
            compile(block.code, block.place, "exec", dont_inherit=True)


# -- version ------------------------------------------------------------------------------------------------------


def test_the_changelog_begins_with_this_version() -> None:
    versions = re.findall(r"^## \[?(\d+\.\d+\.\d+)", text_of(CHECKOUT / "CHANGELOG.md"), re.MULTILINE)
    assert versions[0] == carrot.__version__


def test_the_distribution_has_this_version() -> None:
    command = [sys.executable, "setup.py", "--version"]
    said = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout.split()
    assert said[-1] == carrot.__version__


def test_wheels_named_in_the_pages_have_this_version() -> None:
    for page in PAGES:
        assert set(re.findall(r"django_carrot-([\d.]+)-py3", text_of(page))) <= {carrot.__version__}, page.name
