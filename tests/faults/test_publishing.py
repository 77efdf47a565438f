"""Publishers that roll back, die, or are forked from one another."""

from __future__ import annotations

import os
import time

from tests.faults import invariants
from tests.faults.balance import balance
from tests.faults.combinations import corners, on_postgresql_and_rabbitmq
from tests.faults.form import Form
from tests.faults.load import Journal, publish_all
from tests.faults.prefork import PreforkServer
from tests.faults.producers import Plan
from tests.faults.report import quantile
from tests.faults.workload import Workload
from tests.project import Broker, Database, Project, ProjectFactory
from tests.servers import RabbitMQ

NOTE = "tests.faults.fault_tasks.note"

ROLLED_BACK = """
from django.db import transaction
from carrot.utilities import create_message, publish_message
from carrot.services import publish_many

def messages(*names):
    return [create_message({task!r}, None, task_args=[{journal!r}, name]) for name in names]

try:
    with transaction.atomic():
        publish_message({task!r}, {journal!r}, "phantom1")
        publish_many(messages("phantom2", "phantom3"))
        raise KeyError("the caller's transaction fails")
except KeyError:
    pass
with transaction.atomic():
    publish_message({task!r}, {journal!r}, "kept1")
    try:
        with transaction.atomic():  # a savepoint
            publish_message({task!r}, {journal!r}, "phantom4")
            raise KeyError
    except KeyError:
        pass
    publish_many(messages("kept2"))
"""

KILLED_AFTER_COMMIT = """
import os, signal
from django.db import transaction
from carrot.utilities import publish_message

with transaction.atomic():
    # Django calls it after the COMMIT, and ahead of the publisher, which is entered after it.
    transaction.on_commit(lambda: os.kill(os.getpid(), signal.SIGKILL))
    publish_message({task!r}, {journal!r}, "n1")
    publish_message({task!r}, {journal!r}, "n2")
print("survived")
"""


@corners
def test_what_is_published_in_a_transaction_that_is_rolled_back_leaves_no_row_and_no_message(
    project: ProjectFactory, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker)
    journal = Journal(site)
    site.python(ROLLED_BACK.format(task=NOTE, journal=str(journal.path)))
    rows = site.sql("SELECT args, uuid FROM carrot_messagelog ORDER BY id")
    assert [invariants.name_of(row) for row in rows] == ["kept1", "kept2"]
    if broker == "amqp":  # its end flushed the publisher: what would have been sent is there
        assert invariants.message_ids(site) == [invariants.plain(row["uuid"]) for row in rows]
    service = site.service()
    service.wait_ready()
    publish_all(site, [(NOTE, str(journal.path), "last")])
    invariants.wait_for_rest(site)
    assert journal.runs() == {"kept1": 1, "kept2": 1, "last": 1}
    assert site.sql("SELECT reason FROM carrot_straymessage") == []


@corners
def test_what_a_process_has_committed_runs_though_the_process_is_killed_before_it_sends_a_message(
    project: ProjectFactory, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker)
    journal = Journal(site)
    site.service().wait_ready()
    done = site.python(KILLED_AFTER_COMMIT.format(task=NOTE, journal=str(journal.path)), check=False)
    assert (done.returncode, done.stdout) == (-9, "")
    if broker == "amqp":  # nothing but the bell in the rows can ring them
        bells = site.sql("SELECT ring_at IS NOT NULL AS armed FROM carrot_messagelog")
        assert [bool(row["armed"]) for row in bells] == [True, True]
    invariants.wait_for_rest(site)
    invariants.check_completed_once(site, journal.runs(), ["n1", "n2"])


@on_postgresql_and_rabbitmq
def test_a_process_killed_after_its_commit_while_rabbitmq_is_away_leaves_tasks_that_run_when_it_is_back(
    project: ProjectFactory, rabbitmq: RabbitMQ, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker)
    journal = Journal(site)
    site.service().wait_ready()
    rabbitmq.suspend()
    done = site.python(KILLED_AFTER_COMMIT.format(task=NOTE, journal=str(journal.path)), check=False)
    assert done.returncode == -9
    rabbitmq.resume()
    invariants.wait_for_rest(site)
    invariants.check_completed_once(site, journal.runs(), ["n1", "n2"])


def plan_of(site: Project, form: Form, journal: Journal, number: int) -> Plan:
    """A web worker that publishes as fast as it can, until it is killed or its file ``end`` exists."""
    directory = site.directory
    return Plan(
        prefix=f"w{number}",
        journal=str(journal.path),
        ledger=str(directory / f"ledger-{number}"),
        warm=str(directory / "journal"),
        go=str(directory / "journal"),  # at once: it exists
        end=str(directory / f"end-{number}"),
        seed=form.random.randrange(1 << 32),
        rate=0.0,
        warm_up=0,
        longest=0.01,
        longest_atomic=0.0,
    )


@corners
def test_web_workers_killed_at_any_moment_leave_every_committed_task_and_no_other_to_run(
    project: ProjectFactory, form: Form, database: Database, broker: Broker
) -> None:
    """They are forked from a process that has published, and that goes on to do so."""
    site = project(database=database, broker=broker, queues=[{"name": "default", "concurrency": 4}], **form.settings)
    journal = Journal(site)
    site.service("--processes", "2").wait_ready()
    with PreforkServer(site) as server:
        server.publish(NOTE, str(journal.path), "before")
        site.wait_until(lambda: journal.runs()["before"] == 1)
        workers = []
        for number in range(form.times(6, 20)):
            worker = server.fork(plan_of(site, form, journal, number))
            workers.append(worker)
            site.wait_until(worker.ledger.calls, message="the worker publishes")
            time.sleep(form.random.uniform(0.0, 0.3))  # at whatever it is by then
            worker.kill()
        last = plan_of(site, form, journal, len(workers))
        workers.append(server.fork(last))
        site.wait_until(workers[-1].ledger.calls, message="the last worker publishes")
        open(last.end, "x").close()
        workers[-1].wait_ended()
        server.publish(NOTE, str(journal.path), "after")
        invariants.wait_for_rest(site, form.seconds(60.0, 300.0))
        assert server.output.read_text() == "", "neither the master nor a worker had anything to complain about"
    found = balance(site, journal, [worker.ledger for worker in workers], producer_killed=True)
    assert found.committed > len(workers)
    assert (found.lost, found.phantom, found.doubled_plain, found.doubled_atomic) == ([], [], {}, {})
    invariants.check_completed_once(site, journal.runs(), ["before", "after"])


@on_postgresql_and_rabbitmq
def test_where_no_threads_may_run_the_services_send_the_messages_of_others_soon(
    project: ProjectFactory, form: Form, database: Database, broker: Broker
) -> None:
    site = project(database=database, broker=broker, publisher="relay", **form.settings)
    with Workload(site, form) as load:
        load.work_goes_on(50)
        threads = [len(os.listdir(f"/proc/{producer.pid}/task")) for producer in load.producers]
        load.finish()
    load.check()
    assert threads == [1, 1]
    begun = {mark.name: mark.at for mark in reversed(load.journal.marks()) if mark.what == "begin"}
    waited = [begun[call.name] - call.ended for call in load.calls() if not call.name.endswith("w0-plain")]
    assert quantile(waited, 0.5) < form.limit(1.0)
