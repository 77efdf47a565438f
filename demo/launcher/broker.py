"""Whether anybody answers at the address of a broker, asked before anything else is done.

Looks at the address alone. The rest of the URL is for carrot to read, and to try, once it is installed.
"""

from __future__ import annotations

import queue
import re
import socket
import ssl
import threading

from launcher import DemoError

#: Seconds for name lookup, TCP, TLS and the first byte, of all hosts together.
PATIENCE = 7.0
#: What a client of AMQP 0-9-1 says first; a broker answers with a method frame, which begins with a 1.
GREETING = b"AMQP\x00\x00\x09\x01"
METHOD_FRAME = b"\x01"
EMBEDDED = "database://"
PORTS = {"amqp": 5672, "amqps": 5671}

#: The password goes on to the last "@": it may hold anything that its owner forgot to encode.
_URL = re.compile(
    r"(?P<scheme>amqps?)://(?:(?P<login>.*)@)?(?P<hosts>[^/?#@]+)(?P<path>/[^?#]*)?(?:\?.*)?", re.IGNORECASE
)
_HOST = re.compile(r"(?P<name>\[[^\]]+\]|[^:]+)(?::(?P<port>[0-9]{1,5}))?")


def reach(url: str) -> str:
    """Return ``url`` if an AMQP broker answers at one of its hosts within seven seconds.

    Raises DemoError, whose text never holds the password.
    """
    if url == EMBEDDED:
        return url
    parts = _URL.fullmatch(url)
    hosts = [_HOST.fullmatch(text) for text in parts["hosts"].split(",")] if parts else []
    if parts is None or not all(hosts):
        raise DemoError("--broker is no URL of a broker; write it as amqp://user:password@host:5672/vhost.")
    scheme = parts["scheme"].lower()
    answers: queue.SimpleQueue[str] = queue.SimpleQueue()

    def ask(name: str, port: int) -> None:
        answers.put(_ask(name.strip("[]"), port, tls=scheme == "amqps"))

    for host in filter(None, hosts):
        # In threads of their own: the lookup of a name has no timeout.
        address = (host["name"], int(host["port"] or PORTS[scheme]))
        threading.Thread(target=ask, args=address, daemon=True).start()
    found = "nobody answers"
    for _ in hosts:
        try:
            found = answers.get(timeout=PATIENCE)
        except queue.Empty:
            break
        if not found:
            return url
    login = f"{parts['login'].split(':')[0]}:***@" if parts["login"] else ""
    masked = f"{scheme}://{login}{parts['hosts']}{parts['path'] or ''}"
    raise DemoError(f"The broker {masked} is not reached ({found}): start it, or correct --broker.")


def _ask(host: str, port: int, *, tls: bool) -> str:
    """What is wrong at one address; empty if a broker answers."""
    try:
        with socket.create_connection((host, port), timeout=PATIENCE - 1) as connection:
            if tls:
                # Whose certificate it is matters where a password is sent, and carrot does that.
                context = ssl.create_default_context()
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                with context.wrap_socket(connection, server_hostname=host) as secured:
                    secured.sendall(GREETING)
                    answer = secured.recv(1)
            else:
                connection.sendall(GREETING)
                answer = connection.recv(1)
    except (OSError, UnicodeError, OverflowError) as error:
        return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
    return "" if answer == METHOD_FRAME else "what answers there is no AMQP broker"
