"""Sites, people and rows of the tests of the monitor."""

from __future__ import annotations

from typing import Any

import pytest

from tests.admin.conftest import log_in, make_task  # noqa: F401  # fixtures
from tests.security.addresses import SITES, URLCONF


# The sites answer with the same views, so the fast tests are content with one of them.
@pytest.fixture(params=["stock", pytest.param("own", marks=pytest.mark.slow)])
def root(request: pytest.FixtureRequest, settings: Any) -> str:
    """The address of each site in turn, in a project that has both."""
    settings.ROOT_URLCONF = URLCONF
    return SITES[request.param][0]
