"""Functions whose parameters go by secret names."""

from typing import Any

from carrot import task


def log_in(user: str, password: str, retries: int = 3) -> None:
    """Published by code; not registered."""


@task(redact=["Card", "pin"])
def pay(card: str, amount: int, *tokens: str, note: str = "") -> None:
    """Says itself what is secret."""


def collect(*passwords: str, **more: Any) -> None:
    """Takes any number of secrets."""


def greet(name: str, times: int = 1) -> None:
    """Published by code; not registered; nothing secret."""
