"""Things that are done one after the other, each with what became of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from launcher import DemoError
from launcher.processes import LOOK


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thing that was done."""

    what: str
    #: the path or the command
    where: str
    #: seconds
    took: float
    #: what is wrong, in words; empty if nothing is
    problem: str


class _Failed(Exception):
    """A step went wrong, so that those after it cannot be done."""


class Steps:
    """Collects steps. Where one goes wrong its way ends, and the next way begins."""

    def __init__(self) -> None:
        self.taken: list[Step] = []

    def walk(self, *ways: Callable[[], None]) -> None:
        """Go each of the ways, which consist of steps, to its end or to its first step that goes wrong."""
        for way in ways:
            try:
                way()
            except _Failed:
                continue  # its step says so

    @contextmanager
    def step(self, what: str, where: str) -> Iterator[None]:
        """What is done within is one step; a DemoError in it says what is wrong."""
        begun = time.monotonic()
        problem = ""
        try:
            yield
        except DemoError as error:
            problem = str(error)
            raise _Failed from error
        finally:
            self.taken.append(Step(what=what, where=where, took=time.monotonic() - begun, problem=problem))


def expect(right: bool, otherwise: str) -> None:
    """Raises DemoError with the text, unless all is right."""
    if not right:
        raise DemoError(otherwise)


def wait_until(is_so: Callable[[], bool], seconds: float, otherwise: Callable[[], str]) -> None:
    """Block until it is so. Raises DemoError with the text if that takes too long."""
    ends = time.monotonic() + seconds
    while not is_so():
        expect(time.monotonic() < ends, f"after {seconds:g} s {otherwise()}")
        time.sleep(LOOK)
