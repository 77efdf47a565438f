"""The monitor as a person meets it: a real browser, a real site, a real service.

    CARROT_TEST_SCREENSHOTS   directory of the screenshots, each page in light and in dark; pytest's own if not set

All pages are served with a policy that allows nothing inline; whatever the browser complains about fails the test.
"""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.error import URLError

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from tests.project import Project, ProjectFactory
from tests.servers.install import chromium_program
from tests.servers.process import ServerError, free_ports, wait_until

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

NAME, PASSWORD = "ada", "analytical engine"
#: What the browser may complain about, and where. A site may have an icon, the monitor has none; and the editor of
#: django-json-widget brings a colour picker with a style of its own, which is never needed.
TOLERATED = (("404", "/favicon.ico"), ("Applying inline style", "/dist/jsoneditor.min.js"))
#: Seconds for what the service has to do before a page shows it.
PATIENCE = 30.0


class Person:
    """Somebody with a browser. Complaints of the browser are collected."""

    def __init__(self, page: Page, address: str, screenshots: Path) -> None:
        self.page = page
        self.complaints: list[str] = []
        self._address = address
        self._screenshots = screenshots
        self._count = 0
        page.on("pageerror", lambda error: self.complaints.append(f"{page.url}: {error}"))
        page.on("console", self._heard)

    def _heard(self, message: ConsoleMessage) -> None:
        source = message.location["url"]
        tolerated = any(words in message.text and source.endswith(end) for words, end in TOLERATED)
        if message.type in ("error", "warning") and not tolerated:
            self.complaints.append(f"{self.page.url}: {message.text} ({source})")

    def visit(self, path: str) -> None:
        self.page.goto(f"{self._address}{path}")

    def look(self, name: str) -> None:
        """Takes a screenshot in light and one in dark."""
        self._count += 1
        self.page.evaluate("window.scrollTo(0, 0)")
        schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
        for scheme in schemes:
            self.page.emulate_media(color_scheme=scheme)
            path = self._screenshots / f"{self._count:02}-{name}-{scheme}.png"
            self.page.screenshot(path=path, full_page=True, animations="disabled")
        self.page.emulate_media(color_scheme="light")

    def reload_until(self, text: str) -> None:
        """Loads the page again until it shows ``text``."""

        def shown() -> bool:
            self.page.reload()
            return self.page.get_by_text(text).count() > 0

        assert wait_until(shown, PATIENCE), f"no {text!r} on {self.page.url}:\n{self.page.inner_text('body')}"

    def edit_json(self, field: str, text: str) -> None:
        """Types ``text`` into a JSON editor, as text."""
        editor = self.page.locator(f".field-{field} .jsoneditor")
        if editor.locator("textarea.jsoneditor-text").count() == 0:
            editor.locator(".jsoneditor-modes button").click()
            editor.get_by_title("Switch to plain text editor").click()
        editor.locator("textarea.jsoneditor-text").fill(text)


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    given = os.environ.get("CARROT_TEST_SCREENSHOTS")
    directory = Path(given) if given else tmp_path / "screenshots"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@pytest.fixture
def browser() -> Iterator[Browser]:
    try:
        program = chromium_program()
    except ServerError as error:
        pytest.fail(str(error), pytrace=False)
    with sync_playwright() as playwright:
        # Chromium refuses to make its sandbox for root.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def site(project: ProjectFactory) -> Project:
    """A project on PostgreSQL and RabbitMQ, with a service, and ``ada`` who may do anything."""
    site = project(
        database="postgresql", broker="amqp", monitor_authentication=["tests.acceptance.strict_policy.strict"]
    )
    site.python(
        "from django.contrib.auth.models import User\n"
        f"User.objects.create_superuser({NAME!r}, '', {PASSWORD!r}, first_name='Ada')"
    )
    site.service().wait_ready()
    return site


