"""Three private RabbitMQ nodes that are one cluster, all on this machine."""

from __future__ import annotations

import time
from pathlib import Path

from tests.servers import RabbitMQ
from tests.servers.process import POLL, session_members

#: As many as survive the loss of one: two are the majority of a quorum queue.
SIZE = 3


class Cluster:
    """A context manager; the nodes' data are in ``node-1`` ... below ``place``, and removed at the end."""

    def __init__(self, place: Path) -> None:
        first = RabbitMQ(place / "node-1", "carrot-1@localhost")  # its epmd is that of all
        others = [
            RabbitMQ(place / f"node-{number}", f"carrot-{number}@localhost", beside=first)
            for number in range(2, SIZE + 1)
        ]
        self.nodes = [first, *others]

    def __enter__(self) -> Cluster:
        try:
            for node in self.nodes:
                node.start(180.0)
            for node in self.nodes[1:]:
                node.ctl("stop_app")
                node.ctl("join_cluster", self.nodes[0].node)
                node.ctl("start_app", timeout=180.0)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for node in reversed(self.nodes):
            node.remove()

    def url_of(self, vhost: str) -> str:
        """A virtual host of the cluster, all nodes named."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"amqp://guest:guest@{hosts}/{vhost}"

    def leader_of(self, queue: str, vhost: str) -> RabbitMQ:
        """The node that leads a quorum queue, as any other one tells that runs."""
        asked = next(node for node in self.nodes if node.is_running())
        for line in asked.ctl("list_queues", "--vhost", vhost, "name", "leader").splitlines():
            name, _, leader = line.partition("\t")
            if name == queue:
                return next(node for node in self.nodes if node.node == leader)
        raise AssertionError(f"There is no queue {queue} in {vhost}.")

    @staticmethod
    def crash(node: RabbitMQ) -> None:
        """SIGKILL a node, and leave the epmd that it may have started to the others."""
        deadline = time.monotonic() + 10.0
        while members := session_members(node.main_process().pid):
            for member in members:
                member.kill()
            if time.monotonic() > deadline:
                raise AssertionError(f"Processes of {node.node} survive SIGKILL: {[each.pid for each in members]}")
            time.sleep(POLL)
