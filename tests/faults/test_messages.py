"""Messages that should not be there: each is handled once, can be seen, and leaves the worker alive."""

from __future__ import annotations

import uuid
from typing import Any

import pika
import pytest

from tests.faults import invariants
from tests.faults.combinations import corners, on_postgresql_and_rabbitmq
from tests.faults.footprint import Footprint
from tests.faults.form import Form
from tests.faults.load import Journal, publish_all
from tests.faults.report import Record
from tests.faults.strangers import NO_TASKS, channel_of, send, strays
from tests.faults.workload import Workload
from tests.project import Broker, Database, Project, ProjectFactory
from tests.servers import RabbitMQ

HOLD = "tests.faults.fault_tasks.hold"
NOTE = "tests.faults.fault_tasks.note"
on_sqlite_and_rabbitmq = pytest.mark.parametrize(("database", "broker"), [("sqlite", "amqp")], ids=["sqlite-amqp"])


def make_queue(site: Project) -> None:
    """Make the queue, by publishing a task and waiting until it has run."""
    publish_all(site, [("tests.app.tasks.noop",)])
    site.wait_until("SELECT count(*) = 1 FROM carrot_messagelog WHERE status = 'COMPLETED'")


def work_after(site: Project, journal: Journal, name: str = "after") -> None:
    """Run a task that comes after all messages sent so far: when it has run, they are handled."""
    publish_all(site, [(NOTE, str(journal.path), name)])
    site.wait_until(lambda: journal.runs()[name] == 1, message="a further task runs")
    site.wait_until(lambda: invariants.depth(site)[0] == 0, message="the queue is empty")


def workers(site: Project) -> list[dict[str, Any]]:
    return site.sql("SELECT id, pid, alive FROM carrot_workerprocess ORDER BY id")


@pytest.mark.scenario("F25")
@on_postgresql_and_rabbitmq
def test_doubled_and_forged_messages_under_load_double_no_task_and_end_no_worker(
    project: ProjectFactory, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, **form.settings)
    forged = list(NO_TASKS.values())
    with Workload(site, form, scenario) as load, channel_of(site) as channel:
        doubled: set[str] = set()
        begun, before = len(load.calls()), workers(site)
        while len(load.calls()) < begun + form.times(200, 4000):
            newest = site.sql("SELECT uuid FROM carrot_messagelog ORDER BY id DESC LIMIT 20")
            for uid in {str(row["uuid"]) for row in newest} - doubled:
                content_type = form.random.choice(["application/json", "application/x-python-serialize", "text/html"])
                properties = pika.BasicProperties(message_id=uid, content_type=content_type)
                for _copy in range(5):
                    channel.basic_publish("", "default", b'{"args": ["of", "another"]}', properties)
                doubled.add(uid)
            body, stranger, _reason = form.random.choice(forged)
            channel.basic_publish("", "default", body, pika.BasicProperties(**stranger))
        scenario.fault(5 * len(doubled))
        load.finish()
        # The table is capped, and a message that is like none of ours may be kept more than once.
        site.wait_until(lambda: len({one["reason"] for one in strays(site)}) > 1, message="what is no task is kept")
        assert workers(site) == before, "the workers are still the same"
    load.check()
    assert doubled


