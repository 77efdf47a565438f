"""Sites, people and rows of the tests of the monitor."""

from __future__ import annotations

from typing import Any

import pytest

from tests.admin.conftest import log_in, make_task  # noqa: F401  # fixtures
from tests.security.addresses import SITES, URLCONF


def pytest_itemcollected(item: pytest.Item) -> None:
    """They visit every page again and again."""
    item.add_marker("slow")


@pytest.fixture(params=SITES)
def root(request: pytest.FixtureRequest, settings: Any) -> str:
    """The address of each site in turn, in a project that has both."""
    settings.ROOT_URLCONF = URLCONF
    return SITES[request.param][0]
