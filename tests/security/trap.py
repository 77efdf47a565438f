"""A module that nobody asks for: whoever imports it has believed a stranger."""

raise AssertionError("imported on the word of a stranger")
