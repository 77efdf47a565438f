"""A password in the settings, wherever it stands and whatever is wrong around it, comes out nowhere."""

from __future__ import annotations

import logging
import pprint
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.management import call_command
from django.core.management.base import CommandError
from django.views.debug import ExceptionReporter

from carrot import conf, publisher
from carrot.brokers import make_broker
from carrot.brokers.amqp.connection import parameters
from carrot.conf import get_queue, get_settings
from carrot.exceptions import BrokerError, CarrotConfigException
from carrot.services import publish_message
from carrot.virtual_host import VirtualHost
from tests.rows import ADD
from tests.security.secret import ENCODED, PASSWORD, leaks
from tests.servers.process import free_ports, wait_until

URL = f"amqp://anna:{ENCODED}@host:5672/site"
PARTS = {"host": "host", "username": "anna", "password": PASSWORD, "name": "site"}

#: Settings that are right.
RIGHT: dict[str, Any] = {
    "a url": {"default_broker": URL},
    "a url in a dict": {"default_broker": {"url": URL}},
    "parts": {"default_broker": PARTS},
    "a virtual host": {"default_broker": VirtualHost(URL)},
    "several hosts": {"default_broker": f"amqp://anna:{ENCODED}@one,two:5673,[::1]:5674/site"},
    "tls": {"default_broker": f"amqps://anna:{ENCODED}@host/site?heartbeat=5"},
    "queues": {"queues": [{"name": "default", "host": URL}, {"name": "mail", "host": PARTS}]},
}


def _urls() -> Iterator[tuple[str, Any]]:
    """Values for a broker that are wrong, each in a way of its own."""
    raw = PASSWORD
    yield "not encoded", f"amqp://anna:{raw}@host:5672/site"
    yield "half encoded", f"amqp://anna:{raw.replace('@', '%40')}@host:5672/site"
    for wrong in ("http", "amqqp", "redis", ""):
        yield f"scheme {wrong!r}", f"{wrong}://anna:{ENCODED}@host/site"
    yield "no scheme", f"anna:{ENCODED}@host/site"
    yield "no host", f"amqp://anna:{ENCODED}@/site"
    yield "only a user", f"amqp://anna:{ENCODED}"
    yield "a port of letters", f"amqp://anna:{ENCODED}@host:port/site"
    yield "the password as port", f"amqp://host:{ENCODED}/site"
    yield "the password as name", f"amqp://host/{raw}"
    yield "the password as option", f"amqp://anna@host/site?password={ENCODED}"
    yield "the password as file", f"amqp://anna@host/site?cafile={ENCODED}"
    yield "an option twice", f"amqp://anna:{ENCODED}@host/site?heartbeat=5&heartbeat=5"
    yield "a percent", f"amqp://anna:{ENCODED}%zz@host/site"
    yield "no utf-8", f"amqp://anna:{ENCODED}%ff@host/site"
    yield "a control character", f"amqp://anna:{ENCODED}%0a@host/site"
    yield "too long", f"amqp://anna:{ENCODED}{'x' * 300}@host/{'y' * 300}"
    yield "a slash too many", f"amqp://anna:{ENCODED}@host/site/more"
    yield "a space", f"amqp://anna:{ENCODED}@ho st/site"
    yield "two urls", f"amqp://anna:{ENCODED}@host/site,amqp://anna:{ENCODED}@host/site"
    yield "the embedded broker", f"database://anna:{ENCODED}@host/site"
    yield "bytes", URL.encode()
    yield "a list", [URL]
    yield "a tuple", ("amqp", "anna", raw)
    yield "a set", {URL}
    yield "url and parts", {**PARTS, "url": URL}
    yield "a key misspelled", {"host": "host", "pasword": raw}
    yield "the password as a key", {raw: 1}
    yield "a url as host", {**PARTS, "host": URL}
    yield "a password in the host", {**PARTS, "host": f"anna:{raw}@host"}
    yield "a password of bytes", {**PARTS, "password": raw.encode()}
    yield "a password in a list", {**PARTS, "password": [raw]}
    yield "a password with NUL", {**PARTS, "password": f"{raw}\0"}
    yield "a password with half a character", {**PARTS, "password": f"{raw}\udc80"}
    yield "a wrong port beside it", {**PARTS, "port": raw}
    yield "a wrong flag beside it", {**PARTS, "secure": raw}
    yield "a dict in a dict", {"url": PARTS}


WRONG = dict(_urls())


@pytest.fixture(params=["default_broker", "host of a queue"])
def place(request: pytest.FixtureRequest, settings: Any) -> Any:
    """Where in the settings a broker may stand."""

    def put(value: Any) -> None:
        if request.param == "default_broker":
            settings.CARROT = {"default_broker": value}
        else:
            settings.CARROT = {"default_broker": "database://", "queues": [{"name": "default", "host": value}]}

    return put


