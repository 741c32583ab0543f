"""Slow calls at a circuit breaker."""

import pytest

from resilience._policies.breaker.state import TimedCall
from resilience._policies.breaker.window import TimeWindow
from resilience.events import BreakerState
from resilience.testing import VirtualClock
from tests.policies.breaker.helpers import NEUTRAL, Rig

# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


@pytest.mark.usefixtures("clock")
class TestSlowCalls:
    def take(self, rig: Rig, clock: VirtualClock, seconds: float, word: str = "ok") -> None:
        token = rig.admit()
        clock.advance(seconds)
        rig.end(token, word)

    def test_slow_calls_open_it(self, clock: VirtualClock) -> None:
        rig = Rig(slow_after=0.5, slow_call_rate=0.5, min_calls=4, window=100)
        for seconds in (0.25, 0.5, 0.25):
            self.take(rig, clock, seconds)
        assert rig.counts == (3, 0, 1)
        self.take(rig, clock, 2)
        assert rig.seen("state", "calls", "slow", "slow_rate", "rate") == ("open", 4, 2, 0.5, 0.0)
        assert "2 of 4 calls in the last 100 s were slow" in str(rig.refused())

    def test_a_share_below_the_rate_does_not(self, clock: VirtualClock) -> None:
        rig = Rig(slow_after=0.5, slow_call_rate=0.5, min_calls=4, window=100)
        for seconds in (0.25, 0.25, 0.25, 2.0, 2.0):
            self.take(rig, clock, seconds)
        assert rig.seen("state", "slow_rate") == ("closed", 0.4)

    def test_a_share_above_the_rate_does(self, clock: VirtualClock) -> None:
        rig = Rig(slow_after=0.5, slow_call_rate=0.5, min_calls=5, window=100)
        for seconds in (2.0, 2.0, 2.0, 0.25, 2.0):
            self.take(rig, clock, seconds)
        assert rig.seen("state", "slow_rate") == ("open", 0.8)

    def test_fast_calls_do_not(self, clock: VirtualClock) -> None:
        rig = Rig(slow_after=0.5, slow_call_rate=0.1, min_calls=4, window=100)
        for seconds in (1.0, 0.25, 0.25, 0.25, 0.25):
            self.take(rig, clock, seconds)
        assert rig.seen("state", "slow_rate") == ("closed", 0.2)

    def test_a_slow_failure_is_both(self, clock: VirtualClock) -> None:
        rig = Rig(slow_after=0.5)
        for word in ("failed", "cut"):
            self.take(rig, clock, 0.5, word)
        assert rig.counts == (2, 2, 2)

    @pytest.mark.parametrize("word", NEUTRAL)
    def test_a_slow_neutral_ending_is_nothing(self, clock: VirtualClock, word: str) -> None:
        rig = Rig(slow_after=0.5)
        self.take(rig, clock, 50, word)
        assert rig.counts == (0, 0, 0)

    def test_a_slow_success_ends_a_row(self, clock: VirtualClock) -> None:
        rig = Rig(slow_after=0.5, in_a_row=2)
        rig.run("failed")
        self.take(rig, clock, 1)
        rig.run("failed")
        assert rig.state() is BreakerState.CLOSED

    def test_only_the_time_to_the_head_counts(self, clock: VirtualClock) -> None:
        rig = Rig(slow_after=0.5)
        token = rig.admit()
        clock.advance(0.25)
        token = rig.breaker.on_response_head(token)
        clock.advance(60)
        rig.end(token, "value")
        assert rig.counts == (1, 0, 0)

    def test_a_slow_head(self, clock: VirtualClock) -> None:
        rig = Rig(slow_after=0.5)
        token = rig.admit()
        clock.advance(0.75)
        rig.end(rig.breaker.on_response_head(token), "value")
        assert rig.counts == (1, 0, 1)

    def test_without_slow_after_the_time_is_not_taken(self) -> None:
        rig = Rig()
        token = rig.admit()
        assert isinstance(token, TimeWindow)
        assert rig.breaker.on_response_head(token) is token

    def test_in_a_window_of_calls(self, clock: VirtualClock) -> None:
        rig = Rig(slow_after=0.5, window_calls=4, min_calls=4, slow_call_rate=0.75)
        for seconds in (1.0, 1.0, 0.1, 1.0):
            self.take(rig, clock, seconds)
        assert rig.seen("state", "slow") == ("open", 3)

    def test_a_slow_probe_opens_it_again(self, clock: VirtualClock) -> None:
        rig = Rig(slow_after=0.5)
        rig.half_open(clock)
        self.take(rig, clock, 0.5)
        assert rig.state() is BreakerState.OPEN
        assert "a probe was slow" in str(rig.refused())

    def test_a_probe_with_a_fast_head_is_good(self, clock: VirtualClock) -> None:
        rig = Rig(slow_after=0.5, half_open_calls=1)
        rig.half_open(clock)
        token = rig.breaker.on_response_head(rig.admit())
        clock.advance(10)
        rig.end(token, "value")
        assert rig.state() is BreakerState.CLOSED

    def test_slowness_can_be_switched_on_and_off_under_calls(self, clock: VirtualClock) -> None:
        rig = Rig()
        plain = rig.admit()
        rig.breaker.update(slow_after=0.5)
        timed = rig.admit()
        assert isinstance(timed, TimedCall)
        clock.advance(1)
        rig.end(plain, "ok")
        assert rig.counts == (1, 0, 0)
        rig.breaker.update(slow_after=None)
        rig.end(timed, "ok")
        assert rig.counts == (2, 0, 0)
