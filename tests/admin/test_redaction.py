"""Masks."""

from __future__ import annotations

import time
from typing import Any

import pytest

from carrot.admin.redaction import MASK, Redaction, Shown, url_passwords_masked
from carrot.models import Origin


def test_values_are_masked_by_the_names_of_their_keys_at_any_depth() -> None:
    value = {"a": [{"token": [1, 2]}, "x"], "API_key": None, "keep": {"me": 1.5}}

    assert Redaction().value(value) == {"a": [{"token": MASK}, "x"], "API_key": MASK, "keep": {"me": 1.5}}


def test_positional_arguments_are_masked_by_the_names_of_their_parameters() -> None:
    shown = Redaction().positional("tests.admin.samples.log_in", Origin.CODE, ["anna", "pw", {"secret": 1}])

    assert shown.values == ["anna", MASK, {"secret": MASK}]
    assert not shown.hidden


def test_a_task_says_itself_what_is_secret() -> None:
    pay = ("tests.admin.samples.pay", Origin.CODE)
    redaction = Redaction()

    assert redaction.positional(*pay, ["4711", 3, "a"]).values == [MASK, 3, MASK]
    nested = {"x": [{"CARD": 1, "PIN": 2, "discard": 3}]}
    assert redaction.positional(*pay, ["4711", nested]).values == [
        MASK,
        {"x": [{"CARD": MASK, "PIN": MASK, "discard": 3}]},
    ]
    assert redaction.keyword(*pay, {"card": "4711", "note": "hello", "amount": {"pin": 1}}).values == {
        "card": MASK,
        "note": "hello",
        "amount": {"pin": MASK},
    }
    greet = ("tests.admin.samples.greet", Origin.CODE)
    assert redaction.keyword(*greet, {"card": "the ace"}).values == {"card": "the ace"}


def test_what_a_task_says_counts_though_the_project_masks_nothing(settings: Any) -> None:
    settings.CARROT = {"default_broker": "database://", "redact": []}

    shown = Redaction().keyword("tests.admin.samples.pay", Origin.CODE, {"card": "4711", "password": "x"})
    assert shown.values == {"card": MASK, "password": "x"}
    assert Redaction().hides_positional("tests.admin.samples.pay", Origin.CODE)
    assert not Redaction().hides_positional("tests.admin.samples.log_in", Origin.CODE)


def test_the_name_behind_the_asterisk_counts_for_all_the_rest() -> None:
    shown = Redaction().positional("tests.admin.samples.collect", Origin.CODE, ["a", {"b": 1}])

    assert shown.values == [MASK, MASK]
    assert Redaction().hides_positional("tests.admin.samples.collect", Origin.CODE)


def test_keyword_arguments_of_a_function_that_is_gone_are_hidden() -> None:
    """It may have said that they are secret, and nobody can ask it any more."""
    shown = Redaction().keyword("tests.admin.samples.gone", Origin.CODE, {"colour": "blue"})

    assert (shown.values, shown.hidden) == ({"colour": MASK}, True)
    assert not Redaction().keyword("tests.admin.samples.gone", Origin.CODE, {}).hidden


@pytest.mark.parametrize(
    ("task", "origin"),
    [("no.such.module.f", Origin.CODE), ("tests.admin.samples.gone", Origin.CODE), ("", Origin.CODE)]
    + [("tests.admin.samples.greet", origin) for origin in (Origin.ADMIN, Origin.MESSAGE)],
)
def test_positional_arguments_without_known_names_are_hidden(task: str, origin: str) -> None:
    shown = Redaction().positional(task, origin, [1, "b"])

    assert (shown.values, shown.hidden) == ([MASK, MASK], True)
    assert Redaction().positional(task, origin, []).hidden is False


def test_a_row_of_foreign_origin_imports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def importing(path: str) -> tuple[str, ...]:
        raise AssertionError(path)

    monkeypatch.setattr("carrot.admin.redaction.function_at", importing)
    monkeypatch.setattr("carrot.registry.task_options", importing)

    assert Redaction().parameters("antigravity.fly", Origin.MESSAGE) is None


def test_nothing_is_masked_by_name_where_the_project_wants_it_so(settings: Any) -> None:
    settings.CARROT = {"default_broker": "database://", "redact": []}
    log_in = ("tests.admin.samples.log_in", Origin.CODE)

    assert Redaction().positional(*log_in, ["a", {"password": 1}]).values == ["a", {"password": 1}]
    assert Redaction().keyword(*log_in, {"password": "x"}).values == {"password": "x"}


