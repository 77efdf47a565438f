"""The monitor on a site of its own: ``include("carrot.urls")``."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from carrot import clock
from carrot.admin.site import site
from carrot.models import MessageLog, ScheduledTask, Status, StrayMessage, WorkerProcess

from .conftest import LISTS, OTHERS, LogIn, MakeTask, text_of
from .test_access import guard


@pytest.fixture(params=["tests.admin.own_site", "tests.admin.both_sites"])
def routed(request: pytest.FixtureRequest, settings: Any) -> str:
    """Without the stock admin, and beside it."""
    settings.ROOT_URLCONF = request.param
    return str(request.param)


@pytest.fixture
def pages(make_task: MakeTask, worker: WorkerProcess) -> list[str]:
    """Every page of the monitor, below the path of its own site."""
    stray = StrayMessage.objects.create(received_at=clock.now(), queue="q", reason="no JSON", body="{")
    tasks = [f"carrot/messagelog/{make_task(status=status, worker=worker).pk}/" for status in Status]
    lists = [f"carrot/{name}/" for name in (*LISTS, *OTHERS, "scheduledtask")]
    others = [f"carrot/workerprocess/{worker.pk}/", f"carrot/straymessage/{stray.pk}/"]
    found = ["", "carrot/", *lists, *(f"{page}{view}/" for page in [*tasks, *others] for view in ("change", "history"))]
    found += [f"{tasks[-1]}delete/", "carrot/queuedtask/purge/", "carrot/queuedtask/requeue-pending/"]
    return [f"/tasks/{page}" for page in found]


def test_it_has_the_pages_of_carrot_and_no_others() -> None:
    models = set(site._registry)

    assert {MessageLog, WorkerProcess, ScheduledTask} <= models
    assert {model._meta.app_label for model in models} == {"carrot"}


def test_its_first_page_has_a_name(routed: str) -> None:
    assert reverse("carrot-monitor") == "/tasks/"
    assert reverse("carrot-monitor:carrot_failedtask_changelist") == "/tasks/carrot/failedtask/"


def test_every_page_and_every_link_stays_on_the_site(log_in: LogIn, pages: list[str], routed: str) -> None:
    client = log_in(superuser=True)

    links = set()
    for url in pages:
        text = text_of(client.get(url))
        assert "/admin/" not in re.sub(r'(href|src)="/static/admin/[^"]*"', "", text), url
        links |= set(re.findall(r'(?:href|action)="(/tasks/[^"]*)"', text))
    assert len(links) > 20
    for url in sorted(links):
        expected = (405,) if re.search(r"/(requeue|run-again|withdraw|logout)/", url) else (200, 302)
        assert client.get(url.replace("&amp;", "&")).status_code in expected, url


def test_every_action_stays_on_the_site(log_in: LogIn, make_task: MakeTask, routed: str) -> None:
    client = log_in(superuser=True)
    task = make_task(status=Status.FAILED)

    response = client.post(f"/tasks/carrot/messagelog/{task.pk}/requeue/")
    assert response["Location"] == f"/tasks/carrot/messagelog/{task.pk}/change/"
    response = client.post(f"/tasks/carrot/messagelog/{task.pk}/withdraw/")
    assert response["Location"] == f"/tasks/carrot/messagelog/{task.pk}/change/"
    response = client.post("/tasks/carrot/queuedtask/purge/", {"queue": "queue:default"})
    assert response["Location"] == "/tasks/carrot/queuedtask/"
    assert client.get(f"/tasks/carrot/failedtask/{task.pk}/change/")["Location"].startswith("/tasks/")


def test_it_has_a_login_of_its_own(client: Client, make_task: MakeTask, routed: str) -> None:
    User.objects.create_superuser("anna", password="secret")
    response = client.get("/tasks/carrot/failedtask/")
    assert response["Location"] == "/tasks/login/?next=/tasks/carrot/failedtask/"

    page = text_of(client.get(response["Location"]))
    assert "<title>Log in | Carrot monitor</title>" in page
    login = {"username": "anna", "password": "secret", "next": "/tasks/"}
    assert client.post("/tasks/login/", login)["Location"] == "/tasks/"
    index = text_of(client.get("/tasks/"))
    assert "<title>Tasks and workers | Carrot monitor</title>" in index
    assert "carrot-number" in index
    assert client.post("/tasks/logout/").status_code == 200
    assert client.get("/tasks/").status_code == 302


def test_staff_without_permission_see_nothing_of_it(log_in: LogIn, pages: list[str], routed: str) -> None:
    client = log_in()

    for url in pages[1:]:
        assert client.get(url).status_code in (403, 404), url
    index = text_of(client.get("/tasks/"))
    assert "carrot-number" not in index
    assert "/tasks/carrot/failedtask/" not in index


def test_decorators_close_its_first_pages_too(log_in: LogIn, pages: list[str], routed: str, settings: Any) -> None:
    client = log_in(superuser=True)
    settings.CARROT = guard("nobody")
    for url in pages:
        assert client.get(url).status_code == 451, url

    settings.CARROT = guard("everybody")
    for url in pages:
        assert client.get(url)["X-Everybody"] == "yes", url


def test_the_two_sites_do_not_lead_to_each_other(log_in: LogIn, make_task: MakeTask, settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.admin.both_sites"
    client = log_in(superuser=True)
    task = make_task(status=Status.FAILED)

    for root, other in (("/tasks/", "/admin/"), ("/admin/", "/tasks/")):
        for page in ("carrot/", "carrot/failedtask/", f"carrot/messagelog/{task.pk}/change/"):
            text = text_of(client.get(root + page))
            assert f'="{root}carrot/' in text
            assert f'="{other}' not in text


def test_urls_of_the_project_may_stand_behind_it(log_in: LogIn, routed: str) -> None:
    """No pattern that matches everything: the project may mount it at its root."""
    assert log_in(superuser=True).get("/tasks/something/else/").status_code == 404
    assert not [pattern for pattern in site.get_urls() if str(pattern.pattern) == r"(?P<url>.*)$"]


def test_without_the_admin_in_the_settings_the_cure_is_told() -> None:
    code = (
        "import django\n"
        "from django.conf import settings\n"
        "settings.configure(INSTALLED_APPS=['carrot'], CARROT={'default_broker': 'database://'})\n"
        "django.setup()\n"
        "import carrot.urls\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert "ImproperlyConfigured: carrot.urls is the monitor" in done.stderr
    assert 'add "django.contrib.admin" to INSTALLED_APPS' in done.stderr
