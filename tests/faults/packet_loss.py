"""A network that loses packets (Linux), as a black hole in user space does not: there the kernel acknowledges them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
from collections.abc import Callable, Collection
from pathlib import Path

from tests.faults.proxy import FaultProxy

#: <asm-generic/socket.h>
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
#: One instruction of a socket filter, see <linux/filter.h>: BPF_RET | BPF_K with 0, "nothing of the packet is taken".
DROP = struct.pack("HBBI", 0x06, 0, 0, 0)


class LossyProxy(FaultProxy):
    """A ``FaultProxy`` with a further command."""

    def __init__(self, target: int) -> None:
        super().__init__(target)
        self._losing = False

    def lose_packets(self) -> None:
        """Whatever clients send is lost, the packets that open a connection too: TCP itself hears nothing any more.

        The clients' timeouts end their connections, if they have any; the server is not told of it.
        """

        def lose_all() -> None:
            self._losing = True
            for one in self._sockets():
                _drop(one)
            self._flowing.clear()

        self._become(lose_all)

    def lose_clients(self, ports: Collection[int]) -> int:
        """The host of the clients that have these ports is gone for good: what it sends and what is sent to it is lost,
        and TCP hears nothing at either end. Returns how many connections that concerned.
        """
        lost = 0

        async def lose() -> None:
            nonlocal lost
            for link in self._links:
                if link.client.get_extra_info("peername")[1] in ports:
                    lost += 1
                    for side in filter(None, (link.client, link.server)):
                        _drop(side.get_extra_info("socket"))

        self._call(lose())
        return lost

    def _become(self, fault: Callable[[], object] = lambda: None) -> None:
        def then() -> None:
            if self._losing:
                self._losing = False
                for one in self._sockets():
                    one.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
                    _ask_whether_alive(one)
            fault()

        super()._become(then)

    def _sockets(self) -> list[socket.socket]:
        """The proxy's ends of the clients' connections, and those that listen."""
        ends: list[socket.socket] = [link.client.get_extra_info("socket") for link in self._links]
        return [*ends, *(self._listener.sockets if self._listener is not None else ())]


def local_ports(pids: Collection[int]) -> set[int]:
    """The TCP ports at which these processes have connections."""
    inodes = set()
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed since it was listed
                inodes.add(os.readlink(entry).removeprefix("socket:[").removesuffix("]"))
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(words[1].partition(":")[2], 16) for words in lines if words[9] in inodes}


def _drop(one: socket.socket) -> None:
    program = ctypes.create_string_buffer(DROP)
    one.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(program)))


def _ask_whether_alive(one: socket.socket) -> None:
    """What gave its connection up meanwhile says so as soon as it is asked: within a second or two."""
    one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL):
        one.setsockopt(socket.IPPROTO_TCP, option, 1)
