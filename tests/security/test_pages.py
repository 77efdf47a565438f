"""Hostile text in every column, every field of every form, every address: on every page it is text, and no more."""

from __future__ import annotations

import json
import re
from html import unescape
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.db.models import TextField, Value

from carrot.admin.filters import parameters_of
from carrot.admin.forms import ScheduledTaskForm
from carrot.models import MessageLog, ScheduledTask, StrayMessage
from tests.admin.schedules import form_of, make_schedule
from tests.security import hostile
from tests.security.addresses import SITES, Route, routes
from tests.security.markup import Form, Page
from tests.security.population import all_models, marks, populate
from tests.security.visitor import Visitor

#: Columns that no page shows.
NOT_SHOWN = {"messagelog.origin", "scheduledtask.origin"}

#: Marks of what comes from the settings and the code of the project, not from rows.
QUEUE, DOCSTRING, IMPORT_ERROR, ADDRESS = "xq7zc", "xq7za", "xq7zb", "xq7zd"
#: Texts that the settings take for the name of a queue.
NAMEABLE = ("markup", "closer", "template", "scheme", "far")

CARROT: dict[str, Any] = {
    "default_broker": "database://",
    "queues": [{"name": "default"}, *({"name": hostile.text(name, QUEUE)} for name in NAMEABLE)],
    "task_modules": ["tests.security.hostile_tasks", "tests.security.broken_tasks"],
    "redact": [],  # nothing is hidden, so that all of a function that is found has to be shown
}


#: Each with the sites in turn, which answer with the same views.
one_text_a_test = pytest.mark.parametrize(
    ("text", "root"),
    [
        pytest.param(hostile.text(name, ADDRESS), list(SITES)[number % len(SITES)], id=name)
        for number, name in enumerate(hostile.NAMES)
    ],
    indirect=["root"],
)


@pytest.fixture(autouse=True)
def project(settings: Any) -> None:
    settings.CARROT = CARROT


@pytest.fixture
def visitor(db: None) -> Visitor:
    return Visitor(User.objects.create_superuser("root", password="secret"))


@pytest.fixture
def refused(db: None) -> set[str]:
    """Rows of all kinds; the columns that the database itself keeps clean."""
    return populate()


def lists(root: str) -> list[Route]:
    """The lists of a site; each has a page to add to it."""
    found = {route.path for route in routes(root)}
    return [route for route in routes(root) if route.path and f"{route.path}add/" in found]


def addresses(root: str, route: Route) -> list[str]:
    """The addresses of one pattern, for every row where it is of one."""
    names = {"app_label": "carrot", "url": "carrot/no/such/page", "content_type_id": 1}
    if "object_id" not in route.path:
        return [root + route.filled(**names)]
    keys = _keys(route.model or "messagelog")
    # Stepping so still meets every text and every state; the sites answer with the same views.
    chosen = keys if route.path.endswith("/change/") and root == "/admin/" else keys[::5]
    return [root + route.filled(object_id=key, **names) for key in [*chosen, 10**9]]


def _keys(model_name: str) -> list[int]:
    models: dict[str, Any] = {model._meta.model_name: model for model in all_models()}
    if model_name in models:
        return list(models[model_name].objects.order_by("pk").values_list("pk", flat=True))
    return list(MessageLog.objects.order_by("pk").values_list("pk", flat=True)[:3])  # of a list of one status


def admin_of(root: str, each: Route) -> Any:
    """What makes a list."""
    site = next(site for prefix, site in SITES.values() if prefix == root)
    return next(admin for model, admin in site._registry.items() if each.path == f"carrot/{model._meta.model_name}/")


def filtered(root: str, each: Route) -> str:
    """The address of a list, filtered by a hostile name of a function where it can be."""
    admin = admin_of(root, each)
    if "task" not in parameters_of(admin.list_filter):
        return root + each.path
    column = f"{admin.model._meta.concrete_model._meta.model_name}.task"
    [mark] = [mark for mark, name in marks().items() if name == column]
    return f"{root}{each.path}?{urlencode({'task': hostile.text('markup', mark)})}"


def pages_of(root: str, model: str, view: str) -> list[str]:
    return [f"{root}carrot/{model}/{key}/{view}/" for key in _keys(model)]


def forms_to_press(page: Page) -> list[Form]:
    """The forms of a page that do something; not the one at its top that ends the session, nor that of a list."""
    return [
        form
        for form in page.forms
        if form.method == "post" and "logout" not in form.action and "action" not in form.options
    ]


