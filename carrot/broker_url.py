"""The grammar of broker URLs: `amqp[s]://user:password@host:port,host:port/name?option=value`, or `database://`.

Receives text of the settings; hands on its parts, decoded, or an error. An error shows of the text only what comes
after the last `@` and before any `/` or `?`: everything else may be a piece of a password that was not encoded.
"""

from __future__ import annotations

import difflib
import hashlib
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import quote, unquote_to_bytes

from django.views.decorators.debug import sensitive_variables

from carrot.exceptions import CarrotConfigException

DEFAULT_PORTS = {"amqp": 5672, "amqps": 5671}
DEFAULT_NAME = "/"
#: Bytes of a name. A password may be longer: RabbitMQ takes tokens (OAuth 2) as passwords.
MAX_NAME = 255
#: Characters of an address: several hosts, or a name in percent-encoding, may be longer.
MAX_ADDRESS = 255

# What the query part of a URL may say; `brokers/amqp` decides about all other limits of a connection.
TLS_OPTIONS = ("cafile", "certfile", "keyfile")
OPTIONS = ("heartbeat", *TLS_OPTIONS)

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?", re.ASCII)
_IPV6 = re.compile(r"[0-9A-Fa-f:.]+(%[A-Za-z0-9_.-]+)?", re.ASCII)
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_EXAMPLE = 'Write it as "amqp://user:password@host:5672/name" or "database://".'
_ENCODE = (
    "In a user, a password and a name write @ as %40, : as %3A, / as %2F, # as %23, % as %25, ? as %3F and [ as %5B, "
    'or use the dict form: {"host": …, "username": …, "password": …}.'
)


@dataclass(frozen=True, kw_only=True)
class BrokerURL:
    """The parts of a broker URL, decoded and checked."""

    scheme: str
    hosts: tuple[tuple[str, int], ...] = ()
    name: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    options: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def write(self, password: str) -> str:
        """The whole URL, with `password` (encoded or masked) in the password's place."""
        if self.scheme == "database":
            return "database://"
        query = "&".join(f"{key}={quote(value, safe='/:')}" for key, value in self.options)
        # Written also where both are empty: without them they would be read as guest.
        user = f"{quote(self.username, safe='')}:{password}@"
        return f"{self.scheme}://{user}{self._location()}" + (f"?{query}" if query else "")

    def write_address(self) -> str:
        """The URL without user, password and options. A long one ends with a digest, as a row has room for no more."""
        address = "database://" if self.scheme == "database" else f"{self.scheme}://{self._location()}"
        if len(address) <= MAX_ADDRESS:
            return address
        digest = hashlib.sha256(address.encode()).hexdigest()[:8]
        return f"{address[: MAX_ADDRESS - len(digest) - 1]}…{digest}"

    def _location(self) -> str:
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        # RabbitMQ's documents write the default virtual host in lower case.
        return f"{hosts}/{'%2f' if self.name == DEFAULT_NAME else quote(self.name, safe='')}"


@sensitive_variables()
def parse_url(url: object) -> BrokerURL:
    """The parts of `url`. Raises `CarrotConfigException`, without a password in its text."""
    if not isinstance(url, str):
        raise CarrotConfigException(f"A broker's URL is of type {type(url).__name__}. {_EXAMPLE}")
    scheme, rest = _split_scheme(url.strip())
    if scheme == "database":
        if rest.strip("/"):
            raise CarrotConfigException(
                'A broker\'s URL says "database://" and then more: the embedded broker lives in the database that '
                'the model MessageLog is routed to, and needs nothing else. Write "database://".'
            )
        return BrokerURL(scheme=scheme)
    authority, path, query = _split_rest(scheme, rest)
    user, at, hosts = authority.rpartition("@")
    username, colon, password = user.partition(":")
    shown = f"{scheme}://…@{hosts}" if at else f"{scheme}://…"
    if not hosts:
        raise CarrotConfigException(f"A broker's URL ({shown}) names no host. {_EXAMPLE}")
    return BrokerURL(
        scheme=scheme,
        # Without an @ what looks like a port may be a password whose host was forgotten, so it is not shown.
        hosts=parse_hosts(hosts, DEFAULT_PORTS[scheme], show=bool(at), in_url=True),
        name=parse_name(path),
        username=_decode(username, "user") if at else "guest",
        password=_decode(password, "password", limit=None) if colon else ("" if at else "guest"),
        options=_parse_options(query, scheme, shown),
    )


@sensitive_variables()
def _split_scheme(url: str) -> tuple[str, str]:
    match = _SCHEME.match(url)
    if match is None:
        raise CarrotConfigException(f"A broker's URL does not begin with a scheme such as amqp://. {_EXAMPLE}")
    scheme = match[1].lower()
    allowed = (*DEFAULT_PORTS, "database")
    if scheme not in allowed:
        raise CarrotConfigException(
            f"A broker's URL begins with {scheme[:20]}://; allowed are amqp://, amqps:// (TLS) and database://. "
            f"{_EXAMPLE}"
        )
    return scheme, url[match.end() :]


@sensitive_variables()
def _split_rest(scheme: str, rest: str) -> tuple[str, str, str]:
    """Authority, name and query, the two latter without their mark."""
    match = re.match(r"([^/?#]*)([^?#]*)(?:\?([^#]*))?", rest)
    assert match is not None  # every part may be empty
    authority, path, query = match[1], match[2], match[3] or ""
    # A raw / # or ? in a password ends the authority early, and the @ that belongs before the host comes after it.
    if "#" in rest or "@" in path + query or authority.count("@") > 1:
        raise CarrotConfigException(
            f"A broker's URL ({scheme}://…) has a # or an @ where none may be: its user, password or name holds a "
            f"character that is not percent-encoded. {_ENCODE}"
        )
    path = "/" if path == "//" else path.removeprefix("/")
    if "/" in path and path != "/":
        raise CarrotConfigException(
            f"The virtual host's name in a broker's URL ({scheme}://…) holds a /. In a name write / as %2F, and "
            "leave the / at the end out."
        )
    return authority, path, query


