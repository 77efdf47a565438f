"""A cluster of RabbitMQ that loses the node a queue is led by."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.faults.cluster import Cluster
from tests.faults.combinations import on_postgresql_and_rabbitmq
from tests.faults.form import Form, form_of_run
from tests.faults.report import Record
from tests.faults.workload import Workload
from tests.project import Broker, Database, ProjectFactory

#: Starting three nodes takes half a minute.
pytestmark = pytest.mark.skipif(not form_of_run().full, reason="full form")

VHOST = "clustered"
QUORUM = {"name": "default", "concurrency": 4, "queue_arguments": {"x-queue-type": "quorum"}}


@pytest.fixture
def cluster(place_of_servers: Path) -> Iterator[Cluster]:
    with Cluster(place_of_servers) as cluster:
        cluster.nodes[0].add_vhost(VHOST)
        yield cluster


def longest_gap(load: Workload, since: float) -> float:
    """The seconds of the longest time after a moment on time.monotonic in which no task began."""
    begins = [mark.at for mark in load.journal.marks() if mark.what == "begin" and mark.at > since]
    return max(later - earlier for earlier, later in pairwise([since, *begins]))


@pytest.mark.scenario("F24")
@on_postgresql_and_rabbitmq
def test_a_cluster_that_loses_the_leader_of_a_quorum_queue_goes_on_without_it(
    project: ProjectFactory, cluster: Cluster, form: Form, scenario: Record, database: Database, broker: Broker
) -> None:
    site = project(
        database=database, broker=broker, default_broker=cluster.url_of(VHOST), queues=[QUORUM], **form.settings
    )
    site.broker_url = cluster.nodes[0].url_of(VHOST)
    with Workload(site, form, scenario) as load:
        load.work_goes_on(50)
        leader = cluster.leader_of("default", VHOST)
        left = [node for node in cluster.nodes if node is not leader]
        site.broker_url = left[0].url_of(VHOST)  # the test itself asks a node that will live
        killed = time.monotonic()
        cluster.crash(leader)
        scenario.fault()
        load.work_goes_on(500, 120.0)
        scenario.recovered(longest_gap(load, killed))
        assert cluster.leader_of("default", VHOST) in left
        leader.start(180.0)  # as RabbitMQ counts the consumers of a lost node until it hears from it
        load.work_goes_on(500, 120.0)
        load.finish()
    load.check()
    assert max(scenario.recoveries) < form.limit(30.0)
