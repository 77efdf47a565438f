"""What is around the site of the demo: its environment, its directories, its processes, and a visitor with a browser.

Standard library only: this package makes the environment that everything else is installed into.
"""

from __future__ import annotations


class DemoError(Exception):
    """The demo cannot go on; the text is one sentence with the cure."""
