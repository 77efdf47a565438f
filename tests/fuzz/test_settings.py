"""The setting CARROT: whatever is written there means something, or the checks say what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import CheckMessage
from django.test import override_settings
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from pika.data import encode_table

from carrot import checks, conf
from carrot.exceptions import CarrotConfigException, UnknownQueue
from carrot.message import Message
from carrot.setting_keys import keys_of
from carrot.setting_values import Problem
from tests.fuzz.strategies import HUGE, Wrapped, examples, hostile, itself, makers, mutated, nested, texts, values

# Python's word on doubtful regular expressions is the author's to hear.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

DOCUMENTED = set(re.findall(r"carrot\.[EW]\d{3}", (Path(__file__).parents[2] / "docs" / "checks.md").read_text()))
SECRET = "s3cr3t"
GOOD = {
    "default_broker": "amqp://anna:geheim@rabbit1:5672,rabbit2/site?heartbeat=30",
    "queues": [
        {"name": "default", "host": {"host": "rabbit", "username": "u", "password": "p", "name": "x", "port": 5673}},
        {
            "name": "mail",
            "host": "amqps://rabbit/",
            "concurrency": 3,
            "consumable": True,
            "durable": False,
            "queue_arguments": {"x-max-priority": 3, "x-a": [1, "é", {"b": None}]},
            "exchange_arguments": {"x-b": b"bytes"},
            "consumer_class": "zz_shop.consumers.MyConsumer",
        },
    ],
    "task_modules": ["zz_shop.tasks"],
    "monitor_authentication": ["zz_shop.decorators.staff"],
    "retention": {"completed": 1, "failed": None, "cancelled": 2.5},
    "redact": ["TOKEN", "(?i)pass", "(?P<a>a{2,3})", "(?P<a>b)"],
}
#: Numbers and words, as they are by default.
GOOD |= {each.name: each.default for each in fields(conf.CarrotSettings) if isinstance(each.default, (int, float, str))}


def with_queue(**keys: Any) -> dict[str, Any]:
    return {"queues": [{"name": "default", **keys}]}


def test_the_good_settings_here_name_every_key() -> None:
    assert set(keys_of(conf.CarrotSettings)) == set(GOOD)
    assert set(keys_of(conf.QueueSettings)) == set(GOOD["queues"][1])  # type: ignore[index]
    assert conf.read(GOOD)[0] is not None


def assert_told(problems: list[Problem]) -> None:
    for problem in problems:
        assert problem.id in DOCUMENTED
        assert problem.hint
        # A terminal can show it, and it cannot fake a line of its own.
        assert f"{problem.message}{problem.hint}".isprintable()


@examples(200)
@given((values | st.dictionaries(st.sampled_from(sorted(GOOD)), values, max_size=4)).map(Wrapped))
@example(Wrapped(with_queue(queue_arguments={"a": 2.5})))
@example(Wrapped({"lease": HUGE}))
@example(Wrapped({"default_broker": {"port": HUGE}}))
@example(Wrapped(with_queue(concurrency=HUGE, queue_arguments={"a": HUGE})))
@example(Wrapped(with_queue(queue_arguments={"\udc80": 1})))
@example(Wrapped(with_queue(queue_arguments={"a": "\udc80"})))
@example(Wrapped(with_queue(queue_arguments=itself(dict))))
@example(Wrapped(with_queue(exchange_arguments={"a": itself(list)})))
@example(Wrapped(with_queue(queue_arguments=nested(3000, dict))))
@example(Wrapped(with_queue(queue_arguments={"a\n": object()})))
@example(Wrapped({HUGE: 1}))
@example(Wrapped({hostile("__repr__", "__str__"): 1}))
@example(Wrapped({"lease": type("", (), {})()}))
@example(Wrapped({"task_modules": [hostile("__eq__"), "a"]}))
@example(Wrapped({"redact": ["a{99999999999999999999}"]}))
@example(Wrapped({"redact": ["(" * 5000 + ")" * 5000]}))
def test_any_value_gives_settings_or_documented_problems(raw: Wrapped) -> None:
    result, problems = conf.read(raw.value)
    assert_told(problems)
    assert (result is None) == any(problem.level == "error" for problem in problems)


@pytest.mark.parametrize("make", makers.values(), ids=makers)
def test_no_object_makes_the_reading_fail_wherever_it_stands(make: Callable[[], Any]) -> None:
    for name in [*GOOD, *keys_of(conf.QueueSettings), "url", "port", "username", "password", "secure", "completed"]:
        for value in (make(), [make()], {"a": make()}):
            for raw in ({name: value}, with_queue(**{name: value}), {"default_broker": {name: value}}):
                assert_told(conf.problems(raw))
            assert_told(conf.problems({"retention": {name: value}}))
    assert_told(conf.problems({"queues": [make()]}))


@examples(200)
@given(mutated(GOOD).map(Wrapped))
def test_almost_good_settings_work_or_the_checks_say_what_is_wrong(raw: Wrapped) -> None:
    problems = conf.problems(raw.value)
    assert_told(problems)
    with override_settings(CARROT=raw.value):
        for message in checks.check_project():
            assert isinstance(message, CheckMessage)
            assert message.id in DOCUMENTED
        errors = [problem.id for problem in problems if problem.level == "error"]
        if errors:
            with pytest.raises(CarrotConfigException) as caught:
                conf.get_settings()
            assert all(id_ in str(caught.value) for id_ in errors)
            return
        settings = conf.get_settings()
        # What is asked of them first, by the publisher and by the monitor.
        for queue in map(conf.get_queue, settings.queues):
            assert queue.host.url.startswith(("amqp", "database"))
            encode_table([], {**queue.queue_arguments, **queue.exchange_arguments})
        Message(task="a.b", kwargs={"token": 1}, queue="default", routing_key="default").call_text()


def test_a_module_whose_error_has_no_text_is_told_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "zz_no_text.py").write_text("from tests.fuzz.strategies import Mischief\nraise Mischief\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with override_settings(CARROT={"default_broker": "database://", "task_modules": ["zz_no_text"]}):
        [message] = [message for message in checks.check_project() if message.id == "carrot.E033"]
    assert "Mischief" in message.msg


@given(st.text() | texts)
def test_any_name_of_a_queue_is_found_or_unknown(name: str) -> None:
    with override_settings(CARROT=GOOD):
        if not name or name in ("default", "mail"):
            assert conf.get_queue(name).name == (name or "default")
        else:
            with pytest.raises(UnknownQueue) as caught:
                conf.get_queue(name)
            assert str(caught.value).isprintable()


# -- passwords --------------------------------------------------------------------------------------------------------


@st.composite
def urls_with_a_secret(draw: DrawFn) -> str:
    """A URL with a password, more or less right."""
    around = st.text(r"""a1@:/?#%[]",'()\{}*+=&<> """ + "\n", max_size=4)
    scheme = draw(st.sampled_from(["amqp", "amqps", "AMQP", "http", "database", "amqp+ssl"]))
    rest = draw(
        st.sampled_from(["h", "h:5672/x", "h:x", "h,,h", "[::1", "", "h/a/b", "h?heartbeat=0", "h/?cafile=/x", "ü"])
    )
    return f"{scheme}://u{draw(around)}:{draw(around)}{SECRET}{draw(around)}@{rest}"


