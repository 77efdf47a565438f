"""A walk through carrot's pages, with what is not as it should be on each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from launcher.browser import LOGIN, Browser
from launcher.pages import Page

INDEX = "/admin/carrot/"
TASKS = f"{INDEX}messagelog/"
#: The monitor on a site of its own.
MONITOR = "/carrot/"


@dataclass(frozen=True, kw_only=True)
class Detail:
    """A task whose page is to be looked at."""

    pk: int
    name: str
    #: texts that must be on it
    shows: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Visit:
    """One page that was looked at."""

    what: str
    page: Page
    #: what is wrong, in words; empty if nothing is
    problem: str


def visit_all(base: str, user: str, password: str, details: Sequence[Detail], failed: Detail) -> Iterator[Visit]:
    """Log in, and look at carrot's index, everything it links to, the page of each task, and the search for a failure.

    Raises DemoError where logging in does not work.
    """
    yield _closed(Browser(base).get(INDEX), LOGIN)
    yield _closed(Browser(base).get(MONITOR), f"{MONITOR}login/")
    browser = Browser(base)
    browser.log_in(user, password)
    yield from _monitor(browser, failed)
    index = browser.get(INDEX)
    yield _visit("carrot's index", index, INDEX, missing=[] if TASKS in index.links else [f"a link to {TASKS}"])
    for link in index.links:
        if link.startswith(INDEX) and link != INDEX:
            page = browser.get(link)
            shows = [failed.name] if link in (TASKS, f"{INDEX}failedtask/") else []
            yield _visit(f"list: {page.title.split('|')[0].strip()}", page, link, _missing(page, shows))
    for detail in details:
        path = f"{TASKS}{detail.pk}/change/"
        page = browser.get(path)
        yield _visit(f"task {detail.name}", page, path, _missing(page, (detail.name, *detail.shows)))
    for words in (failed.name, failed.shows[0]):
        path = f"{TASKS}?{urlencode({'q': words})}"
        page = browser.get(path)
        found = f"{TASKS}{failed.pk}/change/" in page.links
        yield _visit(f"search for {words}", page, path, missing=[] if found else ["the task that was searched for"])


def _monitor(browser: Browser, failed: Detail) -> Iterator[Visit]:
    """The monitor's own site: its index, the lists, and the page of the failure."""
    index = browser.get(MONITOR)
    lists = [link for link in index.links if link.startswith(f"{MONITOR}carrot/")]
    all_tasks = f"{MONITOR}carrot/messagelog/"
    yield _visit("own site: index", index, MONITOR, missing=[] if all_tasks in lists else [f"a link to {all_tasks}"])
    for link in lists:
        page = browser.get(link)
        shows = [failed.name] if link == all_tasks else []
        yield _visit(f"own site: {page.title.split('|')[0].strip()}", page, link, _missing(page, shows))
    path = f"{all_tasks}{failed.pk}/change/"
    page = browser.get(path)
    yield _visit(f"own site: {failed.name}", page, path, _missing(page, (failed.name, *failed.shows)))


def _closed(page: Page, login: str) -> Visit:
    """To somebody who has not logged in, nothing is shown."""
    is_closed = page.status == 200 and page.path.startswith(login)
    return Visit(
        what="without login", page=page, problem="" if is_closed else f"the login was not asked for: {page.path}"
    )


def _missing(page: Page, shows: Sequence[str]) -> list[str]:
    return [repr(text) for text in shows if " ".join(text.split()) not in page.text]


def _visit(what: str, page: Page, asked: str, missing: Sequence[str]) -> Visit:
    if page.status != 200:
        problem = f"status {page.status}: {page.title or page.text[:200] or 'no answer'}"
    elif page.path != asked:
        problem = f"it led to {page.path}"
    else:
        problem = f"it lacks {', '.join(missing)}" if missing else ""
    return Visit(what=what, page=page, problem=problem)
