"""The leases of probes: when a probe that does not end loses its place."""

import pytest

from resilience._policies.breaker.state import LEASE
from resilience.events import BreakerState
from resilience.testing import VirtualClock
from tests.policies.breaker.helpers import BAD, GOOD, NEUTRAL, Rig

# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


class TestLeases:
    @pytest.mark.parametrize("timeout", [None, 5.0])
    def test_a_probe_that_never_ends_frees_its_place(self, clock: VirtualClock, timeout: float | None) -> None:
        rig = Rig(probe_timeout=timeout, half_open_calls=2)
        rig.half_open(clock)
        hung = [rig.admit(), rig.admit()]
        clock.advance((timeout or 60.0) - 0.001)
        rig.refused()
        clock.advance(0.002)
        rig.run("ok")
        for token in hung:
            rig.end(token, "ok")
        assert rig.state() is BreakerState.HALF_OPEN
        for token in hung:
            rig.end(token, "failed")
        assert rig.state() is BreakerState.HALF_OPEN
        rig.run("ok")
        assert rig.state() is BreakerState.CLOSED

    @pytest.mark.parametrize("seconds", [5, 6])
    @pytest.mark.parametrize("word", GOOD + BAD + NEUTRAL)
    def test_a_late_ending_changes_nothing_also_if_nobody_took_the_place(
        self, clock: VirtualClock, word: str, seconds: float
    ) -> None:
        rig = Rig(probe_timeout=5.0, half_open_calls=1)
        rig.half_open(clock)
        token = rig.admit()
        clock.advance(seconds)
        before = rig.breaker.snapshot()
        rig.end(token, word)
        assert rig.breaker.snapshot() == before
        rig.run("ok")
        assert rig.state() is BreakerState.CLOSED

    def test_by_default_the_deadline_of_the_call_ends_it(self, clock: VirtualClock) -> None:
        rig = Rig(half_open_calls=1)
        rig.half_open(clock)
        token = rig.admit(deadline=clock.monotonic() + 2)
        clock.advance(1.999)
        rig.refused()
        clock.advance(0.001)
        other = rig.admit(deadline=clock.monotonic() + 2)
        rig.end(token, "ok")
        assert rig.state() is BreakerState.HALF_OPEN
        rig.end(other, "ok")
        assert rig.state() is BreakerState.CLOSED

    @pytest.mark.parametrize("taken", [False, True])
    def test_a_hang_cut_at_the_deadline_is_not_late(self, clock: VirtualClock, taken: bool) -> None:
        rig = Rig(half_open_calls=1)
        rig.half_open(clock)
        token = rig.admit(deadline=clock.monotonic() + 2)
        clock.advance(2.001)
        if taken:
            rig.admit()
        rig.end(token, "timed out")
        assert rig.state() is BreakerState.OPEN

    @pytest.mark.parametrize("word", ["failed", "ok", "error"])
    def test_any_other_ending_after_the_deadline_is_late(self, clock: VirtualClock, word: str) -> None:
        rig = Rig(half_open_calls=1)
        rig.half_open(clock)
        token = rig.admit(deadline=clock.monotonic() + 2)
        clock.advance(2)
        rig.end(token, word)
        assert rig.state() is BreakerState.HALF_OPEN
        rig.admit()

    def test_a_deadline_may_be_farther_than_the_lease_of_calls_without_one(self, clock: VirtualClock) -> None:
        rig = Rig(half_open_calls=1)
        rig.half_open(clock)
        token = rig.admit(deadline=clock.monotonic() + 2 * LEASE)
        clock.advance(1.5 * LEASE)
        rig.refused()
        rig.end(token, "ok")
        assert rig.state() is BreakerState.CLOSED

    def test_a_hang_of_an_earlier_period_is_nothing(self, clock: VirtualClock) -> None:
        rig = Rig()
        rig.half_open(clock)
        token = rig.admit(deadline=clock.monotonic() + 2)
        rig.run("failed")
        clock.advance(30)
        assert rig.state() is BreakerState.HALF_OPEN
        rig.end(token, "timed out")
        assert rig.state() is BreakerState.HALF_OPEN

    def test_with_a_probe_timeout_the_deadline_makes_no_difference(self, clock: VirtualClock) -> None:
        rig = Rig(half_open_calls=1, probe_timeout=5.0)
        rig.half_open(clock)
        token = rig.admit(deadline=clock.monotonic() + 2)
        clock.advance(3)
        rig.refused()
        clock.advance(2)
        rig.end(token, "timed out")
        assert rig.state() is BreakerState.HALF_OPEN

    def test_good_probes_keep_their_place(self, clock: VirtualClock) -> None:
        rig = Rig(probe_timeout=1.0)
        rig.half_open(clock)
        rig.run("ok", "ok")
        rig.admit()
        rig.refused()
        clock.advance(1)
        rig.run("ok")
        assert rig.state() is BreakerState.CLOSED
