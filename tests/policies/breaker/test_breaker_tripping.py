"""When a closed circuit breaker opens: the failure rate, failures in a row, and endings that do not count."""

import pytest

from resilience._policies.breaker.window import TimeWindow
from resilience.events import BreakerState
from resilience.testing import VirtualClock
from tests.policies.breaker.helpers import BAD, GOOD, NEUTRAL, Rig

# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


@pytest.mark.usefixtures("clock")
class TestTripping:
    def test_the_rate(self) -> None:
        rig = Rig(consecutive_failures=None)
        rig.run(*["ok"] * 6, *["failed"] * 13)
        assert rig.seen("state", "calls") == ("closed", 19)
        rig.run("failed")
        assert rig.state() is BreakerState.OPEN
        assert rig.seen("calls", "failures", "rate", "opens") == (20, 14, 0.7, 1)

    def test_a_success_never_opens_it(self) -> None:
        rig = Rig(consecutive_failures=None, failure_rate=0.5)
        rig.run(*["failed"] * 19, "ok", *["ok"] * 3)
        assert rig.seen("state", "rate") == ("closed", 19 / 23)
        rig.run("failed")
        assert rig.state() is BreakerState.OPEN

    def test_nor_one_in_a_window_of_calls(self) -> None:
        rig = Rig(window_calls=10, min_calls=4, failure_rate=0.5, consecutive_failures=None)
        rig.run(*["failed"] * 3, "ok", "value")
        assert rig.seen("state", "rate") == ("closed", 0.6)
        rig.run("failed")
        assert rig.state() is BreakerState.OPEN

    def test_below_the_rate(self) -> None:
        rig = Rig(consecutive_failures=None)
        for _ in range(100):
            rig.run("ok", "failed", "failed", "ok", "failed")
        assert rig.seen("state", "rate") == ("closed", 0.6)

    def test_consecutive_failures(self) -> None:
        rig = Rig(min_calls=100)
        rig.run(*["failed"] * 9, "ok", *["failed"] * 9)
        assert rig.state() is BreakerState.CLOSED
        rig.run("failed")
        assert rig.state() is BreakerState.OPEN
        assert "10 calls in a row failed" in str(rig.refused())

    def test_a_single_failure_may_be_enough(self) -> None:
        rig = Rig(in_a_row=1)
        rig.run("failed")
        assert "since a call failed: " in str(rig.refused())

    def test_consecutive_failures_of_a_client_with_little_traffic(self, clock: VirtualClock) -> None:
        rig = Rig(in_a_row=3)
        for _ in range(3):
            assert rig.state() is BreakerState.CLOSED
            rig.run("failed")
            clock.advance(3600)
        assert rig.state() is BreakerState.HALF_OPEN
        assert rig.seen("calls", "failures") == (1, 1)

    @pytest.mark.parametrize("word", NEUTRAL)
    def test_neutral_endings_count_nothing(self, word: str) -> None:
        rig = Rig(in_a_row=2)
        rig.run("failed", *[word] * 50)
        assert rig.counts == (1, 1, 0)
        rig.run("failed")  # and break no row
        assert rig.state() is BreakerState.OPEN

    @pytest.mark.parametrize("word", BAD)
    def test_bad_endings(self, word: str) -> None:
        rig = Rig(in_a_row=3)
        rig.run(*[word] * 3)
        assert rig.seen("state", "calls", "failures") == ("open", 3, 3)

    @pytest.mark.parametrize("word", GOOD)
    def test_good_endings(self, word: str) -> None:
        rig = Rig(in_a_row=2)
        rig.run("failed", word, "failed", word)
        assert rig.seen("state", "calls", "failures") == ("closed", 4, 2)

    def test_no_consecutive_failures(self) -> None:
        rig = Rig(consecutive_failures=None, min_calls=1000)
        rig.run(*["failed"] * 999)
        assert rig.state() is BreakerState.CLOSED
        rig.run("failed")
        assert rig.state() is BreakerState.OPEN

    def test_a_window_of_calls(self) -> None:
        rig = Rig(window_calls=10, min_calls=10, failure_rate=0.5, consecutive_failures=None)
        rig.run(*["failed"] * 4, *["ok"] * 10)
        assert rig.counts == (10, 0, 0)
        rig.run(*["failed"] * 4)
        assert rig.seen("state", "calls", "rate") == ("closed", 10, 0.4)
        rig.run("failed")
        assert rig.seen("state", "calls", "rate") == ("open", 10, 0.5)
        assert "5 of 10 last calls failed" in str(rig.refused())

    @pytest.mark.filterwarnings("ignore:in pipeline 'quotes'. breaker needs min_calls")
    def test_a_window_that_cannot_hold_min_calls_is_left_with_the_row(self) -> None:
        rig = Rig(window_calls=5)
        rig.run(*["failed"] * 9)
        assert rig.state() is BreakerState.CLOSED
        rig.run("failed")
        assert rig.state() is BreakerState.OPEN

    def test_old_calls_are_forgotten(self, clock: VirtualClock) -> None:
        rig = Rig(consecutive_failures=None)
        rig.run(*["failed"] * 19)
        clock.advance(10)
        rig.run("failed")
        assert rig.seen("state", "calls") == ("closed", 1)

    def test_a_success_at_the_edge_begins_a_bucket(self, clock: VirtualClock) -> None:
        rig = Rig()
        window = rig.admit()
        assert isinstance(window, TimeWindow)
        edge = window.bucket_end
        clock.advance(edge - clock.monotonic())
        assert clock.monotonic() == edge
        rig.run("ok")
        assert window.bucket_end > edge

    @pytest.mark.parametrize("seconds", [0.0, 1e-9, 10.0, 1e6, 1e12])
    def test_any_pace_of_time(self, clock: VirtualClock, seconds: float) -> None:
        rig = Rig(in_a_row=3, open_for=5, max_open_for=5)
        for _ in range(3):
            rig.run("ok", "failed", "failed", "ok")
            clock.advance(seconds)
        assert rig.state() is BreakerState.CLOSED
        for _ in range(3):
            rig.run("failed")
        assert rig.state() is BreakerState.OPEN
        clock.advance(seconds)
        assert rig.state() is (BreakerState.HALF_OPEN if seconds > 5 else BreakerState.OPEN)
