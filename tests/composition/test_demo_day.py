"""The day of the demo in virtual time: what it shows does not hang on how busy the machine is."""

from __future__ import annotations

import pytest

from resilience._demo.script import DAY, QUICK_DAY, Arm, Phase, spans
from tests.support.demo_day import simulate

pytestmark = pytest.mark.no_cover  # simulations, which take three times as long with it


@pytest.mark.parametrize(("day", "attempt", "seed"), [(DAY, 1.0, 1), (QUICK_DAY, 0.5, 3)])
def test_standard_serves_most_with_least_load_and_doubles_no_order(
    day: tuple[Phase, ...], attempt: float, seed: int
) -> None:
    found = simulate(spans(day), seed, attempt)

    ours, *others = found[Arm.STANDARD], found[Arm.BARE], found[Arm.TENACITY]
    for other in others:
        assert ours.calls == other.calls
        assert sum(ours.served.values()) > sum(other.served.values())
        assert ours.load < other.load
    assert (ours.doubled, found[Arm.BARE].doubled) == (0, 0)
    assert found[Arm.TENACITY].doubled > 0
