"""A half-open circuit breaker: which probes are let in, and what their endings do."""

from typing import Any

import pytest

from resilience import RejectReason
from resilience.events import BreakerState
from resilience.testing import VirtualClock
from tests.policies.breaker.helpers import BAD, GOOD, NEUTRAL, Rig

# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


class TestHalfOpen:
    def test_by_the_clock_without_traffic(self, steady: VirtualClock) -> None:
        rig = Rig()
        rig.open()
        steady.advance(0.999)
        assert rig.state() is BreakerState.OPEN
        steady.advance(0.251)
        assert rig.seen("state", "seconds_in_state", "retry_after") == ("half_open", 0.25, None)

    def test_it_closes_after_so_many_good_endings(self, clock: VirtualClock) -> None:
        rig = Rig()
        rig.half_open(clock)
        rig.run("ok", "answer")
        assert rig.state() is BreakerState.HALF_OPEN
        rig.run("value")
        assert rig.seen("state", "calls", "failures", "opens") == ("closed", 0, 0, 1)

    def test_only_so_many_are_let_in(self, clock: VirtualClock) -> None:
        rig = Rig()
        rig.half_open(clock)
        tokens = [rig.admit() for _ in range(3)]
        error = rig.refused()
        assert (error.retry_after, error.reason) == (None, RejectReason.OPEN)
        assert "is half-open, and all its probes are running" in str(error)
        rig.end(tokens[0], "ok")
        rig.refused()  # it was one of the three
        rig.end(tokens[1], "ok")
        rig.refused()
        rig.end(tokens[2], "ok")
        rig.run("ok")
        assert rig.counts == (1, 0, 0)

    def test_there_may_be_many_places(self, clock: VirtualClock) -> None:
        rig = Rig(half_open_calls=300)
        rig.half_open(clock)
        tokens = [rig.admit() for _ in range(300)]
        rig.refused()
        for token in tokens:
            assert rig.state() is BreakerState.HALF_OPEN
            rig.end(token, "ok")
        assert rig.state() is BreakerState.CLOSED

    @pytest.mark.parametrize("word", BAD)
    def test_one_failure_opens_it(self, clock: VirtualClock, word: str) -> None:
        rig = Rig()
        rig.half_open(clock)
        others = rig.admit(), rig.admit()
        rig.run(word)
        assert rig.seen("state", "opens") == ("open", 2)
        before = rig.breaker.snapshot()
        for token in others:
            rig.end(token, "ok")
        assert rig.breaker.snapshot() == before

    @pytest.mark.parametrize("word", NEUTRAL)
    def test_a_neutral_probe_gives_its_place_back(self, clock: VirtualClock, word: str) -> None:
        rig = Rig()
        rig.half_open(clock)
        for _ in range(20):
            tokens = [rig.admit() for _ in range(3)]
            rig.refused()
            for token in tokens:
                rig.end(token, word)
        assert rig.state() is BreakerState.HALF_OPEN
        rig.run("ok", "ok", "ok")
        assert rig.state() is BreakerState.CLOSED

    def test_a_probe_ends_once(self, clock: VirtualClock) -> None:
        rig = Rig()
        rig.half_open(clock)
        token = rig.admit()
        for _ in range(5):
            rig.end(token, "ok")
        assert rig.state() is BreakerState.HALF_OPEN

    @pytest.mark.parametrize("word", GOOD + BAD + NEUTRAL)
    def test_calls_of_closed_days_change_nothing(self, clock: VirtualClock, word: str) -> None:
        several: list[dict[str, Any]] = [{}, {"window_calls": 50}, {"slow_after": 0.01}]
        for settings in several:
            rig = Rig(**settings)
            old = [rig.admit() for _ in range(20)]
            rig.half_open(clock)
            for token in old:
                rig.end(token, word)
            assert rig.state() is BreakerState.HALF_OPEN
            rig.run("ok", "ok", "ok")
            for token in old:
                rig.end(token, word)
            assert rig.seen("state", "calls") == ("closed", 0)

    def test_probes_of_an_earlier_period_change_nothing(self, clock: VirtualClock) -> None:
        rig = Rig()
        rig.half_open(clock)
        old = [rig.admit(), rig.admit()]
        rig.run("failed")
        clock.advance(30)
        assert rig.state() is BreakerState.HALF_OPEN
        for token in old:
            rig.end(token, "ok")
        rig.run("ok")
        assert rig.state() is BreakerState.HALF_OPEN
        rig.end(old[0], "failed")
        assert rig.state() is BreakerState.HALF_OPEN
        rig.run("ok", "ok")
        assert rig.state() is BreakerState.CLOSED

    def test_after_a_trip_the_snapshot_shows_the_window_that_tripped_it(self, clock: VirtualClock) -> None:
        rig = Rig()
        rig.run("ok", "ok")
        rig.open()
        for seconds in (0.1, 100.0):
            clock.advance(seconds)
            assert rig.seen("calls", "failures", "rate") == (12, 10, 10 / 12)
        rig.run("ok", "failed")
        assert rig.seen("state", "calls", "failures") == ("open", 12, 10)
        clock.advance(30)
        rig.run("ok", "ok", "ok")
        assert rig.seen("state", "calls", "rate") == ("closed", 0, 0.0)
