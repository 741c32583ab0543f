"""Settings of a circuit breaker that change while it is in use."""

from typing import Any

import pytest

from resilience._policies.breaker.window import CallWindow
from resilience.events import BreakerState
from resilience.testing import VirtualClock
from tests.policies.breaker.helpers import Rig

# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


@pytest.mark.usefixtures("clock")
class TestUpdate:
    def test_the_state_and_the_counts_stay(self) -> None:
        rig = Rig()
        rig.run(*["failed"] * 9)
        rig.breaker.update(consecutive_failures=10, min_calls=10, open_for=4.0)
        assert rig.seen("state", "calls") == ("closed", 9)
        rig.run("ok")
        assert rig.state() is BreakerState.CLOSED
        rig.run("failed")
        assert rig.seen("state", "calls") == ("open", 11)

    @pytest.mark.parametrize("passed", [0.0, 0.1, 15.0])
    @pytest.mark.parametrize("lower", [{"max_open_for": 5.0}, {"max_open_for": 0.001}, {"open_for": 0.001}])
    def test_an_open_time_that_has_begun_stays_as_it_is(
        self, clock: VirtualClock, passed: float, lower: dict[str, Any]
    ) -> None:
        rig = Rig(open_for=20.0, max_open_for=20.0, in_a_row=1)
        rig.open()
        clock.advance(passed)
        left = rig.seen("retry_after")[0]

        rig.breaker.update(**lower)

        assert rig.state() is BreakerState.OPEN
        assert rig.refused().retry_after == left
        clock.advance(left - 0.01)
        assert rig.state() is BreakerState.OPEN
        clock.advance(0.02)
        assert rig.state() is BreakerState.HALF_OPEN

    def test_a_stale_row_does_not_open_it(self, clock: VirtualClock) -> None:
        rig = Rig(slow_after=0.5)
        rig.run(*["failed"] * 9)
        rig.breaker.update(consecutive_failures=10)
        token = rig.admit()
        clock.advance(1)
        rig.end(token, "ok")
        assert rig.state() is BreakerState.CLOSED

    @pytest.mark.parametrize("geometry", [{"window": 20.0}, {"window_calls": 7}])
    def test_another_window_begins_empty(self, geometry: dict[str, Any]) -> None:
        rig = Rig()
        rig.run(*["failed"] * 5)
        token = rig.admit()
        rig.breaker.update(**geometry)
        assert rig.counts == (0, 0, 0)
        rig.end(token, "failed")
        assert rig.counts == (0, 0, 0)
        rig.run("failed", "ok")
        assert rig.counts == (2, 1, 0)
        rig.breaker.update(**geometry)
        assert rig.counts == (2, 1, 0)

    def test_while_open(self, clock: VirtualClock) -> None:
        rig = Rig()
        rig.open()
        before = rig.breaker.snapshot()
        rig.breaker.update(window_calls=50, open_for=20.0, half_open_calls=1)
        assert rig.breaker.snapshot() == before
        clock.advance(1.2)
        rig.run("ok")
        assert rig.state() is BreakerState.CLOSED
        assert isinstance(rig.admit(), CallWindow)

    def test_a_half_open_period_keeps_its_places(self, clock: VirtualClock) -> None:
        rig = Rig()
        rig.half_open(clock)
        rig.run("ok", "ok")
        rig.breaker.update(half_open_calls=1)
        rig.run("ok")
        assert rig.state() is BreakerState.CLOSED

    def test_a_bad_value_changes_nothing(self) -> None:
        rig = Rig()
        before = rig.breaker.settings
        with pytest.raises(ValueError, match="min_calls"):
            rig.breaker.update(failure_rate=0.5, min_calls=0)
        with pytest.raises(TypeError, match="no setting spare"):
            rig.breaker.update(spare=1)
        assert rig.breaker.settings is before

    def test_on(self) -> None:
        rig = Rig()
        rig.breaker.update(on=KeyError)
        rig.run("failed", "error")
        assert rig.counts == (1, 1, 0)
