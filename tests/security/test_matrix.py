"""Who may do what: every address and every action of both sites, with each permission, as the table says.

The table is compared with the patterns and the actions that there are, so that a new one has to be entered there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.admin import AdminSite
from django.contrib.auth.models import Permission, User
from django.test import Client, RequestFactory

from tests.admin.conftest import LogIn
from tests.security.addresses import SITES, routes
from tests.security.deeds import ALL_ACTIONS, World, everything
from tests.security.markup import Page
from tests.security.powers import ACTIONS, ADDRESSES, NOBODY, PERMISSIONS, about, may, permitted


@pytest.fixture
def world(root: str, db: None) -> World:
    return World(root)


def is_open(response: Any) -> bool:
    """Whether an answer shows something, or leads on within the site."""
    assert response.status_code in (200, 302, 400, 403, 404, 405), response
    return response.status_code == 200 or (response.status_code == 302 and "/login/" not in response["Location"])


def check(
    world: World, client: Client, permissions: set[str], concerned: Callable[[str], bool] = lambda need: True
) -> None:
    """Tries everything there is whose need is ``concerned``, and looks whether it was done."""
    for route in world.routes():
        to_see, to_change = ADDRESSES[route.key]
        url = world.address(route)
        if concerned(to_see):
            assert is_open(client.get(url)) is may(permissions, to_see), url
        if concerned(to_change) and route.key != "logout/":
            changed, response = world.changed_by(client, url, world.data(route))
            assert changed is may(permissions, to_change), (url, response)
    for name in world.lists():
        for action in ALL_ACTIONS:
            need = ACTIONS.get((name, action), NOBODY)
            if concerned(need):
                url = f"{world.root}carrot/{name}/"
                changed, response = world.changed_by(client, url, world.pressed(name, action))
                assert changed is may(permissions, need), (name, action, response)


# -- the table --------------------------------------------------------------------------------------------------------


def test_the_table_has_every_address_and_nothing_else(root: str) -> None:
    elsewhere = {f"(?P<app_label>{labels})/$" for labels in ("carrot", "auth|carrot")} | {"(?P<url>.*)$"}
    assert {route.key for route in routes(root)} - elsewhere == set(ADDRESSES) - elsewhere
    assert {route.key for route in routes(root)} <= set(ADDRESSES)


@pytest.mark.parametrize("site", [site for _root, site in SITES.values()], ids=SITES)
def test_the_table_has_every_action_and_nothing_else(site: AdminSite, db: None) -> None:
    request = RequestFactory().get("/")
    request.user = User.objects.create_superuser("root")
    offered = {
        (model._meta.model_name, action)
        for model, admin in site._registry.items()
        if model._meta.app_label == "carrot"
        for action in admin.get_actions(request)
    }
    assert offered == set(ACTIONS)


def test_the_table_has_every_permission_that_opens_anything(db: None) -> None:
    """The others are Django's own, of models that nobody changes by hand."""
    there = set(Permission.objects.filter(content_type__app_label="carrot").values_list("codename", flat=True))
    idle = {f"{verb}_{name}" for name in ("workerprocess", "straymessage") for verb in ("add", "delete")}
    assert there == set(PERMISSIONS) | idle | {"add_messagelog"}


# -- people with permissions ------------------------------------------------------------------------------------------


def test_without_any_permission(world: World, log_in: LogIn) -> None:
    check(world, log_in(), set())


def test_with_those_that_open_nothing(world: World, log_in: LogIn) -> None:
    there = set(Permission.objects.filter(content_type__app_label="carrot").values_list("codename", flat=True))
    idle = there - set(PERMISSIONS)
    check(world, log_in(*idle), idle, permitted)


def test_with_those_to_view_alone(world: World, log_in: LogIn) -> None:
    views = {permission for permission in PERMISSIONS if permission.startswith("view_")}
    check(world, log_in(*views), views, permitted)


@pytest.mark.parametrize("permission", PERMISSIONS)
def test_with_one_permission(world: World, log_in: LogIn, permission: str) -> None:
    check(world, log_in(permission), {permission}, permitted)


@pytest.mark.parametrize("permission", PERMISSIONS)
def test_with_all_but_one(world: World, log_in: LogIn, permission: str) -> None:
    rest = set(PERMISSIONS) - {permission}
    check(world, log_in(*rest), rest, about(permission))


def test_a_superuser(world: World, log_in: LogIn) -> None:
    check(world, log_in(superuser=True), set(PERMISSIONS))


# -- people who are not let in, and requests that are not theirs -------------------------------------------------------


def all_posts(world: World) -> list[tuple[str, dict[str, Any]]]:
    """Every POST that changes something if somebody sends it who may."""
    found = [
        (world.address(route), world.data(route)) for route in world.routes() if permitted(ADDRESSES[route.key][1])
    ]
    return found + [(f"{world.root}carrot/{name}/", world.pressed(name, action)) for name, action in ACTIONS]


@pytest.mark.parametrize("who", ["nobody", "no staff", "inactive", "logged out"])
def test_who_may_not_log_in_gets_nowhere(world: World, who: str) -> None:
    client = Client()
    if who != "nobody":
        user = User.objects.create_superuser("root", password="secret")
        client.force_login(user)
        user.is_staff, user.is_active = who != "no staff", who != "inactive"
        user.save()
        if who == "logged out":
            client.post(f"{world.root}logout/")
    before = everything()
    ways = [(url, data) for url, data in all_posts(world)]
    ways += [(world.address(route), {}) for route in world.routes() if route.key not in ("login/", "logout/")]
    for url, data in ways:
        for response in (client.get(url, data), client.post(url, data), client.head(url)):
            assert not is_open(response), url
            assert b"tests.app" not in response.content
    assert everything() == before


def test_without_a_token_nothing_is_done(world: World) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_superuser("root", password="secret"))
    page = Page(client.get(f"{world.root}carrot/scheduledtask/add/").content.decode())
    token = page.forms[-1].fields["csrfmiddlewaretoken"][0]
    before = everything()
    for url, data in all_posts(world):
        for wrong in ({}, {"csrfmiddlewaretoken": ""}, {"csrfmiddlewaretoken": token[::-1]}):
            assert client.post(url, data | wrong).status_code == 403, url
    assert everything() == before
    for url, data in all_posts(world):
        changed, response = world.changed_by(client, url, data | {"csrfmiddlewaretoken": token})
        assert changed, (url, response)


def test_looking_changes_nothing(world: World, log_in: LogIn) -> None:
    """Not even with everything in the address that a POST would have."""
    client = log_in(superuser=True)
    before = everything()
    for url, data in [*all_posts(world), *((world.address(route), {}) for route in world.routes())]:
        for look in (client.get, client.head, client.options):
            assert look(url, data).status_code < 500
    assert everything() == before


def test_the_decorators_of_the_project_close_every_page_and_every_action(
    world: World, log_in: LogIn, settings: Any
) -> None:
    client = log_in(superuser=True)
    before = everything()
    ours = [route for route in world.routes() if route.path.startswith("carrot/")]
    settings.CARROT = {"default_broker": "database://", "monitor_authentication": ["tests.admin.decorators.nobody"]}
    for url, data in [*all_posts(world), *((world.address(route), world.data(route)) for route in ours)]:
        for response in (client.get(url, data), client.post(url, data)):
            # Not a view of ours: the redirect of an old address to the page of a task.
            assert response.status_code == (302 if url.rstrip("/").rpartition("/")[2].isdecimal() else 451), url
    assert everything() == before
    for path in ("", "carrot/"):
        assert b"carrot-number" not in client.get(world.root + path).content