def everything_of_a_kind(root: str) -> list[str]:
    return [address for route in routes(root) for address in addresses(root, route)]


def test_what_rows_hold_is_text_on_every_page(root: str, visitor: Visitor, refused: set[str]) -> None:
    for address in everything_of_a_kind(root):
        if not address.endswith("/logout/"):
            visitor.get(address)

    # Values are shown where their function is found, and bodies that are JSON.
    MessageLog.objects.update(task="tests.security.hostile_tasks.charge")
    for message in StrayMessage.objects.all():
        StrayMessage.objects.filter(pk=message.pk).update(body=json.dumps({"text": message.body}))
    for model in ("messagelog", "straymessage"):
        for address in (f"{root}carrot/{model}/", *pages_of(root, model, "change")):
            visitor.get(address)

    shown = {marks()[mark] for mark in visitor.seen & set(marks())}
    assert set(marks().values()) - shown == NOT_SHOWN | refused
    assert {QUEUE, DOCSTRING, IMPORT_ERROR} <= visitor.seen


@pytest.mark.parametrize("root", ["stock"], indirect=True)
def test_rows_that_were_changed_by_hand_are_text_too(root: str, visitor: Visitor, refused: set[str]) -> None:
    """What is not the JSON, or not the mark of a result, that carrot writes."""
    rows = list(MessageLog.objects.order_by("pk"))
    raw = [*hostile.texts(), "[", '{"a": ', "NaN", '"text"', "1", "null", "[" * 5000]
    raw += [json.dumps({"__carrot__": kind, **dict.fromkeys(("type", "text", "size", "value"), text)})
            for kind in ("repr", "cut", "json", "none") for text in hostile.texts()]  # fmt: skip
    assert len(raw) <= len(rows)
    for row, text in zip(rows, raw, strict=False):
        value = Value(text, output_field=TextField())
        MessageLog.objects.filter(pk=row.pk).update(args=value, kwargs=value, output=value)

    for each in lists(root):
        visitor.get(root + each.path, {"q": "xq7"})
    for row in rows:
        visitor.get(f"{root}carrot/messagelog/{row.pk}/change/")


@one_text_a_test
def test_what_stands_in_an_address_is_text(root: str, visitor: Visitor, make_task: Any, text: str) -> None:
    text = text[:300]
    task, schedule = make_task(exception=text), make_schedule()
    known = ("o", "p", "all", "e", "_popup", "_to_field", "_changelist_filters", "log_level", "action")
    for each in lists(root):
        names = {"q", *parameters_of(admin_of(root, each).list_filter)}
        visitor.seen.clear()
        visitor.get(root + each.path, dict.fromkeys(names, text))
        assert visitor.seen, f"{each.path} was shown, with what was asked for"
        visitor.get(root + each.path, dict.fromkeys({*names, *known}, text))
    for page in (
        f"carrot/messagelog/{task.pk}/change/",
        f"carrot/messagelog/{task.pk}/delete/",
        f"carrot/failedtask/{task.pk}/change/",
        f"carrot/scheduledtask/{schedule.pk}/change/",
        f"carrot/scheduledtask/{schedule.pk}/delete/",
        "carrot/scheduledtask/add/",
    ):
        visitor.get(root + page, dict.fromkeys((*known, "task", "queue", "args", "task_name"), text))
    for path in (quote(text), quote(text, safe=""), f"carrot/messagelog/{quote(text)}/change/"):
        visitor.get(root + path)
    visitor.get(f"{root}autocomplete/", dict.fromkeys(("app_label", "model_name", "field_name", "term"), text))
    Visitor(None).get(f"{root}login/", {"next": text})


# -- what is done, and what is said about it --------------------------------------------------------------------------


def test_what_every_action_of_a_list_asks_and_says_is_text(root: str, visitor: Visitor, refused: set[str]) -> None:
    done: list[tuple[str, str]] = []
    for each in lists(root):
        url = filtered(root, each)
        offered = [form.options["action"] for form in visitor.get(url).forms if "action" in form.options]
        for action in [action for actions in offered for action in actions if action]:
            keys = admin_of(root, each).model.objects.values_list("pk", flat=True)[:100]
            across = len(done) % 2  # what is selected, and all that match, in turn
            asked = visitor.post(url, {"action": action, "_selected_action": keys, "select_across": across})
            for form in forms_to_press(asked):
                visitor.send(url, form)
            done.append((each.path, action))
    assert len({action for _path, action in done}) >= 7
    visitor.get(root)  # the first page tells what was done last


