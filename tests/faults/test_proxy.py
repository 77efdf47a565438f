"""The fault proxy does to a connection what its commands say, and nothing else."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.faults.proxy import FaultProxy
from tests.servers.process import free_ports, wait_until

#: Seconds in which something comes that comes at all, and in which nothing comes that must not.
SOON, NEVER = 20.0, 0.3


class Echo:
    """A server that answers with what it gets, and remembers how its connections ended."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.ends: list[str] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _address = self._listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65_536):
                    connection.sendall(data)
                self.ends.append("closed")
            except ConnectionError:
                self.ends.append("reset")


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[FaultProxy]:
    with FaultProxy(echo.port) as made:
        yield made


def connect(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=SOON)


def ask(client: socket.socket, text: bytes = b"hello") -> bytes:
    """Send, and return what comes back until it is as long."""
    client.sendall(text)
    return receive(client, len(text))


def receive(client: socket.socket, length: int) -> bytes:
    answer = b""
    while len(answer) < length and (data := client.recv(65_536)):
        answer += data
    return answer


def check_silent(client: socket.socket) -> None:
    """Neither an answer nor an end comes."""
    client.settimeout(NEVER)
    with pytest.raises(TimeoutError):
        client.recv(1)
    client.settimeout(SOON)


def test_what_is_sent_arrives_and_the_answer_comes_back_however_long(proxy: FaultProxy) -> None:
    long = bytes(range(256)) * 4096
    with connect(proxy) as client:
        answers: list[bytes] = []
        reader = threading.Thread(target=lambda: answers.append(receive(client, len(long))))
        reader.start()
        client.sendall(long)
        reader.join(SOON)
    assert answers == [long]
    assert proxy.accepted == 1


def test_a_client_that_closes_is_gone_for_the_server_too(proxy: FaultProxy, echo: Echo) -> None:
    with connect(proxy) as client:
        ask(client)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b"", "the server's end comes back as well"
    assert wait_until(lambda: echo.ends == ["closed"] and proxy.connections == 0, SOON)


def test_a_server_that_refuses_resets_the_client() -> None:
    with FaultProxy(free_ports(1)[0]) as proxy, pytest.raises(ConnectionResetError), connect(proxy) as client:
        client.recv(1)  # unless the reset came while it still connected


def test_cut_resets_all_connections_and_refuses_new_ones_until_it_passes_on_again(
    proxy: FaultProxy, echo: Echo
) -> None:
    with connect(proxy) as one, connect(proxy) as other:
        ask(one), ask(other)
        proxy.cut()
        for client in (one, other):
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        assert wait_until(lambda: echo.ends == ["reset", "reset"], SOON)
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)
        proxy.cut()  # once more changes nothing
    proxy.pass_on()
    with connect(proxy) as client:
        assert ask(client) == b"hello"


def test_a_black_hole_keeps_connections_open_and_silent_and_what_was_sent_arrives_when_it_is_over(
    proxy: FaultProxy, echo: Echo
) -> None:
    with connect(proxy) as old:
        ask(old)
        proxy.black_hole()
        old.sendall(b"into the hole")
        check_silent(old)
        with connect(proxy) as new:
            new.sendall(b"me too")
            check_silent(new)
            proxy.pass_on()
            assert receive(old, 13) == b"into the hole"
            assert receive(new, 6) == b"me too"


def test_the_server_learns_of_a_client_that_closed_into_a_black_hole_only_when_it_is_over(
    proxy: FaultProxy, echo: Echo
) -> None:
    with connect(proxy) as client:
        ask(client)
        proxy.black_hole()
    time.sleep(NEVER)  # for so long nothing is to be seen
    assert echo.ends == []
    proxy.pass_on()
    assert wait_until(lambda: len(echo.ends) == 1, SOON)


def test_half_open_takes_the_server_away_and_does_not_tell_the_client(proxy: FaultProxy, echo: Echo) -> None:
    with connect(proxy) as client:
        ask(client)
        proxy.half_open()
        assert wait_until(lambda: echo.ends == ["reset"], SOON)
        client.sendall(b"anybody there?")
        check_silent(client)
        with connect(proxy) as new:
            new.sendall(b"hello?")
            check_silent(new)
            proxy.pass_on()
            check_silent(new)
            check_silent(client)
        with connect(proxy) as newest:
            assert ask(newest) == b"hello"


def test_delay_holds_back_every_answer_and_no_request(proxy: FaultProxy) -> None:
    with connect(proxy) as client:
        ask(client)
        proxy.delay(0.4)
        for _ in range(2):
            begun = time.monotonic()
            assert ask(client) == b"hello"
            assert time.monotonic() - begun >= 0.4
        proxy.delay(SOON / 2)  # no echo takes so long by itself
        proxy.pass_on()
        begun = time.monotonic()
        ask(client)
        assert time.monotonic() - begun < SOON / 2


def test_cut_after_lets_exactly_so_many_bytes_of_both_directions_pass(proxy: FaultProxy) -> None:
    with connect(proxy) as old:
        ask(old, b"not counted, because it was earlier")
        proxy.cut_after(14)
        with connect(proxy) as new:
            for client in (old, new):
                assert ask(client, b"12345") == b"12345"
                client.sendall(b"1234567")  # four of them pass
                with pytest.raises(ConnectionResetError):
                    client.recv(1)
        proxy.pass_on()
        with connect(proxy) as client:
            assert ask(client, b"much longer than fourteen bytes") == b"much longer than fourteen bytes"
