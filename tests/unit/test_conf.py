"""The settings: what they mean, and what is said about wrong ones."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from carrot import conf
from carrot.exceptions import CarrotConfigException, UnknownQueue
from carrot.setting_keys import keys_of
from carrot.virtual_host import VirtualHost

ROOT = Path(__file__).resolve().parents[2]
SECRET = "s3cr3t"
LOCAL = VirtualHost("amqp://guest:guest@localhost:5672/")


@pytest.fixture
def without_carrot() -> Iterator[None]:
    """A project that has no setting CARROT."""
    with override_settings(CARROT={}):  # of a change Django tells, of a deletion it does not
        del settings.CARROT
        yield


def errors(raw: object) -> list[tuple[str, str]]:
    return [(each.id, each.message) for each in conf.problems(raw) if each.level == "error"]


def warnings(raw: object) -> list[tuple[str, str]]:
    return [(each.id, each.message) for each in conf.problems(raw) if each.level == "warning"]


def queue_errors(**keys: Any) -> list[tuple[str, str]]:
    return errors({"queues": [{"name": "default", **keys}]})


@pytest.mark.usefixtures("without_carrot")
def test_no_carrot_at_all_is_one_queue_on_the_local_rabbitmq() -> None:
    assert conf.raw_settings() == {}
    assert conf.get_settings() == conf.CarrotSettings()
    assert conf.get_settings().default_broker == LOCAL
    assert list(conf.get_settings().queues) == ["default"]
    assert conf.get_queue(None) == conf.QueueSettings(name="default", host=LOCAL)


def test_every_default_is_what_the_design_says() -> None:
    read, problems = conf.read({})
    assert problems == []
    assert read == conf.CarrotSettings(
        default_broker=LOCAL,
        queues={
            "default": conf.QueueSettings(
                name="default",
                host=LOCAL,
                concurrency=1,
                consumable=True,
                durable=True,
                queue_arguments={},
                exchange_arguments={},
                consumer_class="carrot.consumer.Consumer",
            )
        },
        task_modules=(),
        monitor_authentication=(),
        lease=30.0,
        heartbeat=5.0,
        grace=25.0,
        confirm_timeout=5.0,
        reconcile_interval=5.0,
        deploy_patience=120.0,
        publisher="thread",
        retention=conf.Retention(completed=3 * 86400.0, failed=None, cancelled=3 * 86400.0),
        redact=("API", "AUTH", "TOKEN", "KEY", "SECRET", "PASS", "SIGNATURE"),
        max_priority=10,
        max_arguments_size=1_048_576,
        max_log_size=65_536,
        max_output_size=65_536,
    )


def test_every_key_is_read() -> None:
    raw = {
        "default_broker": {"host": "rabbit", "name": "site", "password": SECRET},
        "queues": [
            {
                "name": "default",
                "host": "database://",
                "concurrency": 4,
                "consumable": False,
                "durable": True,
                "queue_arguments": {"x-queue-type": "quorum", "x-max-priority": 20},
                "exchange_arguments": {"alternate-exchange": "lost"},
                "consumer_class": "shop.consumers.Mine",
            },
            {"name": "grün ☃"},
        ],
        "task_modules": ["shop.jobs", "shop"],
        "monitor_authentication": ("shop.decorators.one", "shop.decorators.two"),
        "lease": 60,
        "heartbeat": 2.5,
        "grace": 0,
        "confirm_timeout": 3,
        "reconcile_interval": 0.5,
        "deploy_patience": 0,
        "publisher": "relay",
        "retention": {"completed": None, "failed": 60},
        "redact": ["^pin$"],
        "max_priority": 5,
        "max_arguments_size": 2048,
        "max_log_size": 4096,
        "max_output_size": 8192,
    }
    broker = VirtualHost(host="rabbit", name="site", password=SECRET)
    read, problems = conf.read(raw)
    assert problems == []
    assert read == conf.CarrotSettings(
        default_broker=broker,
        queues={
            "default": conf.QueueSettings(
                name="default",
                host=VirtualHost("database://"),
                concurrency=4,
                consumable=False,
                queue_arguments={"x-queue-type": "quorum", "x-max-priority": 20},
                exchange_arguments={"alternate-exchange": "lost"},
                consumer_class="shop.consumers.Mine",
            ),
            "grün ☃": conf.QueueSettings(name="grün ☃", host=broker),
        },
        task_modules=("shop.jobs", "shop"),
        monitor_authentication=("shop.decorators.one", "shop.decorators.two"),
        lease=60.0,
        heartbeat=2.5,
        grace=0.0,
        confirm_timeout=3.0,
        reconcile_interval=0.5,
        deploy_patience=0.0,
        publisher="relay",
        retention=conf.Retention(completed=None, failed=60.0),
        redact=("^pin$",),
        max_priority=5,
        max_arguments_size=2048,
        max_log_size=4096,
        max_output_size=8192,
    )
    assert [type(read.lease), type(read.grace), type(read.retention.failed)] == [float, float, float]
    assert list(read.queues) == ["default", "grün ☃"]


@pytest.mark.parametrize(
    "raw",
    [None, [], "amqp://u:s3cr3t@h", 5, True, [("lease", 30)], {"default_broker"}],
)
def test_a_carrot_that_is_no_dict_is_an_error(raw: object) -> None:
    assert [each[0] for each in errors(raw)] == ["carrot.E001"]
    assert SECRET not in str(conf.problems(raw))


@pytest.mark.parametrize(
    ("raw", "place", "suggestion"),
    [
        ({"queue": []}, "CARROT has", "'queues'"),
        ({"Lease": 30}, "CARROT has", "'lease'"),
        ({"default_brocker": "x"}, "CARROT has", "'default_broker'"),
        ({"queues": [{"name": "default", "concurency": 2}]}, 'CARROT["queues"][0] has', "'concurrency'"),
        ({"retention": {"complete": 2}}, 'CARROT["retention"] has', "'completed'"),
    ],
)
def test_an_unknown_key_is_an_error_that_suggests_the_right_one(
    raw: dict[str, object], place: str, suggestion: str
) -> None:
    [(id_, message)] = errors(raw)
    assert id_ == "carrot.E002"
    assert message.startswith(place)
    assert f"Did you mean {suggestion}?" in message


def test_an_unknown_key_that_is_like_no_other_lists_the_allowed_ones() -> None:
    [problem] = conf.problems({5: "x"})
    assert "unknown key 5" in problem.message
    assert "Did you mean" not in problem.message
    assert all(name in problem.hint for name in keys_of(conf.CarrotSettings))


NO_NUMBERS = [True, False, "30", None, [30], float("nan"), float("inf"), -1, 10**400]


@pytest.mark.parametrize("value", NO_NUMBERS)
@pytest.mark.parametrize(
    ("key", "id_"),
    [
        ("lease", "carrot.E016"),
        ("heartbeat", "carrot.E017"),
        ("grace", "carrot.E019"),
        ("confirm_timeout", "carrot.E025"),
        ("reconcile_interval", "carrot.E026"),
        ("deploy_patience", "carrot.E027"),
    ],
)
def test_seconds_are_numbers_within_bounds(key: str, id_: str, value: object) -> None:
    [(found, message)] = errors({key: value})
    assert found == id_
    assert message.startswith(f'CARROT["{key}"] is ')
    assert " It must be a number from " in message


@pytest.mark.parametrize("value", [*NO_NUMBERS, 1.5, 2.0, 0])
@pytest.mark.parametrize(
    ("key", "id_"),
    [
        ("max_priority", "carrot.E023"),
        ("max_arguments_size", "carrot.E024"),
        ("max_log_size", "carrot.E024"),
        ("max_output_size", "carrot.E024"),
    ],
)
def test_sizes_and_priorities_are_whole_numbers_within_bounds(key: str, id_: str, value: object) -> None:
    assert [each[0] for each in errors({key: value})] == [id_]


@pytest.mark.parametrize("value", [*NO_NUMBERS, 1.5, 0, 1025])
def test_concurrency_is_a_whole_number_of_threads(value: object) -> None:
    [(id_, message)] = queue_errors(concurrency=value)
    assert id_ == "carrot.E008"
    assert message.startswith('CARROT["queues"][0]["concurrency"] is ')
    assert message.endswith("It must be a whole number from 1 to 1024.")


@pytest.mark.parametrize("value", [0, 256])
def test_zero_seconds_of_lease_and_256_priorities_are_refused(value: int) -> None:
    assert [each[0] for each in errors({"max_priority": value})] == ["carrot.E023"]


@pytest.mark.parametrize("key", ["lease", "heartbeat"])
def test_a_lease_and_a_heartbeat_of_zero_are_refused(key: str) -> None:
    assert len(errors({key: 0})) == 1


@pytest.mark.parametrize(
    ("raw", "wrong"),
    [
        ({"lease": 15, "heartbeat": 5}, False),
        ({"lease": 14.9, "heartbeat": 5}, True),
        ({"lease": 14.9}, True),
        ({"lease": 5, "heartbeat": 5}, True),
        ({"heartbeat": 10}, False),
        ({"heartbeat": 11}, True),
        ({"lease": 1, "heartbeat": 0.1}, False),
    ],
)
def test_the_lease_is_at_least_three_heartbeats(raw: dict[str, float], wrong: bool) -> None:
    assert [each[0] for each in errors(raw)] == (["carrot.E018"] if wrong else [])


@pytest.mark.parametrize("value", ["yes", "False", 1, 0, None])
@pytest.mark.parametrize(("key", "id_"), [("consumable", "carrot.E009"), ("durable", "carrot.E010")])
def test_flags_are_true_or_false_and_nothing_else(key: str, id_: str, value: object) -> None:
    assert [each[0] for each in queue_errors(**{key: value})] == [id_]


@pytest.mark.parametrize("value", [None, "default", {"name": "default"}, [], (), 5])
def test_queues_are_a_list_that_is_not_empty(value: object) -> None:
    assert [each[0] for each in errors({"queues": value})] == ["carrot.E004"]


@pytest.mark.parametrize("value", [None, "default", 5, ["default"]])
def test_a_queue_is_a_dict(value: object) -> None:
    [(id_, message)] = errors({"queues": [{"name": "default"}, value]})
    assert id_ == "carrot.E004"
    assert message.startswith('CARROT["queues"][1] is ')


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("", "empty"),
        ("  ", "empty"),
        (" a", "space"),
        ("a\n", "space"),
        ("a" * 256, "256 bytes"),
        ("é" * 128, "256 bytes"),
        ("amq.mine", "RabbitMQ"),
        ("a\x00b", "control"),
        ("a\nb", "control"),
        ("a\x7fb", "control"),
        ("a\u2028b", "control"),
        ("a\ud800b", "control"),
        (None, "None"),
        (5, "5"),
        (b"a", "bytes"),
    ],
)
def test_a_queue_name_is_one_that_rabbitmq_takes(name: object, complaint: str) -> None:
    [(id_, message)] = errors({"queues": [{"name": "default"}, {"name": name}]})
    assert id_ == "carrot.E005"
    assert complaint in message
    message.encode()  # a message can be printed, whatever the name holds


@pytest.mark.parametrize("name", ["a", "a" * 255, "é" * 127, "amqp", "☃", "a b", "Default.x-y_z"])
def test_other_names_are_taken(name: str) -> None:
    assert errors({"queues": [{"name": name}]}) == []


def test_a_queue_without_a_name_is_an_error() -> None:
    assert [each[0] for each in errors({"queues": [{"concurrency": 2}]})] == ["carrot.E005"]


def test_two_queues_of_one_name_are_an_error_even_if_other_things_are_wrong() -> None:
    raw = {"queues": [{"name": "default"}, {"name": "a", "concurrency": 0}, {"name": "a"}]}
    assert [each[0] for each in errors(raw)] == ["carrot.E008", "carrot.E006"]


def test_names_that_differ_by_case_are_a_warning() -> None:
    raw = {"queues": [{"name": "default"}, {"name": "Straße"}, {"name": "STRASSE"}]}
    assert errors(raw) == []
    assert [each[0] for each in warnings(raw)] == ["carrot.W001"]


def test_no_default_queue_is_a_warning() -> None:
    assert [each[0] for each in warnings({"queues": [{"name": "mail"}]})] == ["carrot.W002"]


@pytest.mark.parametrize(
    "value",
    [
        None,
        5,
        "localhost",
        f"http://u:{SECRET}@h",
        f"amqp://u:{SECRET}@a@h/",
        f"amqp://u:{SECRET}@h1,",
        f"amqp://u:{SECRET}@h:99999",
        {"url": f"u:{SECRET}"},
        {"hostname": SECRET},
        {"host": f"amqp://u:{SECRET}@h"},
        [f"amqp://u:{SECRET}@h"],
    ],
)
def test_a_wrong_broker_is_an_error_at_its_place_without_the_password(value: Any) -> None:
    [(id_, message)] = errors({"default_broker": value})
    assert id_ == "carrot.E003"
    assert message.startswith('CARROT["default_broker"] is wrong: ')
    [(id_, other)] = queue_errors(host=value)
    assert id_ == "carrot.E007"
    assert other.startswith('CARROT["queues"][0]["host"] is wrong: ')
    assert SECRET not in message + other + str(conf.problems({"default_broker": value}))


@pytest.mark.parametrize("key", sorted(set(keys_of(conf.CarrotSettings)) - {"redact"}))  # any text is a pattern
def test_a_url_at_the_wrong_key_shows_no_password(key: str) -> None:
    for value in (f"amqp://u:{SECRET}@h@", [f"amqp://u:{SECRET}@h@"], {f"amqp://u:{SECRET}@h@": 1}):
        assert errors({key: value}) != []
        assert SECRET not in str(conf.problems({key: value}))


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (None, "None"),
        ([], "list"),
        ("x", "x"),
        ({1: 2}, "key 1"),
        ({"": 2}, 'key ""'),
        ({"a": object()}, '["a"] is an object'),
        ({"a": {"b": [1, {2: 3}]}}, '["a"]["b"][1] has the key 2'),
        ({"a": float("nan")}, "nan"),
        ({"a": 2**63}, "64 bits"),
        ({"a": (1, 2)}, "tuple"),
        ({"x-max-priority": 0}, '["x-max-priority"] is 0'),
        ({"x-max-priority": 256}, '["x-max-priority"] is 256'),
        ({"x-max-priority": True}, '["x-max-priority"] is True'),
        ({"x-max-priority": "5"}, '["x-max-priority"] is "5"'),
    ],
)
def test_arguments_are_a_dict_that_amqp_can_carry(value: object, complaint: str) -> None:
    [(id_, message)] = queue_errors(queue_arguments=value)
    assert id_ == "carrot.E011"
    assert message.startswith('CARROT["queues"][0]["queue_arguments"]')
    assert complaint in message
    assert {each[0] for each in queue_errors(exchange_arguments=value)} == {"carrot.E012"}


@pytest.mark.parametrize(
    ("queue", "id_"),
    [
        ({"queue_arguments": {"x-max-priority": 9}}, "carrot.W003"),
        ({"durable": False}, "carrot.W004"),
        ({"queue_arguments": {"x-message-ttl": 1000}}, "carrot.W009"),
        ({"queue_arguments": {"x-max-length": 1000}}, "carrot.W009"),
    ],
)
def test_what_works_against_carrot_is_a_warning(queue: dict[str, object], id_: str) -> None:
    raw = {"queues": [{"name": "default", **queue}]}
    assert errors(raw) == []
    assert [each[0] for each in warnings(raw)] == [id_]


@pytest.mark.parametrize(("kind", "wrong"), [("classic", False), ("quorum", False), ("stream", True), (1, True)])
def test_a_queue_is_of_a_type_that_takes_messages_back(kind: object, wrong: bool) -> None:
    found = queue_errors(queue_arguments={"x-queue-type": kind})
    assert [each[0] for each in found] == (["carrot.E028"] if wrong else [])


def test_a_queue_with_more_priorities_than_are_used_is_no_problem() -> None:
    assert conf.problems({"queues": [{"name": "default", "queue_arguments": {"x-max-priority": 10}}]}) == []


@pytest.mark.parametrize("value", [None, 5, "", "Consumer", "shop consumers.Mine", "shop..Mine", ".shop.Mine", object])
def test_a_consumer_class_is_a_dotted_path(value: object) -> None:
    assert [each[0] for each in queue_errors(consumer_class=value)] == ["carrot.E013"]


@pytest.mark.parametrize(("key", "id_"), [("task_modules", "carrot.E014"), ("monitor_authentication", "carrot.E015")])
@pytest.mark.parametrize(
    "value", [None, "shop.tasks", {"shop.tasks"}, [5], ["shop tasks"], [""], ["a.b", "a.b"], ["a."]]
)
def test_dotted_paths_come_in_a_list(key: str, id_: str, value: object) -> None:
    assert [each[0] for each in errors({key: value})] == [id_]


def test_a_string_where_a_list_belongs_is_shown_in_brackets() -> None:
    [problem] = conf.problems({"task_modules": "shop.tasks"})
    assert '["shop.tasks"]' in problem.hint


def test_a_decorator_has_a_module() -> None:
    assert [each[0] for each in errors({"monitor_authentication": ["staff_only"]})] == ["carrot.E015"]


@pytest.mark.parametrize("value", [None, "PASS", [5], ["("], [""], [".*"], ["PASS", "PASS"]])
def test_redact_is_a_list_of_patterns_that_match_some_names(value: object) -> None:
    assert [each[0] for each in errors({"redact": value})] == ["carrot.E022"]


@pytest.mark.parametrize("value", [None, True, "threads", "Thread", ["thread"]])
def test_the_publisher_is_thread_or_relay(value: object) -> None:
    assert [each[0] for each in errors({"publisher": value})] == ["carrot.E020"]


@pytest.mark.parametrize("value", [None, 5, {"completed": 0}, {"failed": -1}, {"cancelled": True}, {"failed": "1 day"}])
def test_retention_is_seconds_or_none(value: object) -> None:
    assert [each[0] for each in errors({"retention": value})] == ["carrot.E021"]


def test_every_error_is_reported_at_once() -> None:
    raw = {
        "default_broker": "localhost",
        "lease": -1,
        "queues": [{"name": "default", "concurrency": 0, "durable": 1}, {"nam": "x"}],
        "typo": 1,
    }
    with override_settings(CARROT=raw), pytest.raises(CarrotConfigException) as caught:
        conf.get_settings()
    for id_ in ("E002", "E003", "E005", "E008", "E010", "E016"):
        assert f"(carrot.{id_})" in str(caught.value)
    assert caught.value.__context__ is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(sorted(keys_of(conf.QueueSettings))), inner)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(keys_of(conf.CarrotSettings))), JSON) | JSON)
def test_whatever_is_written_gives_settings_or_errors_never_a_crash(raw: object) -> None:
    read, problems = conf.read(raw)
    assert (read is None) == any(each.level == "error" for each in problems)
    for each in problems:
        assert each.hint
        assert each.message.endswith((".", "?"))


def test_the_settings_are_read_once_and_again_after_a_change() -> None:
    with override_settings(CARROT={"lease": 40}):
        first = conf.get_settings()
        assert conf.get_settings() is first
        with override_settings(CARROT={"lease": 50}):
            assert conf.get_settings().lease == 50.0
        assert conf.get_settings().lease == first.lease == 40.0


def test_a_change_of_another_setting_keeps_what_was_read() -> None:
    first = conf.get_settings()
    with override_settings(USE_TZ=False):
        assert conf.get_settings() is first


def test_wrong_settings_are_not_remembered() -> None:
    with override_settings(CARROT=None), pytest.raises(CarrotConfigException, match=r"carrot\.E001"):
        conf.get_settings()
    assert conf.get_settings().queues


def test_settings_do_not_change_and_do_not_follow_the_project_s_dict() -> None:
    raw = {"queues": [{"name": "default", "queue_arguments": {"a": [1]}}], "task_modules": ["shop"]}
    read = conf.read(raw)[0]
    assert read is not None
    raw["queues"][0]["queue_arguments"]["a"].append(2)  # type: ignore[index]
    assert read.queues["default"].queue_arguments == {"a": [1]}
    with pytest.raises(dataclasses.FrozenInstanceError):
        read.lease = 1.0  # type: ignore[misc]
    with pytest.raises(TypeError):
        read.queues["other"] = read.queues["default"]  # type: ignore[index]


def test_settings_are_hashable() -> None:
    assert len({conf.read({})[0], conf.read({"lease": 30})[0]}) == 1
    assert len({conf.QueueSettings(name="a", host=LOCAL), conf.QueueSettings(name="a", host=LOCAL)}) == 1


def test_settings_as_a_dict_show_no_password() -> None:
    read = conf.read({"default_broker": f"amqp://u:{SECRET}@h"})[0]
    assert read is not None
    assert SECRET not in repr(read) + str(dataclasses.asdict(read))


@pytest.mark.parametrize("name", [None, "", "default"])
def test_a_queue_without_a_name_given_is_the_default_one(name: str | None) -> None:
    with override_settings(CARROT={"queues": [{"name": "default", "concurrency": 3}]}):
        assert conf.get_queue(name).concurrency == 3


def test_an_unknown_queue_is_refused_with_the_valid_names() -> None:
    with override_settings(CARROT={"queues": [{"name": "default"}, {"name": "mail"}]}):
        with pytest.raises(UnknownQueue) as caught:
            conf.get_queue("mial")
        assert 'no queue "mial"' in str(caught.value)
        assert '"default", "mail"' in str(caught.value)
        assert "Did you mean 'mail'?" in str(caught.value)
        with pytest.raises(CarrotConfigException):
            conf.get_host_from_name("Default")


@pytest.mark.parametrize("name", [["default"], 3, b"default"])
def test_what_is_no_name_of_a_queue_is_refused_like_an_unknown_one(name: Any) -> None:
    with override_settings(CARROT={}), pytest.raises(UnknownQueue, match=r'The queue is .*, not its name.* "default"'):
        conf.get_queue(name)


@pytest.mark.parametrize(
    ("name", "url"),
    [
        (None, "amqp://guest:guest@main:5672/"),
        ("", "amqp://guest:guest@main:5672/"),
        ("default", "amqp://guest:guest@queue:5672/"),
        ("mail", "amqp://guest:guest@mail:5672/"),
        ("other", "amqp://guest:guest@main:5672/"),
    ],
)
def test_the_host_of_a_queue_is_its_own_or_the_default_broker(name: str | None, url: str) -> None:
    queues = [
        {"name": "default", "host": "amqp://queue"},
        {"name": "mail", "host": {"host": "mail"}},
        {"name": "other"},
    ]
    with override_settings(CARROT={"default_broker": "amqp://main", "queues": queues}):
        assert conf.get_host_from_name(name) == VirtualHost(url)


def test_every_key_has_an_id_a_check_and_a_help_that_is_a_sentence() -> None:
    for section in (conf.CarrotSettings, conf.QueueSettings, conf.Retention):
        for name, key in keys_of(section).items():
            assert key.id.startswith("carrot.E"), name
            assert key.check.allowed, name
            assert key.help.endswith("."), name


def test_the_reference_page_is_current() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "settings-reference"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (ROOT / "docs" / "settings.md").read_text("utf-8").count("<!-- table: ") == 3
