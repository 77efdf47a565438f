"""The wire format: how a message looks in the broker.

Receives a `Message` and hands on plain dictionaries and text, which `carrot.brokers` turns into AMQP; reads what other
programs put into a queue. The format is that of 1.x: the header ``type`` is the dotted path of the task, the property
``message_id`` its uuid, the body ``{"args": […], "kwargs": {…}}``. Programs without carrot may read and write it.

Whatever a stranger's message holds, reading it gives a value or `MessageFormatError`, and imports nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID

from carrot.arguments import encode_arguments, to_json
from carrot.conf import get_settings
from carrot.exceptions import InvalidArguments, MessageFormatError

if TYPE_CHECKING:
    from carrot.message import Message

#: the version of carrot's own header
VERSION = 2

#: what a body may be longer than its arguments, in bytes: names, brackets, and a foreign program's white space
_ENVELOPE = 1024

_MAX_TASK = 1000


class BaseMessageSerializer:
    """What a serializer has to offer; subclass it for another format and name it in a consumer's ``serializer``."""

    #: the header that holds the dotted path of the task
    type_header = "type"
    #: the property ``type`` of every message
    message_type = ""
    content_type = "application/json"

    def __init__(self, message: Message | None = None, *, site: str | None = None) -> None:
        """Without a message it only reads. ``site`` tells apart the projects that share a broker."""
        self._message = message
        self.site = site

    @property
    def message(self) -> Message:
        if self._message is None:
            raise MessageFormatError(f"This {type(self).__name__} was made without a message: it can only read.")
        return self._message

    def get_task(self, properties: Any, body: bytes | str) -> str:
        """The dotted path of the task. Raises `MessageFormatError`."""
        raise NotImplementedError(f"{type(self).__name__} must define get_task(properties, body)")

    def serialize_arguments(self, body: bytes | str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The positional and keyword arguments in a body. Raises `MessageFormatError`."""
        raise NotImplementedError(f"{type(self).__name__} must define serialize_arguments(body)")

    def body(self) -> str:
        """The body of the message."""
        raise NotImplementedError(f"{type(self).__name__} must define body()")

    def properties(self) -> dict[str, Any]:
        """The properties of the message, by the names that AMQP gives them."""
        raise NotImplementedError(f"{type(self).__name__} must define properties()")

    def publish_kwargs(self) -> dict[str, Any]:
        """All that is needed to publish the message: exchange, routing_key, body, properties, mandatory."""
        return {
            "exchange": self.message.exchange,
            "routing_key": self.message.routing_key,
            "body": self.body(),
            "properties": self.properties(),
            # Unroutable messages come back instead of vanishing.
            "mandatory": True,
        }


class DefaultMessageSerializer(BaseMessageSerializer):
    """The format of carrot, 1.x and 2."""

    message_type = "django-carrot message"

    def get_task(self, properties: Any, body: bytes | str) -> str:
        """The dotted path in the header ``type``; nothing is imported or looked up. Raises `MessageFormatError`."""
        task = _headers(properties).get(self.type_header)
        if not isinstance(task, str) or not task.strip():
            raise MessageFormatError(
                f"The message has no text in its header {self.type_header!r}: the dotted path of a task belongs there."
            )
        if len(task) > _MAX_TASK or not task.isprintable():
            raise MessageFormatError(f"The header {self.type_header!r} holds {task[:50]!r}…, which is no dotted path.")
        return task

    def get_uuid(self, properties: Any) -> UUID:
        """The id in the property ``message_id``. Raises `MessageFormatError`."""
        found = _property(properties, "message_id")
        try:
            return UUID(found)
        except (TypeError, ValueError, AttributeError):
            _refuse(f"The property message_id is {found!r:.60}, which is no uuid.")

    def get_site(self, properties: Any) -> str | None:
        """The id of the carrot installation that sent the message; None if another program or carrot 1.x did."""
        try:
            own = _headers(properties).get("carrot")
        except MessageFormatError:
            return None
        site = own.get("site") if isinstance(own, Mapping) else None
        return site if isinstance(site, str) else None

    def serialize_arguments(self, body: bytes | str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments in a body ``{"args": […], "kwargs": {…}}``; either key may be missing, others are ignored.

        What it returns can be stored and published: size, depth and characters are checked.

        Raises `MessageFormatError`.
        """
        limit = get_settings().max_arguments_size
        content = _parsed(body, limit + _ENVELOPE)
        if not isinstance(content, dict):
            _refuse(f"The body is a JSON {_json_type(content)}; it must be an object with the keys args and kwargs.")
        args, kwargs = content.get("args", []), content.get("kwargs", {})
        if not isinstance(args, list):
            _refuse(f"The key args of the body is a JSON {_json_type(args)}; it must be an array.")
        if not isinstance(kwargs, dict):
            _refuse(f"The key kwargs of the body is a JSON {_json_type(kwargs)}; it must be an object.")
        try:
            encode_arguments(args, kwargs, limit)
        except InvalidArguments as error:
            raise MessageFormatError(f"The body has arguments that cannot be stored. {error}") from error
        return tuple(args), kwargs

    def body(self) -> str:
        """The body; the arguments of a `Message` are JSON already, so this does not fail."""
        return to_json({"args": self.message.args, "kwargs": self.message.kwargs})

    def properties(self) -> dict[str, Any]:
        """The properties, persistent (``delivery_mode`` 2), with carrot's own header ``{"site": …, "v": 2}``."""
        own: dict[str, Any] = {"v": VERSION} if self.site is None else {"site": self.site, "v": VERSION}
        return {
            "headers": {self.type_header: self.message.task, "carrot": own},
            "message_id": str(self.message.uuid),
            "content_type": self.content_type,
            "type": self.message_type,
            "priority": self.message.priority,
            "delivery_mode": 2,
        }


def _refuse(text: str) -> NoReturn:
    raise MessageFormatError(text)


def _property(properties: Any, name: str) -> Any:
    """A property of a mapping or of an object such as pika's BasicProperties; None if it has no such."""
    return properties.get(name) if isinstance(properties, Mapping) else getattr(properties, name, None)


def _headers(properties: Any) -> Mapping[Any, Any]:
    headers = _property(properties, "headers")
    if not isinstance(headers, Mapping):
        _refuse("The message has no headers; the header 'type' with the dotted path of a task is needed.")
    return headers


def _parsed(body: object, limit: int) -> Any:
    """What a body says; ``limit`` is in bytes. The text of an error never quotes the body, which may hold secrets."""
    if not isinstance(body, (bytes, bytearray, memoryview, str)):
        _refuse(f"The body is of type {type(body).__name__}; it must be bytes or text.")
    if len(body) > limit:
        _refuse(f"The body is {len(body):,} bytes long; {limit:,} are allowed.")
    try:
        text = body if isinstance(body, str) else str(bytes(body), "utf-8")
        return json.loads(text, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise MessageFormatError(
            f"The body is not UTF-8 text (byte {error.start}); it must be JSON, "
            "neither compressed nor in another encoding."
        ) from None
    except RecursionError:
        raise MessageFormatError("The body is nested too deeply.") from None
    except ValueError as error:
        reason = f"{error.msg}, character {error.pos}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise MessageFormatError(f"The body is not JSON: {reason}.") from None


def _refuse_constant(name: str) -> NoReturn:
    raise MessageFormatError(f"The body holds {name}, which is not JSON.")


def _json_type(value: object) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    names: dict[type, str] = {dict: "object", list: "array", str: "string"}
    return names.get(type(value), "number")
