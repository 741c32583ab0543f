"""Virtual time for the tests of the circuit breaker."""

from collections.abc import Iterator

import pytest

from resilience.testing import VirtualClock, seeded, virtual_time
from tests.support.chance import Steady


@pytest.fixture(name="steady")
def _steady() -> Iterator[VirtualClock]:
    """Virtual time in which the open time has no jitter."""
    with virtual_time() as clock, seeded(Steady()):
        yield clock