@pytest.mark.scenario("F25")
@on_sqlite_and_rabbitmq
def test_bodies_of_twenty_megabytes_leave_excerpts_and_their_memory_is_used_again(
    project: ProjectFactory, rabbitmq: RabbitMQ, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    limit = int(rabbitmq.evaluate("rabbit_misc:get_env(rabbit, max_message_size, 134217728)"))
    body = b"x" * min(20_000_000, limit)
    site = project(database=database, broker=broker)
    journal = Journal(site)
    service = site.service()
    service.wait_ready()
    make_queue(site)
    before, memory = workers(site), Footprint.of(site, [service]).memory
    for number in range(form.times(10, 200)):
        send(site, body, message_id=str(uuid.uuid4()), headers={"type": NOTE})
        scenario.fault()
        if number % 10 == 0:
            work_after(site, journal, f"after{number}")
    work_after(site, journal)
    kept = strays(site)
    assert {(one["reason"], one["task"], len(one["body"])) for one in kept} == {(kept[0]["reason"], NOTE, 2000)}
    assert len(kept) == scenario.faults
    assert workers(site) == before
    excess = Footprint.of(site, [service]).memory - memory
    scenario.remark(f"{excess / 1e6:+.1f} MB of memory")
    # Of ten and more. The C library keeps up to twice what was freed last for what may come next.
    assert excess < 3 * len(body), f"{excess:,} bytes more than before"
    invariants.wait_for_rest(site)


@pytest.mark.scenario("F25")
@on_sqlite_and_rabbitmq
def test_a_message_that_comes_six_times_runs_its_task_once(
    project: ProjectFactory, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, queues=[{"name": "default", "concurrency": 4}])
    journal = Journal(site)
    publish_all(site, [(NOTE, str(journal.path), f"n{n}") for n in range(10)], confirmed=True)
    with channel_of(site) as channel:
        for _ in range(10):
            method, properties, body = channel.basic_get("default")
            for _copy in range(5):
                channel.basic_publish("", "default", body, properties)
            channel.basic_nack(method.delivery_tag)
    site.wait_until(lambda: invariants.depth(site)[0] == 60)
    site.service("--processes", "2").wait_ready()
    work_after(site, journal)
    with channel_of(site) as channel:  # and once more, when it is long done
        channel.basic_publish("", "default", body, properties)
    work_after(site, journal, "at-last")
    invariants.wait_for_rest(site)
    invariants.check_completed_once(site, journal.runs(), [*(f"n{n}" for n in range(10)), "after", "at-last"])
    assert strays(site) == []
    assert all(row["alive"] for row in workers(site))


@pytest.mark.scenario("F25")
@on_postgresql_and_rabbitmq
def test_a_message_in_the_name_of_a_task_runs_that_task_or_nothing(
    project: ProjectFactory, database: Database, broker: Broker
) -> None:
    """Whatever it says itself: the task and its arguments are those of the row."""
    site = project(database=database, broker=broker)
    journal, evil = Journal(site), Journal(site, "evil")
    publish_all(site, [(NOTE, str(journal.path), name) for name in ("waiting", "finished", "delayed")], confirmed=True)
    site.sql("UPDATE carrot_messagelog SET status = 'FAILED', failure_time = state_at, exception = 'x' WHERE id = 2")
    site.sql("UPDATE carrot_messagelog SET status = 'WAITING', ring_at = '2999-01-01 00:00:00+00:00' WHERE id = 3")
    ids = {row["id"]: str(row["uuid"]) for row in site.sql("SELECT id, uuid FROM carrot_messagelog")}
    with channel_of(site) as channel:
        channel.queue_purge("default")
    body = b'{"args": ["%s", "evil"], "kwargs": {}}' % str(evil.path).encode()
    for pk in sorted(ids):
        send(site, body, message_id=ids[pk], headers={"type": "tests.faults.fault_tasks.note"})
        send(site, body, message_id=ids[pk], headers={"type": "tests.app.tasks.kill_self"})
    site.service().wait_ready()
    work_after(site, journal)
    site.wait_until("SELECT count(*) = 2 FROM carrot_messagelog WHERE status = 'COMPLETED'")
    statuses = [row["status"] for row in site.sql("SELECT status FROM carrot_messagelog ORDER BY id")]
    assert statuses == ["COMPLETED", "FAILED", "WAITING", "COMPLETED"]
    assert journal.runs() == {"waiting": 1, "after": 1}
    assert evil.runs() == {}
    invariants.check_always(site)
    assert [worker["alive"] for worker in workers(site)] == [1]


@pytest.mark.scenario("F25")
@on_sqlite_and_rabbitmq
def test_messages_that_are_no_tasks_are_kept_once_each_and_the_worker_goes_on(
    project: ProjectFactory, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker)
    journal = Journal(site)
    site.service().wait_ready()
    make_queue(site)
    before = workers(site)
    for body, properties, _reason in NO_TASKS.values():
        send(site, body, **properties)
    work_after(site, journal)
    found = strays(site)
    for name, (_body, properties, reason) in NO_TASKS.items():
        matching = [one for one in found if reason in one["reason"]]
        assert matching, (name, found)
        if "message_id" in properties:
            wanted = properties["message_id"].replace("\0", "�")
            assert len([one for one in found if one["message_id"] == wanted]) == 1, name
    assert len(found) == len(NO_TASKS)
    assert {one["queue"] for one in found} == {"default"}
    assert "os.system" in {one["task"] for one in found}
    assert all(len(one["body"]) <= 2000 for one in found)
    assert workers(site) == before, "the worker is still the same"
    invariants.wait_for_rest(site)
    assert site.sql("SELECT count(*) AS n FROM carrot_messagelog") == [{"n": 2}]


@on_postgresql_and_rabbitmq
def test_a_message_of_another_installation_is_left_to_its_owner_and_its_queue_alone(
    project: ProjectFactory, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, queues=[{"name": "default"}, {"name": "other"}])
    journal = Journal(site)
    service = site.service()
    service.wait_ready()
    make_queue(site)
    theirs: dict[str, Any] = {
        "message_id": str(uuid.uuid4()),
        "headers": {"type": NOTE, "carrot": {"site": str(uuid.uuid4()), "v": 2}},
    }
    send(site, b'{"args": []}', **theirs)
    site.wait_until(lambda: invariants.depth(site) == (1, 0), message="it is back in the queue, which has no consumer")
    assert invariants.message_ids(site) == [invariants.plain(theirs["message_id"])]
    assert "queue default on amqp://" in service.output()
    assert "holds messages of another installation; it is no longer consumed" in service.output()
    assert "Give each project its own virtual host" in service.output()
    assert strays(site) == []
    # Tasks of our own in that queue wait behind it, and run when the queue is ours alone.
    publish_all(site, [(NOTE, str(journal.path), "ours")], confirmed=True)
    # The other queue is consumed as ever, by the same worker.
    site.python(
        "from carrot.utilities import publish_message\n"
        f"publish_message({NOTE!r}, {str(journal.path)!r}, 'elsewhere', queue='other')"
    )
    site.wait_until(lambda: journal.runs()["elsewhere"] == 1)
    assert invariants.depth(site) == (2, 0), "the queue is still left alone"
    assert [worker["alive"] for worker in workers(site)] == [1]
    assert service.stop() == 0
    with channel_of(site) as channel:
        while (got := channel.basic_get("default"))[0] is not None:
            if got[1].message_id == theirs["message_id"]:
                channel.basic_ack(got[0].delivery_tag)
    site.service().wait_ready()
    invariants.wait_for_rest(site)
    invariants.check_completed_once(site, journal.runs(), ["elsewhere", "ours"])


@corners
def test_a_task_that_is_gone_from_the_code_fails_with_the_reason_and_its_neighbours_complete(
    project: ProjectFactory, database: Database, broker: Broker
) -> None:
    queues = [{"name": "default", "concurrency": 4}]
    site = project(database=database, broker=broker, queues=queues, deploy_patience=0.0)
    journal = Journal(site)
    names = [f"n{n}" for n in range(12)]
    publish_all(site, [(NOTE, str(journal.path), name) for name in names])
    site.sql("UPDATE carrot_messagelog SET task = 'tests.gone.away' WHERE id = 3")
    site.sql("UPDATE carrot_messagelog SET task = 'tests.faults.fault_tasks.gone' WHERE id = 6")
    site.sql("UPDATE carrot_messagelog SET task = %s, args = '[]' WHERE id = 9", [NOTE])  # new required arguments
    site.service().wait_ready()
    invariants.wait_for_rest(site)
    gone = site.sql("SELECT exception FROM carrot_messagelog WHERE status = 'FAILED' ORDER BY id")
    assert len(gone) == 3, gone
    assert gone[0]["exception"].startswith("TaskImportError")
    assert "tests.gone" in gone[0]["exception"]
    assert gone[1]["exception"].startswith("TaskAttributeError")
    assert "gone" in gone[1]["exception"]
    assert gone[2]["exception"].startswith("InvalidArguments")
    invariants.check_completed_once(
        site, journal.runs(), [name for n, name in enumerate(names, 1) if n not in (3, 6, 9)]
    )
    assert [worker["alive"] for worker in workers(site)] == [1]
