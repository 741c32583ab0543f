"""The state of one call in a Loop: whether another attempt fits before the deadline."""

from __future__ import annotations

import pytest

from resilience import Call
from resilience._call.ambient import NOTHING
from resilience._call.retry_state import RetryState
from resilience._util.clock import FOREVER, clock
from resilience.testing import VirtualClock
from tests.support.calls import running_call


def call_by(deadline: float) -> Call:
    call = running_call()
    call.deadline = deadline
    return call


def unasked() -> float:
    pytest.fail("nobody has to look for cancel scopes")


class TestFits:
    """Whether another attempt can be made after a wait, before the time is up."""

    def test_any_wait_without_a_deadline(self, virtual_clock: VirtualClock) -> None:
        state = RetryState(0.0, lambda: FOREVER)

        assert state.fits(call_by(FOREVER), 0)
        assert state.fits(call_by(FOREVER), 1e9)

    @pytest.mark.parametrize(("wait", "fits"), [(0, True), (4.5, True), (5, False), (5.5, False)])
    def test_a_wait_that_ends_before_the_deadline(self, virtual_clock: VirtualClock, wait: float, fits: bool) -> None:
        state = RetryState(0.0, lambda: FOREVER)

        assert state.fits(call_by(clock.monotonic() + 5), wait) is fits

    @pytest.mark.parametrize(("wait", "fits"), [(2.5, True), (3, False), (3.5, False)])
    @pytest.mark.parametrize("deadline", [5, FOREVER])
    def test_a_wait_that_ends_before_the_cancel_scopes_do(
        self, virtual_clock: VirtualClock, deadline: float, wait: float, fits: bool
    ) -> None:
        state = RetryState(0.0, lambda: clock.monotonic() + 3)

        assert state.fits(call_by(clock.monotonic() + deadline), wait) is fits

    @pytest.mark.parametrize(("deadline", "fits"), [(FOREVER, True), (1, True), (0, False), (-1, False)])
    def test_no_wait_at_all_asks_for_no_scopes(self, virtual_clock: VirtualClock, deadline: float, fits: bool) -> None:
        state = RetryState(0.0, unasked)

        assert state.fits(call_by(clock.monotonic() + deadline), 0) is fits

    def test_the_time_that_has_gone_by_counts(self, virtual_clock: VirtualClock) -> None:
        state = RetryState(0.0, lambda: FOREVER)
        call = call_by(clock.monotonic() + 5)
        assert state.fits(call, 4)

        virtual_clock.advance(1)

        assert not state.fits(call, 4)


def test_the_state_of_a_call_before_its_first_attempt() -> None:
    state = RetryState(12.5, lambda: FOREVER)

    assert (state.started, state.attempt_number, state.last_wait, state.budget) == (12.5, 0, None, None)
    assert (state.inside, state.shadow, state.strategy_state) == (NOTHING, False, None)
    assert RetryState(12.5, lambda: FOREVER, shadow=True).shadow
