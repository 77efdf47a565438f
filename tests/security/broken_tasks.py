"""A module of tasks that cannot be imported, for a reason that is hostile."""

from tests.security.hostile import text

raise RuntimeError(text("markup", "xq7zb"))
