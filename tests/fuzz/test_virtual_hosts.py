"""Addresses of brokers: any text and any dict is one or is refused, and what is shown of it tells no password."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from hypothesis import example, given
from hypothesis import strategies as st

from carrot.brokers.amqp.connection import parameters
from carrot.exceptions import CarrotConfigException
from carrot.models import MessageLog
from carrot.virtual_host import DICT_KEYS, VirtualHost
from tests.fuzz.strategies import HUGE, Wrapped, examples, hostile, texts, values

SECRET = "s3cr3t"
ROOM = MessageLog._meta.get_field("broker").max_length

signs = "amqp amqps database http :// : @ / // ? # & = , [ ] % * h rabbit ::1 [::1] fe80::1%a u:p@ guest heartbeat"
codes = "%2F %2f %00 %FF %EF%BF%BD \ufffd %C3%A9 é 5672 0 65536 ٥ -1 heartbeat=5 cafile keyfile=/k"
pieces = st.sampled_from([*signs.split(), *codes.split(), "\udc80", " ", "\n", "\0", "a" * 256])
urls = st.lists(pieces | texts, max_size=12).map("".join)
better_urls = st.builds(
    "{}://{}{}{}{}".format,
    st.sampled_from(["amqp", "amqps", "AMQP"]),
    st.sampled_from(["", "u:p@", "@", ":@", "%40:%3A@"])
    | st.lists(pieces, max_size=3).map(lambda some: "".join(some) + "@"),
    st.lists(st.sampled_from(["h", "h:1", "[::1]:2", "1.2.3.4", "RABBIT", "a" * 60]), min_size=1, max_size=6).map(
        ",".join
    ),
    st.sampled_from(["", "/", "//", "/%2f", "/x", "/é"])
    | texts.map(lambda text: "/" + quote(text, errors="replace", safe="")),
    st.lists(pieces, max_size=4).map("".join)
    | st.sampled_from(["", "?heartbeat=5", "?cafile=/x&certfile=a+b%26&keyfile=é"]),
)
numbers = st.integers() | st.sampled_from([5672, "5672", HUGE, True, 1.5, float("nan")])
dicts = st.fixed_dictionaries(
    {},
    optional={
        "host": st.lists(pieces, max_size=3).map("".join)
        | st.sampled_from(["h", "h,h2:99", "::1", "::1%a,b", "::1%a/b"]),
        "name": texts | urls | st.just("%2f"),
        "port": numbers,
        "username": texts | urls,
        "password": texts | urls,
        "secure": st.booleans(),
    },
)


def assert_whole(host: VirtualHost) -> None:
    """It says where it is, in every way it is asked, and comes back from its URL."""
    again = VirtualHost.parse(host.url)
    assert again.url == host.url
    assert again == host
    shown = f"{host}{host!r}{host.address}"
    assert shown.isprintable()
    assert len(host.address) <= ROOM
    if not host.secure and not host.is_database:
        assert [(each.host, each.port) for each in parameters(host, "fuzz")]


def parsed(value: object) -> VirtualHost | None:
    """None where it is refused: by the one error there is, in words that can be shown."""
    try:
        return VirtualHost.parse(value)  # type: ignore[arg-type]
    except CarrotConfigException as error:
        told = str(error)
    assert told.isprintable()
    return None


@examples(300)
@given(urls | better_urls)
@example("amqp://\udc80:x@h")
@example("amqp://u:\ufffd@h")
@example("amqp://u:p@[fe80::1%a@b]/")
@example("amqp://u:p@" + ",".join(f"rabbit-{number}.mq.eu-west-1.example.com" for number in range(9)) + "/site")
@example("amqp://u:p@h/" + quote("é" * 127))
def test_any_text_is_a_virtual_host_or_refused(url: str) -> None:
    host = parsed(url)
    if host is not None:
        assert_whole(host)


@examples(300)
@given(dicts)
@example({"username": "\udc80"})
@example({"username": "a\nb"})
@example({"password": "\ufffd"})
@example({"password": "x" * 2000})
@example({"host": "::1%a,b"})
@example({"host": "::1%a/b"})
@example({"port": HUGE})
@example({"username": "", "password": ""})
def test_any_dict_is_a_virtual_host_or_refused(value: dict[str, Any]) -> None:
    host = parsed(value)
    if host is not None:
        assert_whole(host)


@given((values | st.dictionaries(st.sampled_from(DICT_KEYS) | texts, values)).map(Wrapped))
@example(Wrapped({"url": "amqp://h", "port": hostile("__eq__", "__ne__")}))
@example(Wrapped({hostile("__repr__", "__str__"): 1}))
@example(Wrapped({HUGE: 1}))
def test_any_value_is_a_virtual_host_or_refused(value: Wrapped) -> None:
    host = parsed(value.value)
    if host is not None:
        assert_whole(host)


@given(dicts, texts, texts)
@example({}, "", "a")
def test_what_is_shown_is_the_same_whatever_the_password(value: dict[str, Any], one: str, other: str) -> None:
    hosts = [parsed({**value, "username": "anna", "password": password}) for password in (one, other)]
    if None not in hosts:
        assert len({(str(host), repr(host), host.address) for host in hosts if host is not None}) == 1


@examples(300)
@given(
    st.sampled_from(["amqp://u", "amqps://", "amqp://u:p"]) | urls,
    st.just("") | urls,
    st.sampled_from(["", "h,,i", "h?x=1", "h?heartbeat=0", "h?keyfile=/k", "h/?cafile=/c", "h:x"]) | urls,
)
@example("amqp://u:", "/", "@h")
def test_no_error_shows_what_stands_before_the_last_at(before: str, within: str, after: str) -> None:
    url = f"{before}:{SECRET}{within}@{after}"
    try:
        host = VirtualHost(url)
    except CarrotConfigException as error:
        told = str(error)
    else:
        told = f"{host}{host!r}{host.address}"
    if SECRET in told:  # by accident no password, but a user or a name
        assert SECRET in (host.username + host.name) or SECRET in str(host.options)
