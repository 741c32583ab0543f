"""Virtual time and seeded chance for the tests of the cooldown."""

from collections.abc import Iterator

import pytest

from resilience.testing import VirtualClock, seeded, virtual_time


@pytest.fixture(name="clock")
def _clock() -> Iterator[VirtualClock]:
    with virtual_time() as clock, seeded(1):
        yield clock
