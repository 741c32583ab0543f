"""Virtual time for the tests of the rate limit."""

from collections.abc import Iterator

import pytest

from resilience.testing import VirtualClock, virtual_time


@pytest.fixture(name="clock")
def _clock() -> Iterator[VirtualClock]:
    with virtual_time() as clock:
        yield clock
