"""Functions whose parameters go by secret names."""


def log_in(user: str, password: str, retries: int = 3) -> None:
    """Published by code; not registered."""


def greet(name: str, times: int = 1) -> None:
    """Published by code; not registered; nothing secret."""
