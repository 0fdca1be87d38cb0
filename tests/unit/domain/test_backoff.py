"""The wait after a failure doubles from 10 seconds to 15 minutes."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dims_worker.domain.backoff import retry_delay


@pytest.mark.parametrize(
    ("failures", "seconds"), [(0, 10), (1, 20), (2, 40), (6, 640), (7, 900), (8, 900), (1_000_000, 900)]
)
def test_the_wait_doubles_up_to_a_quarter_of_an_hour(failures: int, seconds: int) -> None:
    assert retry_delay(failures) == timedelta(seconds=seconds)
