"""Virtual time for the tests of the circuit breaker."""

import random
from collections.abc import Iterator

import pytest

from resilience.testing import VirtualClock, seeded, virtual_time


class Steady(random.Random):
    """Chance that always is in the middle."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


@pytest.fixture(name="steady")
def _steady() -> Iterator[VirtualClock]:
    """Virtual time in which the open time has no jitter."""
    with virtual_time() as clock, seeded(Steady()):
        yield clock