def carrots_own(error: BaseException | None) -> None:
    """Leaves of the tracebacks what begins in carrot; the variables of this module are no secret kept."""
    while error is not None:
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        error.__traceback__ = trace
        error = error.__cause__ or error.__context__


def reported(error: BaseException) -> str:
    """All that may be told of an error: its text, the traceback, and Django's own report, with variables."""
    carrots_own(error)
    lines = "".join(traceback.format_exception(error))
    report = ExceptionReporter(None, type(error), error, error.__traceback__)
    report.filter.get_safe_settings = dict  # Django's own dump of the settings, which masks by the names of keys
    return f"{error} {error!r} {error.args} {lines} {report.get_traceback_html()} {report.get_traceback_text()}"


@pytest.mark.parametrize("carrot", RIGHT.values(), ids=RIGHT)
def test_settings_that_are_right_do_not_write_it(carrot: dict[str, Any], settings: Any, caplog: Any) -> None:
    settings.CARROT = carrot
    found = get_settings()
    hosts = [found.default_broker, *(queue.host for queue in found.queues.values())]
    assert any(host.password == PASSWORD for host in hosts)
    brokers = [make_broker(host) for host in hosts]
    shown: list[Any] = [found, found.queues, asdict(found), *hosts, *brokers, run_checks(), conf.problems(carrot)]
    shown += [parameters(host, "publisher") for host in hosts if not host.is_database]
    shown += [vars(broker) for broker in brokers]
    for each in shown:
        logging.getLogger("shop").warning("%s %r", each, each)
        text = f"{each} {each!r} {each!s:>5} {pprint.pformat(each)} {vars(each) if hasattr(each, '__dict__') else ''}"
        assert not leaks(text)
    for host in hosts:
        assert not leaks([host.address, host.name, host.hosts, host.options, host.username, dir(host)])
        with pytest.raises(TypeError) as caught:
            __import__("pickle").dumps(host)
        assert not leaks(caught.value)
    assert not leaks(caplog.text)


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_settings_that_are_wrong_do_not_write_it(wrong: Any, place: Any, capsys: Any, db: None) -> None:
    place(wrong)
    with pytest.raises(CarrotConfigException) as caught:
        get_settings()
    assert not leaks(reported(caught.value))
    found = run_checks()
    assert [problem for problem in found if str(problem.id).startswith("carrot.E")]
    assert not leaks([found, *(f"{problem} {problem!r} {vars(problem)}" for problem in found)])
    for command in (["check"], ["carrot"], ["carrot_send", ADD, "1", "2"], ["carrot_daemon", "start"]):
        with pytest.raises((CommandError, CarrotConfigException)) as refused:
            call_command(*command)
        assert not leaks(reported(refused.value)), command
    with pytest.raises(CarrotConfigException) as unpublished:
        publish_message(ADD, 1, 2)
    assert not leaks(reported(unpublished.value))
    assert not leaks(capsys.readouterr())


@pytest.mark.parametrize("several", [False, True])
def test_a_broker_that_is_away_does_not_bring_it_into_logs_and_errors(
    several: bool, settings: Any, caplog: Any, db: None
) -> None:
    one, two = free_ports(2)
    hosts = f"127.0.0.1:{one},127.0.0.1:{two}" if several else f"127.0.0.1:{one}"
    settings.CARROT = {"default_broker": f"amqp://anna:{ENCODED}@{hosts}/site"}
    caplog.set_level(logging.DEBUG)
    for name in ("pika", "carrot"):
        caplog.set_level(logging.DEBUG, name)
    broker = publisher.broker_of(get_queue("default").host)
    try:
        assert not broker.can_ring()
        assert wait_until(lambda: "No connection to amqp://anna:***@127.0.0.1" in caplog.text, 10.0), caplog.text
        with pytest.raises(BrokerError) as caught:
            broker.depth(get_queue("default"), 0.1)
        assert not leaks(reported(caught.value))
        assert not leaks([broker.describe(), broker, vars(broker), pprint.pformat(vars(publisher))])
    finally:
        publisher.close(1.0)
    assert not leaks(caplog.text)


def test_certificates_that_cannot_be_read_do_not_bring_it_into_the_log(settings: Any, caplog: Any) -> None:
    settings.CARROT = {"default_broker": f"amqps://anna:{ENCODED}@127.0.0.1:1/site?cafile=/no/such/file"}
    broker = publisher.broker_of(get_settings().default_broker)
    try:
        assert not broker.can_ring()
        assert wait_until(lambda: "No such file" in broker.describe(), 10.0), broker.describe()
        with pytest.raises(BrokerError) as caught:
            broker.depth(get_queue("default"), 0.1)
        assert "No such file" in str(caught.value)
        assert not leaks(reported(caught.value) + broker.describe() + caplog.text)
    finally:
        publisher.close(1.0)
