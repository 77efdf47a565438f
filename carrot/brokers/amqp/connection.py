"""A thread that owns one connection to RabbitMQ and gets it back whenever it is lost."""

from __future__ import annotations

import logging
import os
import random
import re
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pika
from pika import exceptions as pika_errors
from pika.adapters.select_connection import IOLoop
from pika.adapters.utils.connection_workflow import AMQPConnectionWorkflowFailed, AMQPConnectorPhaseErrorBase

from carrot import clock, database
from carrot.brokers.amqp.frames import without_headers
from carrot.virtual_host import VirtualHost

logger = logging.getLogger(__name__)

#: Seconds to wait before connecting again: doubled from the first to the last, with jitter, so that the processes of a
#: site do not all knock at once on a broker that just came back.
FIRST_DELAY = 0.2
LAST_DELAY = 2.0
#: Seconds. RabbitMQ notices after two to three of them that a host has vanished; what was delivered there has to come
#: back within the lease.
HEARTBEAT = 10
#: Seconds for TCP, TLS and the AMQP handshake together, and for the abort of such an attempt.
CONNECT_TIMEOUT, ABORT = 8, 0.5


def parameters(host: VirtualHost, purpose: str) -> list[pika.ConnectionParameters]:
    """pika's parameters for each address of ``host``, in random order."""
    made = []
    for name, port in host.hosts:
        tls = pika.SSLOptions(_tls_context(host), name) if host.secure else None
        made.append(
            pika.ConnectionParameters(
                host=name,
                port=port,
                virtual_host=host.name,
                credentials=pika.PlainCredentials(host.username, host.password),
                heartbeat=int(host.options.get("heartbeat", HEARTBEAT)),
                socket_timeout=CONNECT_TIMEOUT,
                stack_timeout=CONNECT_TIMEOUT,
                connection_attempts=1,
                ssl_options=tls,
                client_properties={"connection_name": f"carrot {purpose} {socket.gethostname()}:{os.getpid()}"},
            )
        )
    random.shuffle(made)
    return made


def _tls_context(host: VirtualHost) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=host.options.get("cafile"))
    if "certfile" in host.options:
        context.load_cert_chain(host.options["certfile"], host.options.get("keyfile"))
    return context


def explain(error: BaseException | None) -> str:
    """One sentence for the operator about a lost or refused connection. pika's texts hold no credentials."""
    if isinstance(error, pika_errors.AMQPConnectionError) and error.args and isinstance(error.args[0], BaseException):
        error = error.args[0]
    if isinstance(error, AMQPConnectionWorkflowFailed):
        error = error.exceptions[-1]
    if isinstance(error, AMQPConnectorPhaseErrorBase):
        error = error.exception
    if isinstance(error, pika_errors.ConnectionClosed | pika_errors.ChannelClosed):
        return f"{error.reply_code} {error.reply_text}"
    if isinstance(error, pika_errors.ProbableAuthenticationError):
        return "user or password was refused"
    if isinstance(error, pika_errors.ProbableAccessDeniedError):
        return "the user may not use this virtual host, or there is none of this name"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, TimeoutError | pika_errors.ConnectionOpenAborted):  # pika aborts what takes too long
        return f"no answer within {CONNECT_TIMEOUT} seconds"
    return f"{type(error).__name__}: {error}" if error is not None and str(error) else type(error).__name__


def _not_ours(_record: logging.LogRecord) -> bool:
    """A filter for pika's loggers. Of one refused connection pika logs seven errors, and of each queue that is looked
    up and missing a warning; a thread of ours says what there is to say in one line. Others who use pika are not
    affected."""
    return not isinstance(threading.current_thread(), ConnectionThread)


for _name in (
    "pika.adapters.base_connection",
    "pika.adapters.utils.connection_workflow",
    "pika.adapters.utils.io_services_utils",
    "pika.channel",
    "pika.connection",
):
    logging.getLogger(_name).addFilter(_not_ours)


