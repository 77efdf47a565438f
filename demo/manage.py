#!/usr/bin/env python
"""Django's command line for the demo's site; `demo/.state/sites/*/manage` calls it with the right environment."""

import os
import sys


def main() -> None:
    """Run an administrative command."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
