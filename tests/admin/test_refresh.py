"""The lists refresh themselves every ten seconds, as those of 1.x did (``carrot/static/carrot/refresh.js``)."""

from __future__ import annotations

import pytest
from django.contrib.staticfiles import finders
from django.test import Client

from tests.rows import new_row

pytestmark = pytest.mark.django_db

LISTS = ["queuedtask", "runningtask", "failedtask", "completedtask", "delayedtask", "messagelog", "scheduledtask"]


@pytest.mark.parametrize("name", LISTS)
def test_every_list_has_the_switch_and_the_script(admin_client: Client, name: str) -> None:
    text = admin_client.get(f"/admin/carrot/{name}/").content.decode()
    assert "Refresh every ten seconds" in text
    assert 'src="/static/carrot/refresh.js"' in text
    assert finders.find("carrot/refresh.js")


def test_a_page_that_is_being_read_stays_as_it_is(admin_client: Client) -> None:
    text = admin_client.get(f"/admin/carrot/messagelog/{new_row().pk}/change/").content.decode()
    assert "carrot-refresh" not in text


def test_asking_whether_the_page_still_comes_is_cheap_in_words(admin_client: Client) -> None:
    answer = admin_client.head("/admin/carrot/failedtask/")
    assert (answer.status_code, answer.content) == (200, b"")
