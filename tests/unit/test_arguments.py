"""The JSON of arguments and results."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import io
import json
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.http import QueryDict
from django.utils.functional import lazy, lazystr
from hypothesis import given, settings
from hypothesis import strategies as st

from carrot.arguments import MARK, MAX_DEPTH, MIN_LIMIT, clean_text, decode, encode_arguments, encode_output
from carrot.exceptions import InvalidArguments

LIMIT = 10_000


def refused(*args: Any, **kwargs: Any) -> str:
    with pytest.raises(InvalidArguments) as caught:
        encode_arguments(args, kwargs, LIMIT)
    return str(caught.value)


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


def test_arguments_become_the_json_of_a_list_and_of_an_object() -> None:
    assert encode_arguments((1, "a", None), {"b": [True, 2.5]}, LIMIT) == ('[1, "a", null]', '{"b": [true, 2.5]}')
    assert encode_arguments((), {}, LIMIT) == ("[]", "{}")


def test_text_that_is_not_ascii_stays_searchable() -> None:
    assert encode_arguments(("Grüße 日本 🥕",), {}, LIMIT)[0] == '["Grüße 日本 🥕"]'


@pytest.mark.parametrize(
    ("value", "received"),
    [
        (datetime.datetime(2024, 2, 29, 12, 30, 1, 123456, tzinfo=datetime.timezone.utc), "2024-02-29T12:30:01.123Z"),
        (datetime.date(2024, 2, 29), "2024-02-29"),
        (datetime.timedelta(days=1, seconds=2), "P1DT00H00M02S"),
        (decimal.Decimal("1.10"), "1.10"),
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (lazystr("later"), "later"),
        ((1, (2, 3)), [1, [2, 3]]),
        ({1: "a", None: "b", 2.5: "c", False: "d"}, {"1": "a", "null": "b", "2.5": "c", "false": "d"}),
        (2**70, 2**70),
        ("<script>{{ x }} %s", "<script>{{ x }} %s"),
        ("\\u0000", "\\u0000"),
    ],
)
def test_the_function_receives_what_the_json_decodes_to(value: Any, received: Any) -> None:
    args, kwargs = encode_arguments((value,), {"x": value}, LIMIT)
    assert decode(args) == [received]
    assert decode(kwargs) == {"x": received}


class Raises:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __repr__(self) -> str:
        raise self.error


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int


def numbers() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("value", "cure"),
    [
        (Group(pk=3), "pk"),
        (Group.objects.all(), "list of pks"),
        (Group.objects, "list of pks"),
        (float("nan"), "None or a text"),
        (float("-inf"), "None or a text"),
        (b"bytes", "base64"),
        (bytearray(b"x"), "base64"),
        ({1, 2}, "list"),
        (numbers(), "list"),
        (range(3), "list"),
        ({}.keys(), "list"),
        (io.StringIO(), "path"),
        (lambda: 1, "lambda"),
        (numbers, "dotted path"),
        (Group, "name"),
        (Colour.RED, ".value"),
        (Path("/tmp"), "str(path)"),
        (Point(1), "asdict"),
        (ValueError("x"), "str(error)"),
        (datetime.time(tzinfo=datetime.timezone.utc), "isoformat"),
        pytest.param(10**5000, "as text", id="number of 5000 digits"),
        ({10**5000: 1}, "shorter text"),
        ({Raises(ValueError()): 1}, "str(key)"),
        (object(), "text, numbers"),
        (1j, "text, numbers"),
        ("a\0b", "PostgreSQL"),
        ("\ud800", "surrogate"),
        ({"a\0": 1}, "key that contains a NUL"),
        ({"\ud800": 1}, "key that contains a lone surrogate"),
        ({(1, 2): 1}, "str(key)"),
        ({lazystr("key"): 1}, "str(key)"),
        ({float("nan"): 1}, "text"),
        (lazystr("a\0b"), "PostgreSQL"),
        (nested(MAX_DEPTH + 1), "flatter"),
        (nested(4000), "flatter"),
    ],
)
def test_what_is_not_json_is_refused_with_its_position_and_the_cure(value: Any, cure: str) -> None:
    for text in (refused(1, value), refused(1, [{"owner": value}]), refused(later=value)):
        assert cure in text
    assert refused(1, value).startswith("Argument 2 ")
    assert refused(later=value).startswith("Argument `later` ")


@pytest.fixture
def digits() -> Iterator[Callable[[int], None]]:
    """Sets Python's limit for the digits of numbers."""
    if not hasattr(sys, "set_int_max_str_digits"):
        pytest.skip("This Python has no limit.")
    before = sys.get_int_max_str_digits()
    yield sys.set_int_max_str_digits
    sys.set_int_max_str_digits(before)


