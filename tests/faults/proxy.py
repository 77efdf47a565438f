"""A network that fails between a client and a server, as a TCP port: ``FaultProxy``.

It passes on what it gets until it is told otherwise. Every command holds for the connections there are and for those to
come, and has taken effect when the call returns. What a real network keeps, it keeps: a stream never loses bytes in its
middle, so what was sent into a black hole arrives when it is over, if both sides still wait for each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from tests.servers.process import free_ports

CHUNK = 65_536
#: SO_LINGER with a time of zero: closing sends a reset, whatever is still to be sent.
AT_ONCE = struct.pack("ii", 1, 0)


class Link:
    """One connection: the client's side and, while it has one, the server's."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self.client = client
        self.server: asyncio.StreamWriter | None = None
        #: The server's side is gone and the client was not told; never healed.
        self.half_open = False
        #: Bytes that may still pass before the connection is cut; None: any number.
        self.left: int | None = None

    def reset(self) -> None:
        """RST to both sides."""
        for side in (self.client, self.server):
            _reset(side)

    def lose_server(self) -> None:
        self.half_open = True
        _reset(self.server)
        self.server = None


class FaultProxy:
    """Listens on ``port`` of the loopback and passes on to ``target``, as a context manager.

    Its commands may be called from any thread. ``connections`` is how many clients are connected, ``accepted`` how many
    ever were.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = free_ports(1)[0]
        self.accepted = 0
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._delay = 0.0
        self._half_open = False
        self._budget: int | None = None
        self._listener: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10.0)
        self._loop.close()

    # -- commands -------------------------------------------------------------------------------------------------

    def pass_on(self) -> None:
        """End every fault. Connections that are half-open stay so until their client closes them."""
        self._become()

    def cut(self) -> None:
        """Reset all connections, and refuse new ones until another command."""

        self._become(cut=True)

    def black_hole(self) -> None:
        """Nothing comes through in either direction, not even that a side closed. New connections are accepted."""
        self._become(self._flowing.clear)

    def half_open(self) -> None:
        """The server loses all connections and their clients are not told; new ones are accepted, never answered."""

        def lose_all() -> None:
            self._half_open = True
            for link in self._links:
                link.lose_server()

        self._become(lose_all)

    def delay(self, seconds: float) -> None:
        """Every chunk of the server's replies comes ``seconds`` later."""

        def be_slow() -> None:
            self._delay = seconds

        self._become(be_slow)

    def cut_after(self, n_bytes: int) -> None:
        """Reset each connection as soon as ``n_bytes`` more, of both directions together, have passed in it."""

        def count_down() -> None:
            self._budget = n_bytes
            for link in self._links:
                link.left = n_bytes

        self._become(count_down)

    @property
    def connections(self) -> int:
        return len(self._links)

    # -- inside: all of it in the loop's thread ----------------------------------------------------------------------

    def _become(self, fault: Callable[[], object] = lambda: None, *, cut: bool = False) -> None:
        """Leave whatever the last command began, and begin another fault."""

        async def change() -> None:
            self._delay, self._budget, self._half_open = 0.0, None, False
            for link in self._links:
                link.left = None
            self._flowing.set()
            if cut:
                await self._cut_off()
            elif self._listener is None:
                await self._listen()
            fault()

        self._call(change())

    def _call(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10.0)

    async def _listen(self) -> None:
        self._flowing.set()
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _cut_off(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            # A server that is closed between the accepting of a connection and its first step forgets to close that.
            for each in listener.sockets:
                self._loop.remove_reader(each.fileno())
            await asyncio.sleep(0)
            listener.close()
        for link in list(self._links):
            link.reset()

    async def _close(self) -> None:
        await self._cut_off()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link(writer)
        self.accepted += 1
        self._links.add(link)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self._listener is None:
                return  # accepted at the moment of the cut
            link.half_open, link.left = self._half_open, self._budget
            await self._carry(link, reader)
        except OSError:
            return  # a side was reset, or the server refuses: the other one is reset as well
        except asyncio.CancelledError:
            return  # by _close, the only one who does: asyncio would print it as an error of its callback
        finally:
            self._links.discard(link)
            self._tasks.discard(task)
            link.reset()

    async def _carry(self, link: Link, client: asyncio.StreamReader) -> None:
        await self._flowing.wait()
        if link.half_open:
            await self._to_server(link, client)
            return
        server, link.server = await asyncio.open_connection("127.0.0.1", self.target)
        if self._half_open:  # commanded meanwhile
            link.lose_server()
        both = [
            asyncio.ensure_future(self._to_server(link, client)),
            asyncio.ensure_future(self._to_client(link, server)),
        ]
        try:
            await asyncio.gather(*both)
        finally:
            for each in both:
                each.cancel()

    async def _to_server(self, link: Link, client: asyncio.StreamReader) -> None:
        while data := await client.read(CHUNK):
            await self._flowing.wait()
            if link.server is not None:
                await self._pass(link, link.server, data)
        await self._flowing.wait()
        if link.server is not None:
            link.server.write_eof()

    async def _to_client(self, link: Link, server: asyncio.StreamReader) -> None:
        try:
            while data := await server.read(CHUNK):
                if self._delay:
                    await asyncio.sleep(self._delay)
                await self._flowing.wait()
                if link.half_open:
                    break
                await self._pass(link, link.client, data)
            await self._flowing.wait()
            if not link.half_open:
                link.client.write_eof()
        except OSError:
            await self._flowing.wait()
            if not link.half_open:
                raise

    async def _pass(self, link: Link, to: asyncio.StreamWriter, data: bytes) -> None:
        if link.left is not None:
            data = data[: link.left]
            link.left -= len(data)
        to.write(data)
        if link.left == 0:
            await _written(to)
            raise ConnectionResetError("as many bytes have passed as were to pass")
        await to.drain()


def _reset(side: asyncio.StreamWriter | None) -> None:
    if side is None or side.transport.is_closing():
        return
    with contextlib.suppress(OSError):  # the other end was faster
        side.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
    side.transport.abort()


async def _written(to: asyncio.StreamWriter) -> None:
    """Return when everything is handed to the operating system."""
    while to.transport.get_write_buffer_size() and not to.transport.is_closing():
        await asyncio.sleep(0.001)
