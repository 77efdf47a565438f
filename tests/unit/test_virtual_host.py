"""Virtual hosts: what they understand, and that they keep the password to themselves."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import logging
import pickle
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carrot.exceptions import CarrotConfigException
from carrot.virtual_host import VirtualHost

SECRET = "s3cr3t"


def test_the_signature_is_that_of_1_x() -> None:
    assert str(inspect.signature(VirtualHost)) == (
        "(url: 'str | None' = None, host: 'str' = 'localhost', name: 'str' = '%2f', port: 'int' = 5672, "
        "username: 'str' = 'guest', password: 'str' = 'guest', secure: 'bool' = False) -> 'None'"
    )


def test_without_arguments_it_is_the_default_virtual_host_on_this_machine() -> None:
    host = VirtualHost()
    assert host == VirtualHost("amqp://guest:guest@localhost:5672/")
    assert (host.scheme, host.hosts, host.name) == ("amqp", (("localhost", 5672),), "/")
    assert host.url == "amqp://guest:guest@localhost:5672/%2f"


def test_positional_arguments_have_the_order_of_1_x() -> None:
    host = VirtualHost(None, "rabbit", "site", 5673, "anna", SECRET, True)
    assert host.url == f"amqps://anna:{SECRET}@rabbit:5673/site"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("amqp://u:p@h", "/"),
        ("amqp://u:p@h/", "/"),
        ("amqp://u:p@h//", "/"),
        ("amqp://u:p@h/%2f", "/"),
        ("amqp://u:p@h/%2F", "/"),
        ("amqp://u:p@h/site", "site"),
        ("amqp://u:p@h/a%2Fb", "a/b"),
        ("amqp://u:p@h/%2Fa", "/a"),
        ("amqp://u:p@h/gr%C3%BCn", "grün"),
        ("amqp://u:p@h/a%20b", "a b"),
    ],
)
def test_the_name_is_decoded_and_an_empty_one_is_the_default(url: str, name: str) -> None:
    host = VirtualHost(url)
    assert host.name == name
    assert VirtualHost(host.url) == host


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("amqp://u:p@H1", (("h1", 5672),)),
        ("amqps://u:p@h1", (("h1", 5671),)),
        ("AMQP://u:p@h1:99", (("h1", 99),)),
        ("amqp://u:p@h1:5672,h2:5673,h3/site", (("h1", 5672), ("h2", 5673), ("h3", 5672))),
        ("amqp://u:p@[::1]:99,[2001:db8::1]/site", (("::1", 99), ("2001:db8::1", 5672))),
        ("amqp://u:p@10.0.0.1,my_rabbit.example.", (("10.0.0.1", 5672), ("my_rabbit.example.", 5672))),
        ("  amqp://u:p@h1 \n", (("h1", 5672),)),
    ],
)
def test_hosts_and_ports(url: str, hosts: tuple[tuple[str, int], ...]) -> None:
    host = VirtualHost(url)
    assert host.hosts == hosts
    assert (host.host, host.port) == hosts[0]
    assert VirtualHost(host.url) == host


def test_the_embedded_broker_has_no_hosts_and_no_user() -> None:
    host = VirtualHost("database://")
    assert host.is_database
    assert (host.scheme, host.hosts, host.host, host.port, host.username, host.password) == (
        "database",
        (),
        "",
        0,
        "",
        "",
    )
    assert host.url == host.address == str(host) == "database://"
    assert not VirtualHost().is_database


def test_credentials_that_a_url_leaves_out() -> None:
    assert VirtualHost("amqp://h").username == VirtualHost("amqp://h").password == "guest"
    assert VirtualHost("amqp://anna@h").password == ""


def test_options_of_the_url_are_kept_for_the_wire() -> None:
    host = VirtualHost("amqps://u:p@h/site?heartbeat=30&cafile=/etc/a%20b.pem")
    assert host.options == {"heartbeat": "30", "cafile": "/etc/a b.pem"}
    assert host.secure
    assert VirtualHost(host.url) == host
    assert host != VirtualHost("amqps://u:p@h/site")


ANY_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=60)


@given(username=ANY_TEXT, password=ANY_TEXT, name=ANY_TEXT)
def test_any_user_password_and_name_survive_the_way_through_the_url(username: str, password: str, name: str) -> None:
    host = VirtualHost(username=username, password=password, name=quote(name, safe=""))
    assert (host.username, host.password, host.name) == (username, password, name or "/")
    again = VirtualHost(host.url)
    if username or password:
        assert again == host
    assert (again.name, again.hosts) == (host.name, host.hosts)


@given(st.text(max_size=40), st.sampled_from(["amqp://", "amqps://", "database://", "http://", ""]))
def test_any_text_is_a_virtual_host_or_a_configuration_error(text: str, scheme: str) -> None:
    try:
        host = VirtualHost(scheme + text)
    except CarrotConfigException:
        return
    assert VirtualHost(host.url) == host


@pytest.mark.parametrize("character", ["@", ":", "/", "#", "%", "?", "[", "ü", "☃"])
def test_special_characters_of_a_password_are_percent_encoded_in_the_url(character: str) -> None:
    password = f"a{character}b"
    assert VirtualHost(f"amqp://u:{quote(password, safe='')}@h/site").password == password
    assert VirtualHost.parse({"host": "h", "password": password}).password == password


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        (f"amqp://u:{SECRET}@more@h/", "percent-encoded"),
        (f"amqp://u:a/{SECRET}@h/", "percent-encoded"),
        (f"amqp://u:{SECRET}/a@h/", "percent-encoded"),
        (f"amqp://u:{SECRET}#a@h/", "percent-encoded"),
        (f"amqp://u:a?{SECRET}@h/", "percent-encoded"),
        (f"amqp://u:{SECRET}%@h/", "two hexadecimal digits"),
        (f"amqp://u:{SECRET}%zz@h/", "two hexadecimal digits"),
        (f"amqp://u:{SECRET}%ff@h/", "UTF-8"),
        (f"amqp://u:{SECRET}%00@h/", "control character"),
        (f"amqp://u:{SECRET}", "port"),
        (f"amqp://u:{SECRET}@", "no host"),
        (f"amqp://u:{SECRET}@/site", "no host"),
        (f"amqp://u:{SECRET}@:5672/", "empty"),
        (f"amqp://u:{SECRET}@h1,h2,/", "host 3 of 3"),
        (f"amqp://u:{SECRET}@h1,,h2/", "host 2 of 3"),
        (f"amqp://u:{SECRET}@h1,h2:x,h3/", "host 2 of 3"),
        (f"amqp://u:{SECRET}@h:0/", "1 to 65535"),
        (f"amqp://u:{SECRET}@h:65536/", "1 to 65535"),
        (f"amqp://u:{SECRET}@h:-1/", "1 to 65535"),
        (f"amqp://u:{SECRET}@h:5672x/", "1 to 65535"),
        (f"amqp://u:{SECRET}@h:/", "1 to 65535"),
        (f"amqp://u:{SECRET}@h:٥/", "1 to 65535"),
        (f"amqp://u:{SECRET}@h 1/", "not a host name"),
        (f"amqp://u:{SECRET}@::1/", "brackets"),
        (f"amqp://u:{SECRET}@[::z]/", "not a host name"),
        (f"amqp://u:{SECRET}@h/a/b", "%2F"),
        (f"http://u:{SECRET}@h/", "amqps://"),
        (f"u:{SECRET}@h:5672/", "scheme"),
        ("localhost", "scheme"),
        ("", "scheme"),
        ("amqp://", "no host"),
        ("database://default", "needs nothing else"),
        (f"amqp://u:{SECRET}@h/?heartbeet=3", "Did you mean 'heartbeat'"),
        (f"amqp://u:{SECRET}@h/?heartbeat=-3", "from 1 to 3600"),
        (f"amqp://u:{SECRET}@h/?heartbeat=0", "from 1 to 3600"),
        (f"amqp://u:{SECRET}@h/?heartbeat=2.5", "from 1 to 3600"),
        (f"amqp://u:{SECRET}@h/?heartbeat=3601", "from 1 to 3600"),
        (f"amqp://u:{SECRET}@h/?heartbeat", "from 1 to 3600"),
        (f"amqps://u:{SECRET}@h/?cafile=", "without a value"),
        (f"amqps://u:{SECRET}@h/?keyfile=/etc/key.pem", "Add the certfile"),
        (f"amqp://u:{SECRET}@h/?heartbeat=1&heartbeat=2", "twice"),
        (f"amqp://u:{SECRET}@h/?cafile=/etc/ca.pem", "amqps://"),
        (f"amqp://{'u' * 256}:{SECRET}@h/", "255 bytes"),
    ],
)
def test_a_wrong_url_is_refused_with_the_cure_and_without_the_password(url: str, complaint: str) -> None:
    with pytest.raises(CarrotConfigException) as caught:
        VirtualHost(url)
    assert complaint in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("value", "same"),
    [
        ({"url": f"amqp://anna:{SECRET}@h:99/site"}, f"amqp://anna:{SECRET}@h:99/site"),
        (
            {"host": "h", "name": "site", "port": 99, "username": "anna", "password": SECRET, "secure": False},
            f"amqp://anna:{SECRET}@h:99/site",
        ),
        ({}, "amqp://guest:guest@localhost:5672/"),
        ({"host": "h"}, "amqp://guest:guest@h:5672/"),
        ({"host": "::1"}, "amqp://guest:guest@[::1]:5672/"),
        ({"host": "h", "secure": True}, "amqps://guest:guest@h:5671/"),
        ({"host": "h", "secure": True, "port": 5672}, "amqps://guest:guest@h:5672/"),
        ({"host": "h1,h2:99"}, "amqp://guest:guest@h1:5672,h2:99/"),
        ({"name": ""}, "amqp://guest:guest@localhost:5672/"),
        ({"url": "database://"}, "database://"),
    ],
)
def test_parse_understands_the_dicts_of_1_x(value: dict[str, Any], same: str) -> None:
    assert VirtualHost.parse(value) == VirtualHost.parse(same) == VirtualHost(same)


def test_parse_returns_a_virtual_host_as_it_is() -> None:
    host = VirtualHost()
    assert VirtualHost.parse(host) is host


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (None, "NoneType"),
        (5672, "int"),
        (["amqp://h"], "list"),
        ({"hots": "h"}, "Did you mean 'host'"),
        ({1: "h"}, "unknown key 1"),
        ({f"amqp://u:{SECRET}@h": 1}, "unknown key (not shown)"),
        ({"url": None}, "None"),
        ({"url": 5}, "int"),
        ({"url": f"amqp://u:{SECRET}@h", "password": SECRET}, "one or the other"),
        ({"host": None}, "host is of type NoneType"),
        ({"password": 5}, "password is of type int"),
        ({"port": "5672x"}, "1 to 65535"),
        ({"port": True}, "not valid: True"),
        ({"port": 0}, "not valid: 0"),
        ({"port": 5672.0}, "not valid: 5672.0"),
        ({"secure": "yes"}, "True or False"),
        ({"host": f"amqp://u:{SECRET}@h"}, "not a host"),
        ({"host": f"u:{SECRET}@h"}, "not"),
        ({"host": ""}, "empty"),
        ({"name": "a%b"}, "hexadecimal"),
    ],
)
def test_parse_refuses_what_is_no_broker(value: Any, complaint: str) -> None:
    with pytest.raises(CarrotConfigException) as caught:
        VirtualHost.parse(value)
    assert complaint in str(caught.value)
    assert SECRET not in str(caught.value)


@dataclasses.dataclass
class Holder:
    host: VirtualHost


@pytest.mark.parametrize(
    "host",
    [
        VirtualHost(f"amqp://anna:{SECRET}@h1:5672,h2:5673/site?heartbeat=3"),
        VirtualHost(username="anna", password=SECRET, secure=True),
        VirtualHost(username="", password=SECRET),
    ],
)
def test_the_password_is_only_in_url_and_password(host: VirtualHost) -> None:
    assert SECRET in host.url
    assert host.password == SECRET
    written = [str(host), repr(host), f"{host}", f"{host:>80}", host.address]
    written += [logging.makeLogRecord({"msg": "%s %r", "args": (host, host)}).getMessage()]
    written += [str(dataclasses.asdict(Holder(host))), repr(Holder(host)), str([host]), str({host: host})]
    written += [repr(getattr(host, name)) for name in dir(host) if name not in ("password", "url")]
    with pytest.raises(TypeError) as caught:
        pickle.dumps(host)
    assert SECRET not in "".join([*written, str(caught.value)])
    assert not hasattr(host, "__dict__")


def test_str_is_masked_and_the_address_has_no_user() -> None:
    host = VirtualHost(f"amqp://anna:{SECRET}@h1:5672,h2:5673/?heartbeat=3")
    assert str(host) == "amqp://anna:***@h1:5672,h2:5673/%2f?heartbeat=3"
    assert repr(host) == "<VirtualHost amqp://anna:***@h1:5672,h2:5673/%2f?heartbeat=3>"
    assert host.address == "amqp://h1:5672,h2:5673/%2f"


def test_a_virtual_host_does_not_change() -> None:
    host = VirtualHost()
    with pytest.raises(AttributeError, match="does not change"):
        host.password = SECRET  # type: ignore[misc]
    with pytest.raises(AttributeError, match="does not change"):
        del host._parts
    host.options["heartbeat"] = "1"  # type: ignore[index]
    assert host == VirtualHost()


def test_virtual_hosts_are_equal_by_content() -> None:
    assert VirtualHost("amqp://guest:guest@LOCALHOST/%2F") == VirtualHost()
    assert len({VirtualHost("amqp://guest:guest@localhost//"), VirtualHost()}) == 1
    assert VirtualHost(password="other") != VirtualHost()
    assert VirtualHost() != "amqp://guest:guest@localhost:5672/%2f"


def test_a_copy_is_the_object_itself() -> None:
    host = VirtualHost()
    assert copy.copy(host) is host
    assert copy.deepcopy({"host": host})["host"] is host