def holders(url: str) -> list[Any]:
    """Settings with the URL in a right or a wrong place."""
    return [
        url,
        [url],
        {url: 1},
        {"default_broker": url},
        {"default_broker": [url]},
        {"default_broker": url.encode()},
        *({"default_broker": {key: url}} for key in ("url", "host", "port", "secure", url)),
        {"default_broker": {url.encode(): 1}},
        {"default_broker": {(url,): 1}},
        {"default_broker": {"url": url, "host": url}},
        {"queues": url},
        {"queues": [url]},
        {"queues": {url: url}},
        *(with_queue(**{key: url}) for key in keys_of(conf.QueueSettings)),
        *(with_queue(**{key: [url]}) for key in keys_of(conf.QueueSettings)),
        with_queue(**{url: url}),
        with_queue(name=url, durable=False, consumer_class="zz_shop.no", queue_arguments={"x-expires": 1}),
        {"queues": [{"name": url}, {"name": url}, {"name": url.upper()}]},
        with_queue(queue_arguments={url: object()}),
        with_queue(queue_arguments={url: {url: [url, object()]}}),
        *({key: url} for key in keys_of(conf.CarrotSettings)),
        *({key: [url]} for key in keys_of(conf.CarrotSettings)),
        {"retention": {url: 1}},
        {"retention": {"completed": url}},
    ]


@examples(15)
@given(urls_with_a_secret())
@example(f"amqp://u:(?P<{SECRET}@h")
@example(f"amqp://u:(?P={SECRET})@h")
def test_no_message_holds_the_password_of_a_url_wherever_the_url_stands(url: str) -> None:
    for raw in holders(url):
        with override_settings(CARROT=raw):
            told = [f"{problem.message} {problem.hint}" for problem in conf.problems(raw)]
            told += [f"{message.msg} {message.hint}" for message in checks.check_project()]
            try:
                conf.get_queue("no such")
            except CarrotConfigException as error:
                told.append(str(error))
            found = [text for text in told if SECRET in text]
            assert not found, raw
