"""A module of tasks whose texts are hostile: names of parameters cannot be, all else can."""

from __future__ import annotations

from tests.security.hostile import text

MARK = "xq7za"


def charge(card: str = text("markup", MARK), note: str = text("closer", MARK)) -> None:
    pass


charge.__doc__ = text("markup", MARK)