class JoinedConnection(pika.SelectConnection):  # type: ignore[misc]  # pika has no types
    """Writes the frames of many messages with one system call.

    pika hands each frame (three a message) to the socket on its own. Inside :meth:`joined` they are gathered instead.
    Only ``_output_marshaled_frames`` and ``_read_frame`` are replaced; a test fails when a pika release no longer goes
    through them.
    """

    _gathered: list[bytes] | None = None

    @property
    def server(self) -> str:
        """What the server calls itself: ``RabbitMQ 3.10.8``."""
        properties = self.server_properties or {}
        return f"{properties.get('product', 'AMQP server')} {properties.get('version', '')}".strip()

    @property
    def major_version(self) -> int:
        """Of the server; 0 where it does not say."""
        found = re.match(r"\d+", str((self.server_properties or {}).get("version", "")))
        return int(found.group()) if found else 0

    def _output_marshaled_frames(self, marshaled_frames: Sequence[bytes]) -> None:
        if self._gathered is None:
            super()._output_marshaled_frames([b"".join(marshaled_frames)])
        else:
            self._gathered.extend(marshaled_frames)

    def _read_frame(self) -> tuple[int, Any]:
        """The next frame of what has come. Headers that pika cannot decode (a timestamp in milliseconds, tables nested
        thousands deep) are left out: it would end the connection over them, and the broker deliver the message again
        on the next one, for ever."""
        try:
            found: tuple[int, Any] = super()._read_frame()
        except Exception as error:
            found = without_headers(self._frame_buffer)
            logger.warning("A message's headers cannot be read and are left out: %s: %s", type(error).__name__, error)
        return found

    def joined(self, send: Callable[[], None]) -> None:
        """Calls ``send`` and writes whatever it sent in one piece."""
        self._gathered = []
        try:
            send()
        finally:
            gathered, self._gathered = self._gathered, None
            if gathered:
                super()._output_marshaled_frames([b"".join(gathered)])

    def drop(self) -> None:
        """Closes without a word of the server, which reads nothing from a connection that it blocks."""
        self.close()
        self._adapter_disconnect_stream()

    def abandon(self) -> None:
        """Ends what is not open yet. Not by ``close()``: pika stumbles over its own abort amid the handshake."""
        self._terminate_stream(pika_errors.AMQPConnectionError("given up"))


