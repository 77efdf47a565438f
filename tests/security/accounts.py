"""Users of RabbitMQ with the rights that a test gives them and takes away."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from urllib.parse import quote

from tests.security.secret import PASSWORD
from tests.servers import RabbitMQ


class Account:
    """A user of the virtual host ``vhost``. Its rights are regular expressions, as RabbitMQ takes them."""

    def __init__(self, rabbitmq: RabbitMQ, vhost: str, password: str = PASSWORD) -> None:
        self.name = f"user-{uuid.uuid4().hex[:12]}"
        self.vhost = vhost
        self._rabbitmq = rabbitmq
        self._call("add_user", self._user, binary(password), binary("tests"))

    @property
    def _user(self) -> str:
        return binary(self.name)

    def url(self, password: str = PASSWORD, vhost: str | None = None) -> str:
        name = quote(self.vhost if vhost is None else vhost, safe="")
        return f"amqp://{self.name}:{quote(password, safe='')}@127.0.0.1:{self._rabbitmq.port}/{name}"

    def grant(self, configure: str = ".*", write: str = ".*", read: str = ".*") -> None:
        rights = ", ".join(map(binary, (configure, write, read)))
        self._call("set_permissions", self._user, binary(self.vhost), rights, binary("tests"))

    def revoke(self) -> None:
        """Takes all rights away; connections stay."""
        self._call("clear_permissions", self._user, binary(self.vhost), binary("tests"))

    def change_password(self, password: str) -> None:
        self._call("change_password", self._user, binary(password), binary("tests"))

    def remove(self) -> None:
        self._call("delete_user", self._user, binary("tests"))

    def knocks(self) -> list[datetime]:
        """When the server wrote that this user had come, let in or not."""
        came = f"login refused: user '{self.name}'", f"access to vhost '{self.vhost}' refused for user '{self.name}'"
        let_in = f"user '{self.name}' authenticated and granted access"
        lines = self._rabbitmq.log.read_text(errors="replace").splitlines()
        return [datetime.fromisoformat(line[:26]) for line in lines if any(text in line for text in (*came, let_in))]

    def _call(self, function: str, *arguments: str) -> None:
        self._rabbitmq.evaluate(f"rabbit_auth_backend_internal:{function}({', '.join(arguments)})")


def binary(text: str) -> str:
    """An Erlang binary."""
    return f"<<{','.join(map(str, text.encode()))}>>"


@contextmanager
def account_on(rabbitmq: RabbitMQ, vhost: str) -> Iterator[Account]:
    account = Account(rabbitmq, vhost)
    try:
        yield account
    finally:
        rabbitmq.start()
        account.remove()
