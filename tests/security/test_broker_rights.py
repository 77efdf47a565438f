"""A user of RabbitMQ who may not do all that carrot asks for: publishing code does not notice, the operator does."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest

from tests.brokers.probe import opened
from tests.brokers.test_amqp_faults import vhost_of
from tests.project import CHECKOUT, Project, ProjectFactory
from tests.security.accounts import Account, account_on
from tests.security.secret import PASSWORD, leaks, leaks_below
from tests.servers import RabbitMQ
from tests.service import Service

pytestmark = pytest.mark.acceptance

TASK = "tests.app.tasks.record_effect"
NONE = "^$"


@pytest.fixture
def account(rabbitmq: RabbitMQ, amqp_url: str) -> Iterator[Account]:
    """A user without any rights yet."""
    with account_on(rabbitmq, amqp_url.rpartition("/")[2]) as account:
        yield account


@pytest.fixture
def site(project: ProjectFactory, account: Account) -> Iterator[Project]:
    """A project that logs in as this user. At its end nothing that it wrote has the password."""
    site = project(default_broker=account.url())
    yield site
    found = leaks_below(site.directory)
    assert not found, found


def publish_quickly(site: Project, count: int, **options: str) -> None:
    """Publishes so many tasks in a web process, so to say: none of them may wait for the broker, or raise."""
    code = (
        "import time, uuid; from carrot.utilities import publish_message\n"
        "begun = time.monotonic()\n"
        f"for number in range({count}): publish_message({TASK!r}, uuid.uuid4().hex, **{options!r})\n"
        "took = time.monotonic() - begun\n"
        "assert took < 4.0, took\n"  # one that waited for a connection alone would take eight seconds
    )
    assert not leaks(site.python(code).stdout)


def pages(site: Project) -> str:
    """What the monitor shows of tasks and workers."""
    code = (
        "from django.contrib.auth.models import User; from django.test import Client\n"
        "from carrot.models import MessageLog, WorkerProcess\n"
        "client = Client(); client.force_login(User.objects.create_superuser(str(User.objects.count())))\n"
        "for name in ('queuedtask', 'messagelog', 'workerprocess'):\n"
        "    print(client.get(f'/admin/carrot/{name}/').content.decode())\n"
        "for name, model in (('messagelog', MessageLog), ('workerprocess', WorkerProcess)):\n"
        "    for row in model.objects.all()[:3]:\n"
        "        print(client.get(f'/admin/carrot/{name}/{row.pk}/change/').content.decode())\n"
    )
    shown = site.python(code).stdout
    assert not leaks(shown)
    return shown.replace("&#x27;", "'")


def wait_for_all(site: Project, count: int) -> None:
    """Waits until all have run, each once."""
    site.wait_until(f"SELECT count(*) = {count} FROM carrot_messagelog WHERE status = 'COMPLETED'", 60.0)
    runs = Counter(row["message_id"] for row in site.sql("SELECT message_id FROM app_effect"))
    assert set(runs.values()) <= {1}


def notes(site: Project) -> set[str]:
    return {row["note"] for row in site.sql("SELECT DISTINCT note FROM carrot_messagelog")}


def assert_calm(account: Account, service: Service, since: datetime | None = None) -> None:
    """No process knocks at the server's door again and again: a few times at first, then every few seconds."""
    knocks = [knock for knock in account.knocks() if since is None or knock >= since]
    # One to consume and one to publish in each process of the service; the processes that published have ended.
    connections = 2 * len(service.children()) + 2
    seconds = (knocks[-1] - knocks[0]).total_seconds()
    assert len(knocks) <= connections * (6 + seconds / 2.5), knocks
    by_second = Counter(knock.replace(microsecond=0) for knock in knocks)
    assert max(by_second.values()) <= 3 * connections, by_second


# -- the door ---------------------------------------------------------------------------------------------------------

#: What is wrong: how it is made so, how it is mended, what the log says.
DOORS = {
    "wrong password": "user or password was refused",
    "no access to the virtual host": "the user may not use this virtual host",
}


@pytest.mark.parametrize("wrong", DOORS)
def test_who_is_not_let_in_is_told_why_and_comes_in_as_soon_as_the_door_is_open(
    site: Project, account: Account, wrong: str
) -> None:
    if wrong == "wrong password":
        account.grant()
        account.change_password("another one")
    service = site.service("--processes", "2")
    service.wait_ready()
    publish_quickly(site, 20)
    site.wait_until(lambda: DOORS[wrong] in service.output(), message="the log says why")
    first = account.knocks()[0]
    site.wait_until(lambda: account.knocks()[-1] > first + timedelta(seconds=12), 60.0, "knocks for twelve seconds")
    assert_calm(account, service)
    said = [line for line in service.output().splitlines() if "No connection to" in line]
    assert said
    assert all(f"amqp://{account.name}:***@" in line for line in said), said
    assert len(said) <= 2 * (len(service.children()) + 1), said
    if wrong == "wrong password":
        account.change_password(PASSWORD)
    else:
        account.grant()
    wait_for_all(site, 20)
    assert service.stop() == 0


# -- rights -----------------------------------------------------------------------------------------------------------

#: The rights (configure, write, read) that are missing, and what the log and the row say then.
MISSING = {
    "configure": ((NONE, ".*", ".*"), "access to queue 'default' in vhost '{vhost}' refused for user '{user}'"),
    "write": ((".*", NONE, ".*"), "access to queue 'default' in vhost '{vhost}' refused for user '{user}'"),
    "read": ((".*", ".*", NONE), "access to exchange 'default' in vhost '{vhost}' refused for user '{user}'"),
    "all": ((NONE, NONE, NONE), "access to queue 'default' in vhost '{vhost}' refused for user '{user}'"),
}


