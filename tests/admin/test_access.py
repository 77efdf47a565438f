"""Who sees what, and that nobody changes anything."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from carrot import clock
from carrot.models import MessageLog, Status, StrayMessage, WorkerProcess

from .conftest import LISTS, OTHERS, LogIn, MakeTask, list_url, page_url, text_of


@pytest.fixture
def urls(make_task: MakeTask, worker: WorkerProcess) -> list[str]:
    """Every page of the monitor."""
    stray = StrayMessage.objects.create(received_at=clock.now(), queue="q", reason="no JSON", body="{")
    pages = [page_url(make_task(status=status)) for status in Status]
    pages += [f"/admin/carrot/workerprocess/{worker.pk}/change/", f"/admin/carrot/straymessage/{stray.pk}/change/"]
    return [*map(list_url, LISTS), *map(list_url, OTHERS), *pages, *(url.replace("change", "history") for url in pages)]


@pytest.fixture
def doing(make_task: MakeTask) -> list[str]:
    """Every page that does something to tasks."""
    task = f"/admin/carrot/messagelog/{make_task(status=Status.FAILED).pk}"
    buttons = [f"{task}/{verb}/" for verb in ("requeue", "run-again", "withdraw", "delete")]
    return [*buttons, list_url("queuedtask", "purge/"), list_url("queuedtask", "requeue-pending/")]


def test_anybody_has_to_log_in(client: Client, urls: list[str]) -> None:
    for url in ["/admin/carrot/", *urls]:
        response = client.get(url)
        assert response.status_code == 302
        assert response["Location"].startswith("/admin/login/"), url


def test_staff_without_permission_see_nothing(log_in: LogIn, urls: list[str]) -> None:
    client = log_in()

    assert client.get("/admin/carrot/").status_code == 404
    for url in urls:
        assert client.get(url).status_code == 403, url


def test_permission_for_one_model_opens_no_other(log_in: LogIn, urls: list[str]) -> None:
    client = log_in("view_workerprocess")

    for url in urls:
        assert client.get(url).status_code == (200 if "/workerprocess/" in url else 403), url


def test_viewers_see_every_page_and_every_list(viewer: Client, urls: list[str]) -> None:
    index = text_of(viewer.get("/admin/carrot/"))

    for url in urls:
        assert viewer.get(url).status_code == 200, url
    for name in (*LISTS, *OTHERS):
        assert f'href="{list_url(name)}"' in index


def test_the_lists_have_no_permissions_of_their_own(db: None) -> None:
    from django.contrib.auth.models import Permission

    names = set(Permission.objects.filter(content_type__app_label="carrot").values_list("codename", flat=True))

    assert not [name for name in names for proxy in LISTS if name.endswith(f"_{proxy}") and proxy != "messagelog"]
    assert "view_messagelog" in names


def test_nobody_can_add_or_change(log_in: LogIn, urls: list[str], make_task: MakeTask) -> None:
    client = log_in(superuser=True)
    task = make_task(status=Status.FAILED)
    before = list(MessageLog.objects.order_by("pk").values())

    for name in (*LISTS, *OTHERS):
        assert client.get(f"{list_url(name)}add/").status_code == 403
        assert client.post(f"{list_url(name)}add/", {"task": "os.system"}).status_code == 403
    assert client.post(page_url(task), {"task": "os.system", "status": "PUBLISHED"}).status_code == 403
    worker = WorkerProcess.objects.get()
    for url in (f"{list_url('workerprocess')}{worker.pk}/", f"{list_url('straymessage')}1/"):
        assert client.post(f"{url}delete/", {"post": "yes"}).status_code in (302, 403)
        client.post(list_url(url.split("/")[3]), {"action": "delete_selected", "_selected_action": [1], "post": "yes"})

    assert list(MessageLog.objects.order_by("pk").values()) == before
    assert WorkerProcess.objects.exists()
    assert StrayMessage.objects.exists()


def test_looking_changes_nothing(viewer: Client, urls: list[str]) -> None:
    def everything() -> list[Any]:
        return [list(model.objects.order_by("pk").values()) for model in (MessageLog, WorkerProcess, StrayMessage)]

    before = everything()
    for url in urls:
        viewer.get(url)

    assert everything() == before
    assert User.objects.count() == 1


# -- the project's own decorators ------------------------------------------------------------------------------------


def guard(*names: str) -> dict[str, Any]:
    return {
        "default_broker": "database://",
        "monitor_authentication": [f"tests.admin.decorators.{name}" for name in names],
    }


def test_decorators_close_every_page_and_action(
    log_in: LogIn, urls: list[str], doing: list[str], settings: Any
) -> None:
    client = log_in(superuser=True)
    settings.CARROT = guard("nobody")
    before = list(MessageLog.objects.order_by("pk").values())
    keys = [row["id"] for row in before]
    for url in [*urls, *doing]:
        for action in ("requeue", "run_again", "withdraw", "delete_selected"):
            data = {"action": action, "_selected_action": keys, "post": "yes", "queue": "all"}
            assert client.post(url, data).status_code == 451, url
        assert client.get(url).status_code == 451, url
    assert list(MessageLog.objects.order_by("pk").values()) == before

    settings.CARROT = guard("everybody")
    for url in urls:
        assert client.get(url).status_code == 200, url
    for url in doing:
        assert client.post(url)["X-Everybody"] == "yes", url


def test_the_autocompletion_of_the_site_offers_no_tasks(
    log_in: LogIn, make_task: MakeTask, worker: WorkerProcess
) -> None:
    """It is no page of ours, so the decorators do not see it."""
    client = log_in(superuser=True)
    task = make_task()

    for model, field in (("scheduledtask", "last_message"), ("attempt", "message_log"), ("messagelog", "worker")):
        query = {"app_label": "carrot", "model_name": model, "field_name": field, "term": ""}
        response = client.get("/admin/autocomplete/", query)
        assert response.status_code == 403, field
        assert str(task.uuid) not in response.content.decode()


def test_the_last_decorator_is_outermost(viewer: Client, urls: list[str], settings: Any) -> None:
    settings.CARROT = guard("nobody", "everybody")
    response = viewer.get(urls[0])
    assert (response.status_code, response["X-Everybody"]) == (451, "yes")

    settings.CARROT = guard("everybody", "nobody")
    assert "X-Everybody" not in viewer.get(urls[0])


def test_decorators_come_after_the_login(client: Client, urls: list[str], settings: Any) -> None:
    settings.CARROT = guard("nobody")

    for url in urls:
        assert client.get(url).status_code == 302, url


def test_decorators_close_the_numbers_of_the_first_page(viewer: Client, make_task: MakeTask, settings: Any) -> None:
    make_task()
    assert "carrot-number" in text_of(viewer.get("/admin/carrot/"))

    settings.CARROT = guard("nobody")
    assert "carrot-number" not in text_of(viewer.get("/admin/carrot/"))


@pytest.mark.parametrize("wrong", [guard("no_such_name"), {"default_broker": "nonsense://"}])
def test_settings_that_cannot_be_used_are_no_open_door(
    viewer: Client, urls: list[str], settings: Any, wrong: dict[str, Any]
) -> None:
    settings.CARROT = wrong
    viewer.raise_request_exception = False

    for url in ["/admin/carrot/", *urls]:
        assert viewer.get(url).status_code == 500, url
    assert viewer.get("/admin/").status_code == 200


def test_the_service_does_not_need_the_admin() -> None:
    """Models, services and the management command come without carrot.admin and django.contrib.admin."""
    code = (
        "import sys, django\n"
        "from django.conf import settings\n"
        "settings.configure(INSTALLED_APPS=['carrot'], CARROT={'default_broker': 'database://'},\n"
        "    DATABASES={'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': ':memory:'}})\n"
        "django.setup()\n"
        "import carrot.service, carrot.services, carrot.management.commands.carrot\n"
        "assert not [name for name in sys.modules if name.startswith(('carrot.admin', 'django.contrib.admin'))]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