@pytest.mark.parametrize("limit", [0, 640, 4300, 10_000])
def test_a_number_that_a_worker_may_not_read_is_refused_whatever_the_limit_is_here(
    digits: Callable[[int], None], limit: int
) -> None:
    digits(limit)
    for value in (10**4300, -(10**5000), [{"a": 10**4300}]):
        assert "pass it as text" in refused(1, value)
        assert "pass it as text" in refused(later=value)
    encode_arguments((10**600, "9" * 5000, [1] * 1000), {}, LIMIT)


def test_the_longest_number_that_a_worker_reads_is_taken(digits: Callable[[int], None]) -> None:
    digits(0)
    args, _kwargs = encode_arguments((10**4300 - 1, 1 - 10**4300), {}, LIMIT)
    digits(4300)
    assert decode(args) == [10**4300 - 1, 1 - 10**4300]


def test_a_result_that_is_a_number_too_long_to_be_read_is_kept_as_text(digits: Callable[[int], None]) -> None:
    digits(0)
    text = encode_output(10**5000, LIMIT)
    digits(4300)
    assert decode(text)[MARK] == "repr"


def test_an_open_file_is_refused_with_the_cure(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        assert "open it in the task" in refused(file)


def test_the_place_inside_an_argument_is_named() -> None:
    text = refused(1, rows=[0, 1, 2, {"owner": Group(pk=1)}])
    assert "Argument `rows` (`rows[3]['owner']`) is a model instance (auth.Group)" in text
    assert "Argument 2 (`[0]['x']`)" in refused(1, [{"x": object()}])


def test_positional_arguments_are_named_after_their_parameters_where_these_are_known() -> None:
    with pytest.raises(InvalidArguments, match=r"Argument 2 \(`rows\[0\]`\)"):
        encode_arguments((1, [object()]), {}, LIMIT, names=("owner", "rows"))
    with pytest.raises(InvalidArguments, match=r"Argument 2 \(`rows`\)"):
        encode_arguments((1, object()), {}, LIMIT, names=("owner", "rows"))


def test_arguments_may_be_nested_as_deep_as_is_allowed() -> None:
    assert decode(encode_arguments((nested(MAX_DEPTH),), {}, LIMIT)[0]) == [nested(MAX_DEPTH)]


def test_many_brackets_are_not_depth() -> None:
    rows = [{"ids": [number]} for number in range(200)]
    assert decode(encode_arguments((rows,), {}, LIMIT)[0]) == [rows]


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: dict[str, Any] = {"children": []}
    loop["children"].append(loop)
    assert "(`['children'][0]`) contains itself" in refused(loop)


def test_the_same_value_twice_does_not_contain_itself() -> None:
    shared = [1]
    assert "is of type set" in refused([shared, shared, {1}])


def test_too_large_arguments_are_measured_in_bytes_and_the_largest_is_named() -> None:
    text = refused(1, "é" * 6000, small="x")
    assert "12,0" in text
    assert f"{LIMIT:,} allowed" in text
    assert "argument 2" in text
    assert "max_arguments_size" in text


def test_arguments_of_exactly_the_limit_are_taken() -> None:
    args, kwargs = encode_arguments(("é" * 10,), {}, 26)
    assert len(args.encode()) + len(kwargs.encode()) == 26
    with pytest.raises(InvalidArguments):
        encode_arguments(("é" * 10,), {}, 25)


def test_a_lazy_string_that_fails_is_refused_not_raised() -> None:
    def fail() -> str:
        raise LookupError("no translation")

    assert "LookupError: no translation" in refused(lazy(fail, str)())


def test_names_of_keyword_arguments_are_storable_text() -> None:
    assert "contains a NUL" in refused(**{"a\0": 1})
    with pytest.raises(InvalidArguments, match="name of type int"):
        encode_arguments((), {1: 2}, LIMIT)  # type: ignore[dict-item]


def test_values_are_not_quoted_in_refusals_because_they_may_be_secrets() -> None:
    assert "hunter2" not in refused("hunter2\0") + refused(b"hunter2") + refused(password={"hunter2"})


def test_a_querydict_is_data() -> None:
    assert decode(encode_arguments((QueryDict("a=1"),), {}, LIMIT)[0])[0]["a"] in ("1", ["1"])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None)
@given(json_values)
def test_every_json_value_arrives_unchanged_or_is_refused_for_its_characters(value: Any) -> None:
    try:
        args, _ = encode_arguments((value,), {}, 1_000_000)
    except InvalidArguments as error:
        text = str(error)
    else:
        assert decode(args) == [value]
        return
    assert "NUL" in text or "surrogate" in text
    assert "\\u0000" in json.dumps(value) or "\\ud" in json.dumps(value)


class NoText:
    def __repr__(self) -> Any:
        return 5


class LiesAboutItsClass:
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise RuntimeError("no class")