def test_a_function_that_is_gone_may_have_masked_what_the_project_does_not(settings: Any) -> None:
    settings.CARROT = {"default_broker": "database://", "redact": []}
    gone = ("no.such.f", Origin.CODE)
    redaction = Redaction()

    assert redaction.positional(*gone, ["4111", 3]) == Shown(values=[MASK, MASK], hidden=True)
    assert redaction.keyword(*gone, {"card": "4111"}) == Shown(values={"card": MASK}, hidden=True)
    assert redaction.hides_positional(*gone)
    assert redaction.hides_keyword(*gone)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("amqp://guest:guest@host:5672/%2f", f"amqp://guest:{MASK}@host:5672/%2f"),
        ("postgres://app:p/w#1@host/db failed", f"postgres://app:{MASK}@host/db failed"),
        ("redis://:pw@host", f"redis://:{MASK}@host"),
        ("http://host:8080/people/me@example.com", "http://host:8080/people/me@example.com"),
        ("http://host/a:b@c", "http://host/a:b@c"),
        ("me@example.com: hello", "me@example.com: hello"),
        ("a://u:p@h b://u:q@h", f"a://u:{MASK}@h b://u:{MASK}@h"),
    ],
)
def test_passwords_in_urls_are_masked(text: str, masked: str) -> None:
    assert url_passwords_masked(text) == masked


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("cannot reach amqp://shop:hunter2", f"cannot reach amqp://shop:{MASK}"),
        ("amqp://shop:p/w#1", f"amqp://shop:{MASK}"),
        ("amqp://shop:12345x", f"amqp://shop:{MASK}"),
        ("amqp://shop:123456", f"amqp://shop:{MASK}"),
        ("amqp://shop:hunt\n… [7 bytes cut] …\nand", f"amqp://shop:{MASK}\n… [7 bytes cut] …\nand"),
        ("amqp://shop:hunt …\nand", f"amqp://shop:{MASK} …\nand"),
        ("amqp://shop:hunt… and", f"amqp://shop:{MASK} and"),
        ("a://u:p@h b://u:q", f"a://u:{MASK}@h b://u:{MASK}"),
        ("a://u:p@h,b://u:q", f"a://u:{MASK}@h,b://u:{MASK}"),
        ("http://host:8080", "http://host:8080"),
        ("http://host:8080/a/b", "http://host:8080/a/b"),
        ("get('http://host:8080').", "get('http://host:8080')."),
        ("amqp://one:5672,two:5673/site", "amqp://one:5672,two:5673/site"),
        ("http://[::1]:8000/", "http://[::1]:8000/"),
        ("amqp://shop:", "amqp://shop:"),
        ("see http://host:port/ or amqp://guest", "see http://host:port/ or amqp://guest"),
    ],
)
def test_a_password_that_was_cut_off_is_masked(text: str, masked: str) -> None:
    assert url_passwords_masked(text) == masked


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("smtp://anna@corp.example:hunter2@mail.example", f"smtp://anna@corp.example:{MASK}@mail.example"),
        ("smtp://anna@corp.example:hunter2", f"smtp://anna@corp.example:{MASK}"),
        ("amqp://anna:hunt@er2@host/a@b", f"amqp://anna:{MASK}@host/a@b"),
        ("amqp://anna:a://b@host", f"amqp://anna:{MASK}@host"),
        ("redis://anna@host:6379/0", "redis://anna@host:6379/0"),
        ("redis://anna@host:6379", "redis://anna@host:6379"),
    ],
)
def test_an_at_sign_that_was_not_encoded_hides_nothing(text: str, masked: str) -> None:
    assert url_passwords_masked(text) == masked


@pytest.mark.parametrize(
    "part", ["://", "://a", "://a:", "://a:b", "://a@", "://a:1", ":", "@", "://a:b@", "x:@/", "a@:"]
)
@pytest.mark.parametrize("end", ["", "@", " ", '"', "/"])
def test_long_texts_are_masked_in_no_time(part: str, end: str) -> None:
    text = "://" + part * (100_000 // len(part)) + end

    start = time.process_time()
    url_passwords_masked(text)

    assert time.process_time() - start < 1