def test_what_every_button_asks_and_says_is_text(root: str, visitor: Visitor, refused: set[str]) -> None:
    wanted = {"requeue", "run-again", "withdraw", "run", "delete", "purge", "requeue-pending"}
    pressed: set[str] = set()
    kinds = [(name, view) for name in ("messagelog", "scheduledtask") for view in ("change", "delete")]
    every = [page for name, view in kinds for page in pages_of(root, name, view)]
    # A sample, and as many more as it takes to see every button: which rows have it depends on their order.
    some = [*every[::8], f"{root}carrot/queuedtask/purge/", f"{root}carrot/queuedtask/requeue-pending/"]
    for number, url in enumerate([*some, *every]):
        if number >= len(some) and pressed >= wanted:
            break
        for form in forms_to_press(visitor.get(url)):
            for queue in form.fields.get("queue", [""]):
                visitor.send(url, form, **({"queue": queue} if queue else {}))
            pressed.add((form.action or url).rstrip("/").rpartition("/")[2])
    assert pressed >= wanted
    for page in pages_of(root, "messagelog", "history")[::8]:
        visitor.get(page)


def test_entries_of_the_admin_log_are_text(root: str, visitor: Visitor, make_task: Any) -> None:
    objects = [make_task(), make_schedule()]
    for each in objects:
        for text in hostile.texts("xq7ya"):
            for message in (text, json.dumps([{"changed": {"fields": [text], "name": text, "object": text}}])):
                kind = ContentType.objects.get_for_model(each)
                LogEntry.objects.create(
                    user=visitor.user,
                    content_type=kind,
                    object_id=each.pk,
                    object_repr=text[:200],
                    action_flag=CHANGE,
                    change_message=message,
                )
    visitor.get(root)
    for each in objects:
        visitor.seen.clear()
        visitor.get(f"{root}carrot/{each._meta.model_name}/{each.pk}/history/")
        assert visitor.seen == {"xq7ya"}


# -- forms ------------------------------------------------------------------------------------------------------------

FIELDS = tuple(ScheduledTaskForm.base_fields)


@one_text_a_test
def test_what_was_typed_comes_back_as_text_with_what_is_wrong_with_it(root: str, visitor: Visitor, text: str) -> None:
    schedule = make_schedule()
    in_json = {"args": json.dumps([text]), "kwargs": json.dumps({text: text})}
    for url in (f"{root}carrot/scheduledtask/add/", f"{root}carrot/scheduledtask/{schedule.pk}/change/"):
        wrong = visitor.post(url, dict.fromkeys(FIELDS, text))
        assert forms_to_press(wrong)[-1].fields["args"], "the form came back"
        visitor.post(url, form_of(**in_json, task="tests.security.hostile_tasks.charge"))
        visitor.post(url, form_of(**dict.fromkeys(("_popup", "_to_field", "_saveasnew", "_continue"), text)))
    for field in FIELDS:
        visitor.post(f"{root}carrot/scheduledtask/add/", form_of(**{field: text}))
    visitor.post(f"{root}carrot/queuedtask/purge/", {"queue": text})
    Visitor(None).post(f"{root}login/", {"username": text, "password": text, "next": text})


def test_a_schedule_of_any_name_is_made_changed_run_and_deleted(root: str, visitor: Visitor) -> None:
    url = f"{root}carrot/scheduledtask/"
    for name in hostile.NAMES:
        typed = hostile.text(name, "xq7xa").replace("\r", "")[:200]
        visitor.post(f"{url}add/", form_of(task_name=typed, exchange=typed, routing_key=typed), follow=True)
        schedule = ScheduledTask.objects.get()
        assert "xq7xa" in schedule.task_name
        visitor.post(f"{url}{schedule.pk}/change/", form_of(schedule, priority="3", _continue="1"), follow=True)
        visitor.post(f"{url}{schedule.pk}/run/", {}, follow=True)
        visitor.post(f"{url}{schedule.pk}/delete/", {"post": "yes"}, follow=True)
        assert not ScheduledTask.objects.exists()
    visitor.get(root)


def test_what_an_editor_is_told_in_attributes_is_json(root: str, visitor: Visitor) -> None:
    source = visitor.client.get(f"{root}carrot/scheduledtask/add/").content.decode()
    options = re.findall(r'data-options="([^"]*)"', source)
    assert len(options) == 2
    assert all(json.loads(unescape(each))["modes"] for each in options)
