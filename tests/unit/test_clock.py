"""The clock."""

from __future__ import annotations

import datetime

import pytest
from django.test import override_settings

from carrot import clock


@pytest.mark.parametrize("use_tz", [True, False])
def test_now_is_aware_as_the_project_wants_it(use_tz: bool) -> None:
    with override_settings(USE_TZ=use_tz):
        assert (clock.now().tzinfo is not None) == use_tz


def test_now_is_the_present_time() -> None:
    before = datetime.datetime.now(datetime.timezone.utc)
    assert before <= clock.now() <= datetime.datetime.now(datetime.timezone.utc)


def test_the_monotonic_clock_never_goes_back() -> None:
    readings = [clock.monotonic() for _ in range(1000)]
    assert readings == sorted(readings)
