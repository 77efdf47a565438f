"""An app whose tasks work on real files: the sources of Python's standard library."""