def test_a_result_is_stored_as_its_json() -> None:
    assert encode_output(None, LIMIT) == "null"
    assert encode_output({"é": (1, 2)}, LIMIT) == '{"é": [1, 2]}'


@pytest.mark.parametrize(
    ("value", "type_name", "text"),
    [
        ({1}, "set", "{1}"),
        (float("nan"), "float", "nan"),
        ({"mean": float("nan")}, "dict", "{'mean': nan}"),
        ("a\0b", "str", "'a\\x00b'"),
        ("\ud800", "str", "'\\ud800'"),
        (Group(pk=3), "django.contrib.auth.models.Group", "<auth.Group: pk=3>"),
        (Group.objects.all(), "django.db.models.query.QuerySet", "<QuerySet of auth.Group>"),
        (Point(1), f"{__name__}.Point", f"{Point(1)!r}"),
        (Raises(ValueError("x")), f"{__name__}.Raises", f"<{__name__}.Raises: its repr() raised ValueError>"),
        (Raises(SystemExit()), f"{__name__}.Raises", f"<{__name__}.Raises: its repr() raised SystemExit>"),
        (Raises(GeneratorExit()), f"{__name__}.Raises", f"<{__name__}.Raises: its repr() raised GeneratorExit>"),
        (NoText(), f"{__name__}.NoText", f"<{__name__}.NoText: its repr() raised TypeError>"),
    ],
)
def test_a_result_that_is_not_json_is_marked_text(value: Any, type_name: str, text: str) -> None:
    stored = decode(encode_output(value, LIMIT))
    assert stored == {MARK: "repr", "type": type_name, "text": text}


def test_a_result_that_raises_when_looked_at_is_marked_text() -> None:
    stored = decode(encode_output([LiesAboutItsClass()], LIMIT))
    assert stored["type"] == "list"
    assert decode(encode_output(LiesAboutItsClass(), LIMIT))["type"] == f"{__name__}.LiesAboutItsClass"


def test_ctrl_c_passes_through_the_storing_of_a_result() -> None:
    with pytest.raises(KeyboardInterrupt):
        encode_output(Raises(KeyboardInterrupt()), LIMIT)


def test_a_result_that_looks_like_a_mark_cannot_be_confused_with_one() -> None:
    forged = {MARK: "repr", "type": "x", "text": "y"}
    assert decode(encode_output(forged, LIMIT)) == {MARK: "json", "value": forged}


@pytest.mark.parametrize("value", ["x" * 5000, "é" * 5000, "\x01" * 5000, '"' * 5000, "🥕" * 5000, {MARK: "x" * 5000}])
@pytest.mark.parametrize("limit", [0, 600, 2000])
def test_a_large_result_is_cut_to_the_limit_and_stays_json(value: Any, limit: int) -> None:
    output = encode_output(value, limit)
    stored = decode(output)
    assert stored[MARK] == "cut"
    assert stored["size"] >= 5000
    assert max(limit, MIN_LIMIT) // 2 < len(output.encode()) <= max(limit, MIN_LIMIT)


def test_a_large_repr_is_cut_to_the_limit() -> None:
    output = encode_output(set(range(5000)), 600)
    assert decode(output)[MARK] == "repr"
    assert "bytes cut" in decode(output)["text"]
    assert len(output.encode()) <= 600


def test_a_class_with_a_wild_name_does_not_break_the_limit() -> None:
    value = type("\x01\u202e🥕" * 1000, (), {})()
    assert len(encode_output(value, 0).encode()) <= MIN_LIMIT


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 5000, 200_000])
def test_a_deep_result_is_marked(levels: int) -> None:
    assert decode(encode_output(nested(levels), LIMIT))[MARK] == "repr"


def test_a_result_that_contains_itself_is_marked() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert decode(encode_output(loop, LIMIT)) == {MARK: "repr", "type": "list", "text": "[[...]]"}


def test_text_within_the_limit_is_unchanged() -> None:
    assert clean_text("Grüße\n", LIMIT) == "Grüße\n"


def test_characters_that_databases_refuse_become_visible() -> None:
    assert clean_text("a\0b\udcffc", LIMIT) == "a\\x00b\\udcffc"


@pytest.mark.parametrize("character", ["x", "é", "🥕", "\0", "\ud800"])
@pytest.mark.parametrize("limit", [0, 513, 1000, 1001, 1002, 1003])
def test_long_text_keeps_head_and_tail_within_the_limit(character: str, limit: int) -> None:
    text = clean_text("HEAD" + character * 3000 + "TAIL", limit)
    assert text.startswith("HEAD")
    assert text.endswith("TAIL")
    assert max(limit, MIN_LIMIT) - 20 <= len(text.encode()) <= max(limit, MIN_LIMIT)


def test_the_gap_says_how_much_was_cut() -> None:
    text = clean_text("x" * 10_000, 1000)
    assert f"… [{10_000 - text.count('x'):,} bytes cut] …" in text