class ConnectionThread(threading.Thread):
    """One connection with its own I/O loop. Everything pika happens in this thread; :meth:`call` is the way in."""

    def __init__(self, host: VirtualHost, purpose: str) -> None:
        super().__init__(name=f"carrot-{purpose}", daemon=True)
        self.host = host
        self.purpose = purpose
        #: What the server calls itself, read at connect; empty until then.
        self.server = ""
        #: Why there is no connection; empty while there is one.
        self.error = "not connected yet"
        #: Why the server takes no messages over this connection: its memory or its disk is short. Empty while it does.
        self.blocked = ""
        #: When the loop was last seen running, by the monotonic clock.
        self.ticked_at = clock.monotonic()
        self._loop = IOLoop()
        self._connection: JoinedConnection | None = None
        #: The attempt to connect that is under way.
        self._opening: JoinedConnection | None = None
        self._candidates: list[pika.ConnectionParameters] = []
        self._delay = FIRST_DELAY
        self._stopping = False
        self._ended = threading.Event()
        self._connected = threading.Event()

    # -- any thread -----------------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        return not self.error

    def connect(self) -> None:
        """Makes the connection, and makes it anew whenever it is lost. Of a thread that runs, once."""
        self.ticked_at = clock.monotonic()
        self.call(self._begin)

    def wait_connected(self, timeout: float) -> bool:
        """Whether there is a connection, or comes to be within ``timeout`` seconds."""
        return self._connected.wait(timeout)

    def call(self, function: Callable[[], None]) -> None:
        """Runs ``function`` in this thread soon. One wake-up byte a call: post batches, not messages."""
        self._loop.add_callback_threadsafe(function)

    def shut(self, timeout: float) -> bool:
        """Closes the connection and ends the thread; False where that took longer than ``timeout`` seconds."""
        self.call(self._begin_stop)
        return self._ended.wait(timeout)

    # -- this thread ----------------------------------------------------------------------------------------------

    def run(self) -> None:
        try:
            with database.closing():
                self._loop.start()
                self._loop.close()
        finally:
            self._ended.set()

    def opened(self, connection: JoinedConnection) -> None:
        """The connection is there."""
        raise NotImplementedError

    def lost(self) -> None:
        """The connection is gone, and with it every channel and tag."""
        raise NotImplementedError

    def unblocked(self) -> None:
        """The server takes messages again."""

    def ticked(self) -> None:
        """Once a second."""

    def later(self, seconds: float, function: Callable[[], None]) -> None:
        self._loop.call_later(seconds, function)

    def _tick(self) -> None:
        self.ticked_at = clock.monotonic()
        self.ticked()
        self._loop.call_later(1.0, self._tick)

    def _begin(self) -> None:
        self._connect()
        self._tick()

    def _connect(self) -> None:
        if self._stopping:
            return
        try:
            if not self._candidates:
                self._candidates = parameters(self.host, self.purpose)
            self._opening = JoinedConnection(
                self._candidates.pop(),
                on_open_callback=self._on_open,
                on_open_error_callback=self._on_open_error,
                on_close_callback=self._on_close,
                custom_ioloop=self._loop,
            )
        except Exception as error:  # certificates, for one, may be missing for a moment
            self._candidates = []
            self._gone(explain(error))

    def _on_open(self, connection: Any) -> None:
        self.server = connection.server
        if self.error not in ("", "not connected yet"):
            logger.warning("Connected to %s again (%s).", self.host, self.purpose)
        self._opening = None
        self._connection, self.error, self._delay = connection, "", FIRST_DELAY
        self._candidates = []
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)
        self._connected.set()
        if self._stopping:
            self._begin_stop()
        else:
            self.opened(connection)

    def _on_open_error(self, connection: Any, error: BaseException | str) -> None:
        self._opening = None
        self._gone(explain(error) if isinstance(error, BaseException) else error)

    def _on_blocked(self, _connection: Any, frame: Any) -> None:
        # No time limit: it is alive, as its heartbeats show, and would block the next connection as well.
        self.blocked = f"takes no messages: {frame.method.reason}"
        logger.warning("%s %s (%s). Tasks wait in the database until it does.", self.host, self.blocked, self.purpose)

    def _on_unblocked(self, _connection: Any, _frame: Any) -> None:
        self.blocked = ""
        logger.warning("%s takes messages again (%s).", self.host, self.purpose)
        self.unblocked()

    def _on_close(self, connection: Any, error: BaseException) -> None:
        self._connection, self.blocked = None, ""
        self._connected.clear()
        self.lost()
        self._gone(explain(error))

    def _gone(self, why: str) -> None:
        if self._stopping:
            self._loop.stop()
            return
        if why != self.error:
            logger.warning("No connection to %s (%s): %s. Trying again.", self.host, self.purpose, why)
        self.error = why
        if self._candidates:  # another address of the same virtual host may be up
            self._loop.call_later(0, self._connect)
            return
        self._loop.call_later(self._delay * random.uniform(0.5, 1.5), self._connect)  # noqa: S311
        self._delay = min(LAST_DELAY, self._delay * 2)

    def _begin_stop(self) -> None:
        self._stopping = True
        connection = self._connection
        if self._opening is not None:
            self._give_up(self._opening)
        elif connection is None or connection.is_closed:
            self._loop.stop()
        elif not connection.is_closing:
            connection.drop() if self.blocked else connection.close()

    def _give_up(self, opening: JoinedConnection) -> None:
        """Ends an attempt to connect, whose socket would stay open, and then the loop.

        At some moments pika cannot end it; the loop ends at once then.
        """
        try:
            opening.abandon()
        except Exception as error:
            logger.debug("The attempt to connect to %s cannot be aborted: %s", self.host, explain(error))
            self._loop.stop()
        else:
            self._loop.call_later(ABORT, self._loop.stop)
