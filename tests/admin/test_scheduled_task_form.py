"""The form of a schedule: what is offered, what is refused and where, and what is kept."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from carrot import clock
from carrot.models import Origin, ScheduledTask

from .conftest import LogIn, text_of
from .schedules import ADD, BASE, FAIL, GONE, UNREGISTERED, errors_of, form_of, make_schedule, page

ADD_URL = f"{BASE}add/"


@pytest.fixture
def editor(log_in: LogIn) -> Client:
    return log_in("add_scheduledtask", "change_scheduledtask", "view_scheduledtask")


def textarea(text: str, name: str) -> str:
    """What an input holds that is more than one line."""
    [found] = re.findall(rf'<textarea name="{name}"[^>]*>\n(.*?)</textarea>', text, re.DOTALL)
    return unescape(found)


# -- what is offered -------------------------------------------------------------------------------------------------


def test_functions_are_offered_by_module_with_signature_and_first_docstring_line(editor: Client) -> None:
    text = text_of(editor.get(ADD_URL))

    group = text.split('<optgroup label="tests.app.tasks">')[1].split("</optgroup>")[0]
    assert re.search(rf'<option value="{ADD}"[^>]*>add\(a, b\) – Return a result.</option>', group)
    assert f'data-call="{ADD}(a, b)" data-summary="Return a result."' in group
    assert "import" not in group
    assert (textarea(text, "args"), textarea(text, "kwargs")) == ("[]", "{}")


def test_functions_of_task_modules_are_offered_too(editor: Client, settings: Any) -> None:
    assert UNREGISTERED not in text_of(editor.get(ADD_URL))
    settings.CARROT = {"default_broker": "database://", "task_modules": ["tests.admin.samples"]}
    text = text_of(editor.get(ADD_URL))

    assert text.index('<optgroup label="tests.admin.samples">') < text.index('<optgroup label="tests.app.tasks">')
    assert f'<option value="{UNREGISTERED}" data-call="{UNREGISTERED}(name, times=1)"' in text


def test_a_module_that_does_not_import_is_a_line_and_the_others_are_offered(
    editor: Client, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_tasks.py").write_text('raise RuntimeError("<b>no</b> amqp://u:geheim@h/\\nsecond line")\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    settings.CARROT = {"default_broker": "database://", "task_modules": ["broken_tasks"]}
    text = text_of(editor.get(ADD_URL))

    assert "Without the tasks of broken_tasks" in text
    assert "RuntimeError: &lt;b&gt;no&lt;/b&gt; amqp://u:••••••@h/<" in text
    assert "second line" not in text
    assert f'value="{ADD}"' in text


def test_without_any_function_the_form_says_which_setting_to_add(editor: Client, settings: Any) -> None:
    assert "No task is registered" not in text_of(editor.get(ADD_URL))
    settings.INSTALLED_APPS = [name for name in settings.INSTALLED_APPS if name != "tests.app"]
    text = unescape(text_of(editor.get(ADD_URL)))

    assert "No task is registered. Mark functions with @carrot.task" in text
    assert 'CARROT["task_modules"]' in text


def test_queues_of_the_settings_are_offered_with_their_hosts_where_these_differ(editor: Client, settings: Any) -> None:
    settings.CARROT = {"default_broker": "database://", "queues": [{"name": "mails"}, {"name": "default"}]}
    text = text_of(editor.get(ADD_URL))
    assert '<option value="mails">mails</option>' in text
    assert '<option value="default" selected>default</option>' in text
    settings.CARROT = {"default_broker": "database://", "queues": [{"name": "mails"}, {"name": "sums"}]}
    text = text_of(editor.get(ADD_URL))
    assert '<option value="mails" selected>mails</option>' in text
    assert '<option value="default"' not in text

    settings.CARROT["queues"] = [{"name": "mails"}, {"name": "far", "host": "amqp://u:geheim@far:5672/v"}]
    settings.CARROT = dict(settings.CARROT)
    text = text_of(editor.get(ADD_URL))
    assert '<option value="far">far (amqp://far:5672/v)</option>' in text


# -- what is written -------------------------------------------------------------------------------------------------


def test_a_schedule_is_written_as_filled_in(editor: Client) -> None:
    before = clock.now()
    values = {"args": "[1.5]", "kwargs": '{"b": "Café <b>"}', "exchange": "e", "routing_key": "r", "priority": "7"}
    assert editor.post(ADD_URL, form_of(**values)).status_code == 302
    schedule = ScheduledTask.objects.get()

    assert (schedule.task_name, schedule.task, schedule.origin) == ("every five", ADD, Origin.ADMIN)
    assert (schedule.args, schedule.kwargs) == ([1.5], {"b": "Café <b>"})
    assert (schedule.interval_count, schedule.interval_type, schedule.active) == (5, "minutes", True)
    assert (schedule.queue, schedule.exchange, schedule.routing_key, schedule.priority) == ("default", "e", "r", 7)
    assert schedule.next_run is not None
    assert schedule.next_run > before
    assert textarea(text_of(editor.get(page(schedule))), "kwargs") == '{\n  "b": "Café <b>"\n}'


def test_empty_arguments_are_none(editor: Client) -> None:
    assert editor.post(ADD_URL, form_of(task="tests.app.tasks.noop", args="", kwargs=" \n")).status_code == 302
    schedule = ScheduledTask.objects.get()
    assert (schedule.args, schedule.kwargs) == ([], {})


def test_a_schedule_saved_as_it_is_stays_as_it_is(editor: Client) -> None:
    schedule = make_schedule(kwargs={}, args=[1, 12345678901234567890])
    before = ScheduledTask.objects.values().get()

    assert editor.post(page(schedule), form_of(schedule)).status_code == 302
    assert ScheduledTask.objects.values().get() == before
    assert "No fields changed" in text_of(editor.get(page(schedule, "history")))


# -- what is refused -------------------------------------------------------------------------------------------------

#: Text that is no JSON, or none that can be an argument, and words of the error.
BAD_JSON = [
    ("[1, 2", "This is not JSON: Expecting ',' delimiter, in line 1, column 6."),
    ("add(1)", "This is not JSON"),
    ("[NaN]", ""),
    ("[1e999]", ""),
    ('["\\u0000", 1]', ""),
    ("[" * 100_000, "nested"),
    ("9" * 5000, "cannot be read"),
    ('{"a": 1, "a": 2}', "“a” is there twice"),
    ("17", "A JSON list is needed"),
    ('"text"', "A JSON list is needed"),
    ('{"a": 1, "b": 2}', "A JSON list is needed"),
]


@pytest.mark.parametrize(("typed", "words"), BAD_JSON, ids=range(len(BAD_JSON)))
def test_bad_json_is_an_error_of_its_field_and_is_kept(editor: Client, typed: str, words: str) -> None:
    errors = errors_of(editor, {"args": typed})

    assert list(errors) == ["args"]
    assert words in errors["args"]
    text = text_of(editor.post(ADD_URL, form_of(args=typed)))
    assert textarea(text, "args") == typed
    assert textarea(text, "kwargs") == "{}"


def test_bad_keyword_arguments_are_an_error_of_their_field(editor: Client) -> None:
    typed = '</textarea><script>alert(1)</script>{"a": '

    assert list(errors_of(editor, {"kwargs": typed})) == ["kwargs"]
    text = text_of(editor.post(ADD_URL, form_of(kwargs=typed)))
    assert textarea(text, "kwargs") == typed
    assert "<script>alert" not in text
    assert "A JSON object is needed" in errors_of(editor, {"kwargs": "[1]"})["kwargs"]


@pytest.mark.parametrize(
    ("args", "kwargs", "field", "words"),
    [
        ("[1]", "{}", "args", "missing a required argument: 'b'"),
        ("[1, 2, 3]", "{}", "args", "too many positional arguments"),
        ("[1, 2, 3]", '{"c": 1}', "args", "too many positional arguments"),
        ("[]", '{"a": 1}', "kwargs", "missing a required argument: 'b'"),
        ("[1, 2]", '{"c": 3}', "kwargs", "unexpected keyword argument 'c'"),
        ("[1, 2]", '{"b": 3}', "kwargs", "multiple values for argument 'b'"),
    ],
)
def test_arguments_that_do_not_fit_are_an_error_of_the_right_field(
    editor: Client, args: str, kwargs: str, field: str, words: str
) -> None:
    errors = errors_of(editor, {"args": args, "kwargs": kwargs})

    assert list(errors) == [field]
    assert words in errors[field]
    assert "add(a, b)" in errors[field]


def test_one_broken_argument_says_nothing_about_the_others(editor: Client) -> None:
    schedule = make_schedule()

    assert list(errors_of(editor, {"task": FAIL, "args": "[", "kwargs": "{}"}, page(schedule))) == ["args"]
    assert list(errors_of(editor, {"task": "os.system", "args": "[1]"})) == ["task"]
    assert list(errors_of(editor, {"task": "", "args": "[1]"})) == ["task"]


@pytest.mark.parametrize("path", ["os.system", UNREGISTERED, GONE, "<script>alert(1)</script>"])
def test_only_registered_functions_can_be_chosen(editor: Client, path: str) -> None:
    errors = errors_of(editor, {"task": path, "args": "[]"})

    assert errors == {"task": f"“{path}” is no registered task."}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"interval_count": "0"}, "interval_count"),
        ({"interval_count": "-5"}, "interval_count"),
        ({"interval_count": ""}, "interval_count"),
        ({"interval_count": "1.5"}, "interval_count"),
        ({"interval_count": "10001", "interval_type": "days"}, "interval_count"),
        ({"interval_count": "9" * 30}, "interval_count"),
        ({"interval_type": "weeks"}, "interval_type"),
        ({"queue": "nowhere"}, "queue"),
        ({"priority": "11"}, "priority"),
        ({"priority": "-1"}, "priority"),
        ({"task_name": ""}, "task_name"),
        ({"task_name": "sums"}, "task_name"),
        ({"task_name": "x" * 201}, "task_name"),
    ],
)
def test_values_out_of_bounds_are_one_error_of_their_field(editor: Client, changes: dict[str, Any], field: str) -> None:
    make_schedule("sums")
    before = list(ScheduledTask.objects.values())

    response = editor.post(ADD_URL, form_of(**changes))
    form = response.context["adminform"].form
    assert list(form.errors) == [field]
    assert len(form.errors[field]) == 1, form.errors
    assert list(ScheduledTask.objects.values()) == before


def test_the_largest_interval_is_accepted(editor: Client) -> None:
    assert editor.post(ADD_URL, form_of(interval_count="10000", interval_type="days")).status_code == 302


# -- what is kept ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", [Origin.ADMIN, Origin.CODE])
def test_a_function_that_is_gone_is_shown_and_kept_with_a_warning(editor: Client, origin: str) -> None:
    schedule = make_schedule(task=GONE, args=[1], origin=origin)
    text = text_of(editor.get(page(schedule)))
    assert f'<option value="{GONE}" selected>{GONE} (not registered)</option>' in text
    assert f"The function {GONE} is not found" in text

    response = editor.post(page(schedule), form_of(schedule, active=None, args="[2]"), follow=True)
    assert f"The function {GONE} is not found" in text_of(response)
    schedule.refresh_from_db()
    assert (schedule.task, schedule.args, schedule.active, schedule.origin) == (GONE, [2], False, origin)


def test_a_schedule_from_code_keeps_its_function_and_gets_no_other_unregistered_one(editor: Client) -> None:
    schedule = make_schedule(task=UNREGISTERED, args=["Ada"], origin=Origin.CODE)
    text = text_of(editor.get(page(schedule)))
    assert f'<option value="{UNREGISTERED}" selected>' in text
    assert "is not found" not in text

    assert editor.post(page(schedule), form_of(schedule, kwargs='{"times": 2}')).status_code == 302
    schedule.refresh_from_db()
    assert (schedule.task, schedule.kwargs, schedule.origin) == (UNREGISTERED, {"times": 2}, Origin.CODE)
    assert schedule.publish().task == UNREGISTERED
    assert list(errors_of(editor, {"args": '["Ada", 1, 2]', "task": UNREGISTERED}, page(schedule))) == ["args"]

    for other in ("tests.admin.samples.log_in", "os.system"):
        assert list(errors_of(editor, {"task": other, "args": "[1, 2]"}, page(schedule))) == ["task"]
    assert editor.post(page(schedule), form_of(schedule, task=ADD, args="[1, 2]", kwargs="{}")).status_code == 302
    schedule.refresh_from_db()
    assert (schedule.task, schedule.origin) == (ADD, Origin.ADMIN)
    assert list(errors_of(editor, {"task": UNREGISTERED, "args": '["Ada"]'}, page(schedule))) == ["task"]


def test_a_queue_that_left_the_settings_can_be_kept_and_is_noted(editor: Client) -> None:
    schedule = make_schedule(queue="old")
    text = text_of(editor.get(page(schedule)))
    assert '<option value="old" selected>old (not in the settings)</option>' in text
    assert "The queue “old” is not in the settings" in text

    assert editor.post(page(schedule), form_of(schedule, priority="3")).status_code == 302
    schedule.refresh_from_db()
    assert (schedule.queue, schedule.priority) == ("old", 3)
    assert list(errors_of(editor, {"queue": "older"}, page(schedule))) == ["queue"]
    assert list(errors_of(editor, {"queue": "old", "task_name": "new"})) == ["queue"]


# -- without scripts, and without inline ones ------------------------------------------------------------------------


def test_the_inputs_are_ordinary_ones_and_nothing_is_inline(editor: Client) -> None:
    schedule = make_schedule(args=["</script><script>alert(1)</script>", 2])

    for text in (text_of(editor.get(ADD_URL)), text_of(editor.get(page(schedule)))):
        assert re.search(r'<textarea name="args"(?![^>]*(hidden|required|style))', text)
        assert re.search(r'<select name="task"(?![^>]*(hidden|style))', text)
        scripts = re.findall(r"<script\b[^>]*>", text)
        assert all(" src=" in tag or ' type="application/json"' in tag for tag in scripts), scripts
        assert not re.search(r"<[^>]*\s(style|on\w+)=", text)
        assert "<style" not in text
    for name in ("dist/jsoneditor.min.js", "carrot/json_editor.js", "carrot/task_select.js"):
        assert f'<script src="/static/{name}"></script>' in text
    assert "alert(1)</script>" not in text