@pytest.fixture
def address(site: Project) -> Iterator[str]:
    """Where its pages are served."""
    port = free_ports(1)[0]
    output = site.directory / "runserver.out"
    command = [sys.executable, "-m", "django", "runserver", "--noreload", "--insecure", f"127.0.0.1:{port}"]
    with open(output, "wb") as file:
        server = subprocess.Popen(
            command,
            env=site.env,
            cwd=site.directory,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/admin/login/", timeout=5.0) as response:
                return bool(response.status == 200)
        except URLError:
            return False

    assert wait_until(answers, 30.0), output.read_text()
    yield f"http://127.0.0.1:{port}"
    server.terminate()
    server.wait(10.0)


@pytest.fixture
def person(browser: Browser, address: str, screenshots: Path) -> Iterator[Person]:
    context = browser.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
    context.set_default_timeout(10_000)
    person = Person(context.new_page(), address, screenshots)
    yield person
    context.close()


def test_a_person_finds_a_failure_mends_it_and_schedules_a_task(site: Project, person: Person) -> None:
    page = person.page
    missing = site.directory / "inbox"
    site.publish("tests.app.tasks.touch", str(missing / "apples.txt"))
    site.publish("tests.app.tasks.touch", str(missing / "pears.txt"))
    site.wait_until("SELECT count(*) = 2 FROM carrot_messagelog WHERE status = 'FAILED'")

    # log in
    person.visit("/admin/")
    page.get_by_label("Username").fill(NAME)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    person.look("admin")
    page.get_by_role("link", name="Carrot monitor").first.click()
    person.look("index")

    # find a failure by an argument
    page.locator("#content").get_by_role("link", name="Failed tasks").first.click()
    person.look("failed")
    expect(page.locator("#result_list tbody tr")).to_have_count(2)
    page.locator("#searchbar").fill("apples")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("#result_list tbody tr")).to_have_count(1)
    person.look("found")

    # read its traceback
    page.locator("#result_list .carrot-error").first.click()
    expect(page.locator("#carrot-error")).to_contain_text("FileNotFoundError")
    expect(page.locator("#carrot-error pre")).to_contain_text("Path(path).touch()")
    person.look("task")

    # mend the cause; requeue this one with the button of its page, the other with the action of the list
    missing.mkdir()
    page.get_by_role("button", name="Requeue").click()
    expect(page.locator(".messagelist")).to_contain_text("1 task was requeued.")
    person.reload_until("Completed")
    expect(page.locator("#carrot-attempts")).to_contain_text("FileNotFoundError")
    person.look("task-requeued")
    person.visit("/admin/carrot/failedtask/")
    page.locator("#result_list .action-select").first.check()
    page.get_by_label("Action:").select_option("requeue")
    page.locator(".actions button[type=submit]").click()
    expect(page.locator("h1")).to_contain_text("Requeue 1 task?")
    person.look("requeue-confirmation")
    page.get_by_role("button", name="Requeue").click()
    expect(page.locator(".messagelist")).to_contain_text("1 task was requeued.")
    person.look("failed-empty")
    site.wait_until("SELECT count(*) = 2 FROM carrot_messagelog WHERE status = 'COMPLETED'")
    assert sorted(path.name for path in missing.iterdir()) == ["apples.txt", "pears.txt"]

    # create a schedule with the chooser and the editor: with JSON that is none, then with what does not fit
    person.visit("/admin/carrot/scheduledtask/")
    person.look("schedules-empty")
    page.get_by_role("link", name="Add scheduled task").first.click()
    person.look("schedule-new")
    page.get_by_label("Name:").fill("sum of every second")
    chooser = page.get_by_label("Task:")
    chooser.select_option("tests.app.tasks.add")
    chosen = page.get_by_text("tests.app.tasks.add(a, b)")
    expect(chosen).to_be_visible()
    expect(page.locator(".carrot-chosen")).to_contain_text("Return a result.")
    page.get_by_label("Every:").fill("1")
    person.edit_json("args", "[40, 2")
    person.look("schedule-typed")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator(".field-args .errorlist")).to_contain_text("This is not JSON")
    expect(page.locator(".field-args textarea.jsoneditor-text")).to_have_value("[40, 2")
    person.look("schedule-not-json")
    person.edit_json("args", "[40]")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator(".field-args .errorlist")).to_contain_text("missing a required argument: 'b'")
    person.look("schedule-does-not-fit")
    person.edit_json("args", "[40, 2]")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator(".messagelist")).to_contain_text("was added successfully")

    # see its task complete
    site.wait_until("SELECT count(*) > 2 FROM carrot_messagelog WHERE status = 'COMPLETED'")
    person.reload_until("Completed")
    person.look("schedules")
    page.locator("#result_list .field-last a").click()
    expect(page.locator("#carrot-output")).to_contain_text("42")
    person.look("task-completed")
    person.visit("/admin/carrot/scheduledtask/")
    page.get_by_role("link", name="sum of every second").click()
    expect(page.locator(".field-args .jsoneditor-outer")).to_contain_text("40")
    person.look("schedule-page")
    page.get_by_role("button", name="Run now").click()
    expect(page.locator(".messagelist")).to_contain_text("was published")
    person.look("schedule-run-now")

    # what happens is seen without touching anything, but not under somebody's hands
    person.visit("/admin/carrot/failedtask/")
    expect(page.get_by_label("Refresh every ten seconds")).to_be_checked()
    site.publish("tests.app.tasks.fail", "seen by itself")
    expect(page.locator("#content")).to_contain_text("seen by itself", timeout=30_000)
    person.look("failed-refreshed")
    page.locator("input.action-select").first.check()
    site.publish("tests.app.tasks.fail", "while a row is ticked")
    site.wait_until("SELECT count(*) = 2 FROM carrot_messagelog WHERE status = 'FAILED'")
    page.wait_for_timeout(13_000)  # what must not happen within ten seconds takes as long to be seen
    expect(page.locator("#content")).not_to_contain_text("while a row is ticked")
    expect(page.locator("input.action-select").first).to_be_checked()

    assert not person.complaints, "\n".join(person.complaints)
