"""Virtual time for the tests of the policies."""

from collections.abc import Iterator

import pytest

from resilience.testing import VirtualClock, seeded, virtual_time


@pytest.fixture(name="clock")
def _clock() -> Iterator[VirtualClock]:
    with virtual_time() as clock, seeded(1):
        yield clock
