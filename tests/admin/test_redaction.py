"""Masks."""

from __future__ import annotations

from typing import Any

import pytest

from carrot.admin.redaction import MASK, Redaction, url_passwords_masked
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

    assert Redaction().positional("no.such.f", Origin.CODE, ["a", {"password": 1}]).values == ["a", {"password": 1}]


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
        ('{"password": "a, b", "x": 1', f'{{"password": "{MASK}", "x": 1'),
        ('{"x": {"token": [1, 2', f'{{"x": {{"token": "{MASK}"'),
        ('{"secret": "cut off', f'{{"secret": "{MASK}"'),
        ("hello", "hello"),
    ],
)
def test_secrets_are_masked_in_json_that_was_cut(text: str, masked: str) -> None:
    assert Redaction().text(text) == masked