@pytest.mark.parametrize("missing", MISSING)
def test_what_a_missing_right_keeps_from_is_named_and_done_when_the_right_is_there(
    site: Project, account: Account, missing: str
) -> None:
    rights, why = MISSING[missing]
    account.grant(*rights)
    why = why.format(vhost=account.vhost, user=account.name)
    service = site.service()
    service.wait_ready()
    publish_quickly(site, 20)
    site.wait_until(lambda: f"queue default cannot be used: 403 ACCESS_REFUSED - {why}" in service.output())
    site.wait_until(lambda: any(why in note for note in notes(site)), 40.0, "the rows say why they wait")
    assert why in pages(site)
    assert_calm(account, service)
    assert service.output().count("cannot be used") <= 3, "said once by each connection"
    account.grant()
    wait_for_all(site, 20)
    assert notes(site) == {""}
    assert service.stop() == 0


def test_the_rights_that_the_documentation_advises_are_enough(
    project: ProjectFactory, rabbitmq: RabbitMQ, amqp_url: str
) -> None:
    page = (CHECKOUT / "docs" / "operations.md").read_text()
    advised = {
        who: [right.replace("\\|", "|") for right in re.findall(r"`([^`]*)`", line)]
        for who in ("runs services", "publishes only")
        for line in page.splitlines()
        if line.startswith(f"| {who} |")
    }
    vhost = amqp_url.rpartition("/")[2]
    with account_on(rabbitmq, vhost) as serves, account_on(rabbitmq, vhost) as publishes:
        serves.grant(*advised["runs services"])
        publishes.grant(*advised["publishes only"])
        queues = [{"name": "default"}, {"name": "mail"}]
        site = project(default_broker=serves.url(), queues=queues)
        service = site.service()
        service.wait_ready()
        publish_quickly(site, 2)
        wait_for_all(site, 2)
        site.configure(default_broker=publishes.url())
        for queue in ("default", "mail"):
            publish_quickly(site, 3, queue=queue)
        wait_for_all(site, 8)
        assert "refused" not in service.output()
        assert service.stop() == 0


def test_a_right_that_is_missing_for_one_exchange_keeps_no_other_task_waiting(
    site: Project, account: Account, rabbitmq: RabbitMQ, amqp_url: str
) -> None:
    with opened(amqp_url) as probe:
        probe.channel.exchange_declare("closed", "direct", durable=True)
    account.grant(write=r"^(amq\.default|default)$")
    service = site.service()
    service.wait_ready()
    publish_quickly(site, 20, exchange="closed", routing_key="default")
    publish_quickly(site, 20)
    wait_for_all(site, 20)
    why = f"access to exchange 'closed' in vhost '{account.vhost}' refused for user '{account.name}'"
    site.wait_until(lambda: any(why in note for note in notes(site)), 40.0, "the rows say why they wait")
    assert why in pages(site)
    waiting = site.sql("SELECT DISTINCT exchange FROM carrot_messagelog WHERE status = 'PUBLISHED'")
    assert waiting == [{"exchange": "closed"}]
    with opened(amqp_url) as probe:
        probe.channel.queue_bind("default", "closed", "default")
    account.grant()
    wait_for_all(site, 40)
    assert service.stop() == 0


@pytest.mark.parametrize("connections", ["closed", "kept"])
def test_rights_taken_away_at_work_and_given_back(
    site: Project, account: Account, rabbitmq: RabbitMQ, amqp_url: str, connections: str
) -> None:
    # RabbitMQ looks at the rights of an open channel again once in this time; a minute, unless told otherwise.
    tick = rabbitmq.evaluate("application:get_env(rabbit, channel_tick_interval)")
    rabbitmq.evaluate("application:set_env(rabbit, channel_tick_interval, 500)")
    try:
        account.grant()
        service = site.service()
        service.wait_ready()
        publish_quickly(site, 10)
        wait_for_all(site, 10)
        revoked_at = datetime.now(timezone.utc).replace(tzinfo=None)
        account.revoke()
        if connections == "closed":
            rabbitmq.close_all_connections("rights were taken away", vhost_of(amqp_url))
        publish_quickly(site, 20)
        site.wait_until(lambda: "refused" in service.output() or "may not use" in service.output(), 60.0)
        publish_quickly(site, 10)
        assert_calm(account, service, revoked_at)
        account.grant()
        wait_for_all(site, 40)
        assert service.stop() == 0
    finally:
        value = tick.removeprefix("{ok,").removesuffix("}") if tick != "undefined" else "60000"
        rabbitmq.evaluate(f"application:set_env(rabbit, channel_tick_interval, {value})")


@pytest.mark.parametrize("rights", [None, (".*", ".*", NONE)])
def test_the_monitor_tells_what_keeps_a_worker_from_its_queue(
    site: Project, account: Account, rights: tuple[str, str, str] | None
) -> None:
    if rights is not None:
        account.grant(*rights)
    why = "may not use this virtual host" if rights is None else "access to exchange 'default'"
    service = site.service()
    service.wait_ready()
    site.wait_until(lambda: why in service.output())
    site.wait_until(lambda: why in pages(site), 20.0, "the page of the workers says it too")
    account.grant()
    site.wait_until(lambda: why not in pages(site), 30.0, "and no longer, once it is mended")