def parse_hosts(
    text: str, default_port: object, *, show: bool = True, in_url: bool = False
) -> tuple[tuple[str, int], ...]:
    """Hosts with their ports from `host:port,host`. Raises `CarrotConfigException`; shows them only if `show`."""
    port = _parse_port(default_port, "the port")
    show = show and "@" not in text  # a whole URL where a host belongs: it may hold a password
    if not in_url and _is_ipv6(text):
        return ((text.lower(), port),)
    found = []
    for position, item in enumerate(text.split(","), start=1):
        which = f"host {position} of {text.count(',') + 1}" + (f", {item[:100]!r}," if show else "")
        match = re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]*)(?::([^:]*))?", item.strip())
        if match is None:
            raise CarrotConfigException(
                f"In a broker, {which} is not a host or host:port. An IPv6 address is written in brackets: [::1]:5672."
            )
        host = match[1].strip("[]").lower()
        if not host:
            raise CarrotConfigException(
                f"In a broker, {which} is empty. Name a host, and write a comma only between two hosts. {_EXAMPLE}"
            )
        if not (_is_ipv6(host) if match[1].startswith("[") else _HOST.fullmatch(host)):
            raise CarrotConfigException(
                f"In a broker, {which} is not a host name or address: letters, digits, dots and hyphens are allowed. "
                f"If it is a piece of a password: {_ENCODE}"
            )
        found.append((host, port if match[2] is None else _parse_port(match[2], f"the port of {which}", show=show)))
    return tuple(found)


def parse_name(text: str) -> str:
    """The decoded name of a virtual host; empty means the default one, `/`."""
    return _decode(text, "virtual host's name") or DEFAULT_NAME


def _parse_port(value: object, what: str, *, show: bool = True) -> int:
    number = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 6 else value
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= 65535:
        # Python turns no number of thousands of digits into text.
        shown = f" {value!r}" if show and isinstance(value, (int, float)) and abs(value) < 1e9 else ""
        raise CarrotConfigException(
            f"In a broker, {what.rstrip(',')} is not valid{':' if shown else ''}{shown}. "
            "Write a whole number from 1 to 65535, or leave it out for 5672 (5671 with TLS)."
        )
    return number


@sensitive_variables()
def _decode(text: str, what: str, limit: int | None = MAX_NAME) -> str:
    if _BAD_PERCENT.search(text):
        raise CarrotConfigException(
            f"The {what} in a broker's URL has a % that is not followed by two hexadecimal digits. {_ENCODE}"
        )
    # Nothing is raised in here: the error would hold the text.
    data = unquote_to_bytes(text.encode("utf-8", "surrogatepass"))
    decoded = data.decode("utf-8", "replace")
    if decoded.encode() != data:
        raise CarrotConfigException(f"The {what} in a broker's URL is not UTF-8 once it is decoded. {_ENCODE}")
    return check_text(decoded, f"{what} in a broker's URL", limit)


@sensitive_variables()
def check_text(text: str, what: str, limit: int | None = MAX_NAME) -> str:
    """The text, if it can go over the wire; ``limit`` in bytes. Raises `CarrotConfigException` otherwise."""
    data = text.encode("utf-8", "surrogatepass")
    if _CONTROL.search(text) or data.decode("utf-8", "ignore") != text:
        raise CarrotConfigException(f"The {what} holds a control character or a lone surrogate. Remove it.")
    if limit is not None and len(data) > limit:
        raise CarrotConfigException(f"The {what} is longer than {limit} bytes, which AMQP cannot carry.")
    return text


def _parse_options(query: str, scheme: str, shown: str) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for pair in filter(None, query.split("&")):
        key, _, raw = pair.partition("=")
        value = _decode(raw, f"option {key[:40]}")
        if key not in OPTIONS:
            raise CarrotConfigException(
                f"A broker's URL ({shown}) has the unknown option {key[:40]!r}; allowed are {', '.join(OPTIONS)}."
                + suggestion(key, OPTIONS)
            )
        if key in found:
            raise CarrotConfigException(f"A broker's URL ({shown}) has the option {key} twice. Write it once.")
        if key in TLS_OPTIONS and scheme != "amqps":
            raise CarrotConfigException(f"A broker's URL ({shown}) has the TLS option {key}. Begin it with amqps://.")
        if key == "heartbeat" and not (re.fullmatch("[0-9]{1,4}", value) and 1 <= int(value) <= 3600):
            raise CarrotConfigException(
                f"A broker's URL ({shown}) has the heartbeat {value[:40]!r}. Write whole seconds, from 1 to 3600."
            )
        if not value:
            raise CarrotConfigException(f"A broker's URL ({shown}) has the option {key} without a value. Write a path.")
        found[key] = value
    if "keyfile" in found and "certfile" not in found:
        raise CarrotConfigException(f"A broker's URL ({shown}) has a keyfile without a certfile. Add the certfile.")
    return tuple(sorted(found.items()))


def suggestion(word: object, allowed: Iterable[str]) -> str:
    """` Did you mean …?` if one of `allowed` is near to `word`, else nothing."""
    names = {name.lower(): name for name in allowed}
    near = difflib.get_close_matches(word.lower()[:100], names, n=1, cutoff=0.6) if isinstance(word, str) else ()
    return f" Did you mean {names[near[0]]!r}?" if near else ""


def _is_ipv6(text: str) -> bool:
    # What Python takes for the name of an interface may hold anything.
    if not _IPV6.fullmatch(text):
        return False
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
