"""A virtual host: where a broker is and how to log in to it.

Receives a URL, a dict of the settings or keyword arguments; hands on a value that knows two ways to write itself:
`url` with the password, for the wire alone, and everything else (`str`, `repr`, `address`) without.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn
from urllib.parse import quote

from django.views.decorators.debug import sensitive_variables

from carrot.broker_url import DEFAULT_PORTS, BrokerURL, check_text, parse_hosts, parse_name, parse_url, suggestion
from carrot.exceptions import CarrotConfigException

DICT_KEYS = ("url", "host", "name", "port", "username", "password", "secure")


class VirtualHost:
    """The address and the credentials of a broker: RabbitMQ (`amqp`, `amqps`) or the embedded one (`database`).

    Immutable, hashable, equal by content. It cannot be pickled, because a pickle would hold the password in clear;
    copying it, also within `dataclasses.asdict`, gives the same object.

    `url` may name several hosts, of which any may be used: `amqp://user:password@rabbit1:5672,rabbit2:5672/site`.
    User, password and name are percent-encoded in a URL and in `name`, and plain in `username` and `password`.
    Without `url` the other arguments count; `name="%2f"` is RabbitMQ's default virtual host `/`. `secure` means TLS.

    Raises `CarrotConfigException` for anything a broker could not be reached with; its text never holds the password.
    """

    __slots__ = ("_parts",)
    _parts: BrokerURL

    @sensitive_variables()
    def __init__(
        self,
        url: str | None = None,
        host: str = "localhost",
        name: str = "%2f",
        port: int = 5672,
        username: str = "guest",
        password: str = "guest",
        secure: bool = False,
    ) -> None:
        if url is not None:
            others: tuple[object, ...] = (host, name, port, username, password, secure)
            defaults = ("localhost", "%2f", 5672, "guest", "guest", False)
            if any(type(one) is not type(other) or one != other for one, other in zip(others, defaults, strict=True)):
                raise CarrotConfigException(
                    "A virtual host was given both a url and some of host, name, port, username, password, secure. "
                    "The url holds them all: give one or the other."
                )
            parts = parse_url(url)
        else:
            _check_types(host=host, name=name, username=username, password=password)
            if not isinstance(secure, bool):
                raise CarrotConfigException(
                    f"The broker's secure is of type {type(secure).__name__}; write True or False."
                )
            parts = BrokerURL(
                scheme="amqps" if secure else "amqp",
                hosts=parse_hosts(host, port),
                name=parse_name(name),
                username=check_text(username, "broker's username"),
                password=check_text(password, "broker's password", limit=None),
            )
        object.__setattr__(self, "_parts", parts)

    @classmethod
    @sensitive_variables()
    def parse(cls, value: str | Mapping[str, Any] | VirtualHost) -> VirtualHost:
        """The virtual host that a setting means: a URL, a dict of URL or parts, or a virtual host, which is returned.

        A dict has either the key `url` or any of `host`, `name`, `port`, `username`, `password` and `secure`, with
        the defaults of the constructor; with `secure` the default port is 5671.

        Raises `CarrotConfigException` if it is none of these, or not one a broker could be reached with.
        """
        if isinstance(value, VirtualHost):
            return value
        if isinstance(value, str):
            return cls(value)
        if not isinstance(value, Mapping):
            raise CarrotConfigException(
                f"A broker is of type {type(value).__name__}; write a URL such as "
                '"amqp://user:password@host:5672/name" or "database://", or a dict with "url", or with '
                f"{', '.join(DICT_KEYS[1:])}."
            )
        unknown: list[object] = [key for key in value if key not in DICT_KEYS]
        for key in unknown:
            # A key that looks like no key may be a URL with its password, in a dict by mistake.
            harmless = key.isidentifier() if isinstance(key, str) else isinstance(key, int) and abs(key) < 1e9
            shown = repr(key)[:60] if harmless else "(not shown)"
            raise CarrotConfigException(
                f"A broker's dict has the unknown key {shown}; allowed are {', '.join(DICT_KEYS)}."
                + suggestion(key, DICT_KEYS)
            )
        if value.get("url") is None and "url" in value:
            raise CarrotConfigException("A broker's url is None; write a URL, or leave the key out.")
        arguments = dict(value)
        if arguments.get("secure") is True and "url" not in arguments:
            arguments.setdefault("port", DEFAULT_PORTS["amqps"])
        return cls(**arguments)

    @property
    def scheme(self) -> str:
        """`amqp`, `amqps` or `database`."""
        return self._parts.scheme

    @property
    def hosts(self) -> tuple[tuple[str, int], ...]:
        """Each host with its port, in the order they were given; empty for the embedded broker."""
        return self._parts.hosts

    @property
    def host(self) -> str:
        """The first host; empty for the embedded broker."""
        return self.hosts[0][0] if self.hosts else ""

    @property
    def port(self) -> int:
        """The port of the first host; 0 for the embedded broker."""
        return self.hosts[0][1] if self.hosts else 0

    @property
    def name(self) -> str:
        """The virtual host's name as the broker knows it, decoded: `/` is the default one."""
        return self._parts.name

    @property
    def username(self) -> str:
        """The user, decoded."""
        return self._parts.username

    @property
    def password(self) -> str:
        """The password, decoded: for the wire alone."""
        return self._parts.password

    @property
    def secure(self) -> bool:
        """Whether the connection uses TLS."""
        return self.scheme == "amqps"

    @property
    def options(self) -> Mapping[str, str]:
        """What the query part of the URL says: any of `heartbeat` (seconds), `cafile`, `certfile` and `keyfile`."""
        return dict(self._parts.options)

    @property
    def is_database(self) -> bool:
        """Whether this is the embedded broker, whose queue is the rows themselves."""
        return self.scheme == "database"

    @property
    def url(self) -> str:
        """The URL with the password: for the wire alone, never for a log, a row or a page."""
        return self._parts.write(quote(self.password, safe=""))

    @property
    def address(self) -> str:
        """Where the broker is, for rows, logs and pages: neither user nor password nor options."""
        return self._parts.write_address()

    def __str__(self) -> str:
        return self._parts.write("***")

    def __repr__(self) -> str:
        return f"<VirtualHost {self}>"

    def __format__(self, specification: str) -> str:
        return format(str(self), specification)

    def __eq__(self, other: object) -> bool:
        return self._parts == other._parts if isinstance(other, VirtualHost) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._parts)

    def __copy__(self) -> VirtualHost:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> VirtualHost:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            f"{self!r} is not pickled, because a pickle would hold its password in clear. "
            "Pass the name of the queue on, and read its virtual host from the settings at the other end."
        )

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"A VirtualHost does not change: make a new one instead of setting its {name}.")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"A VirtualHost does not change: its {name} cannot be deleted.")


def _check_types(**texts: object) -> None:
    for name, text in texts.items():
        if not isinstance(text, str):
            raise CarrotConfigException(f"The broker's {name} is of type {type(text).__name__}; write a string.")
