"""Publishers that roll back, or die between their COMMIT and the message."""

from __future__ import annotations

import pytest

from tests.acceptance import invariants
from tests.acceptance.combinations import everywhere, on_rabbitmq
from tests.acceptance.load import Journal, publish_all
from tests.project import Broker, Database, ProjectFactory
from tests.servers import RabbitMQ

pytestmark = pytest.mark.acceptance

NOTE = "tests.acceptance.fault_tasks.note"

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


@everywhere
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


@everywhere
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


@on_rabbitmq
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
