"""Marks that many tests share."""

from __future__ import annotations

import pytest

#: For tests whose threads have connections of their own: real commits. Afterwards our tables alone are emptied, without
#: the signals that make content types and permissions anew, which would take most of the time.
committing = pytest.mark.django_db(transaction=True, available_apps=["carrot", "tests.app"])
