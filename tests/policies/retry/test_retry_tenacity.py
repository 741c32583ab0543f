"""A Retry whose wait= and stop= are strategies of tenacity, and functions that raise its TryAgain."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import tenacity

from resilience import Allowlist, CircuitBreaker, FailureKind, Pipeline, Retry, RetryBudget, backoff
from resilience.events import RetryGivenUp
from resilience.testing import Recorder, VirtualClock
from tests.support.functions import Failing

NOW = backoff.none()

pytestmark = pytest.mark.usefixtures("nothing_logged_yet")


def reasons(recorder: Recorder) -> list[str]:
    return [event.reason for event in recorder.of(RetryGivenUp)]


class TestWait:
    @pytest.mark.parametrize(
        ("wait", "expected"),
        [
            (tenacity.wait_fixed(2), [2, 2, 2]),
            (tenacity.wait_incrementing(1, 2), [1, 3, 5]),
            (tenacity.wait_exponential(multiplier=1), [1, 2, 4]),
            (tenacity.wait_chain(tenacity.wait_fixed(1), tenacity.wait_fixed(7)), [1, 7, 7]),
            (tenacity.wait_fixed(2) + tenacity.wait_fixed(3), [5, 5, 5]),
            (backoff.fixed(2) + tenacity.wait_fixed(3), [5, 5, 5]),
            (sum([backoff.fixed(1), backoff.fixed(1)]), [2, 2, 2]),
            (lambda state: state.attempt_number * 10, [10, 20, 30]),
            ({FailureKind.TRANSIENT: tenacity.wait_fixed(4)}, [4, 4, 4]),
        ],
    )
    def test_strategies(self, virtual_clock: VirtualClock, wait: Any, expected: list[float]) -> None:
        assert Pipeline(Retry(4, wait=wait)).call(Failing(3)) == "fine"
        assert virtual_clock.sleeps == expected

    def test_the_state_is_that_of_the_call(self, virtual_clock: VirtualClock) -> None:
        seen: list[tuple[Any, ...]] = []

        def wait(state: tenacity.RetryCallState) -> float:
            assert state.outcome is not None
            outcome = state.outcome
            seen.append(
                (
                    state.attempt_number,
                    state.args,
                    state.kwargs,
                    state.idle_for,
                    state.seconds_since_start,
                    outcome.failed,
                    str(outcome.exception()),
                    outcome.done(),
                    outcome.cancelled(),
                    state.fn is function,
                )
            )
            with pytest.raises(ConnectionError):
                outcome.result()
            return 2.0

        def function(*args: Any, **kwargs: Any) -> None:
            raise ConnectionError("down")

        with pytest.raises(ConnectionError):
            Pipeline(Retry(3, wait=wait)).call(function, 1, key=2)

        shared = (True, "down", True, False, True)
        assert seen == [
            (1, (1,), {"key": 2}, 0.0, 0.0, *shared),
            (2, (1,), {"key": 2}, 2.0, 2.0, *shared),
            (3, (1,), {"key": 2}, 4.0, 4.0, *shared),
        ]

    @pytest.mark.parametrize("wait", [-1, float("nan"), float("inf"), "x", None])
    def test_a_wait_that_is_none_is_a_broken_hook(self, wait: Any, caplog: pytest.LogCaptureFixture) -> None:
        flaky = Failing()
        with caplog.at_level(logging.ERROR, "resilience"), pytest.raises(ConnectionError):
            Pipeline(Retry(wait=lambda state: wait)).call(flaky)

        assert flaky.calls == 1
        assert "delay of a policy" in caplog.text

    @pytest.mark.parametrize("wait", [5, "x", tenacity.wait_fixed])
    def test_bad_input(self, wait: Any) -> None:
        with pytest.raises(TypeError, match="wait must be a backoff, a wait_"):
            Retry(wait=wait)

    def test_the_servers_hint_is_a_floor(self, virtual_clock: VirtualClock) -> None:
        from resilience import Failure

        hinted = Allowlist(when=lambda error: Failure(FailureKind.OVERLOAD, 9.0))
        Pipeline(Retry(2, wait=tenacity.wait_fixed(1), on=hinted)).call(Failing(1))

        (slept,) = virtual_clock.sleeps
        assert 9 <= slept <= 9 * 1.2


class TestStop:
    def test_a_stop_alone_sets_no_limit_of_attempts(self, virtual_clock: VirtualClock) -> None:
        flaky = Failing()
        pipeline = Pipeline(Retry(stop=tenacity.stop_after_attempt(7), wait=NOW), budget=None)
        with Recorder(pipeline) as recorder, pytest.raises(ConnectionError) as caught:
            pipeline.call(flaky)

        assert flaky.calls == 7
        assert reasons(recorder) == ["stop"]
        assert "its stop condition was met" in caught.value.__notes__[0]

    @pytest.mark.parametrize(("attempts", "stop", "calls"), [(3, 5, 3), (5, 3, 3)])
    def test_whichever_comes_first(self, attempts: int, stop: int, calls: int) -> None:
        flaky = Failing()
        with pytest.raises(ConnectionError):
            Pipeline(Retry(attempts, stop=tenacity.stop_after_attempt(stop), wait=NOW)).call(flaky)

        assert flaky.calls == calls

    @pytest.mark.parametrize(
        ("stop", "calls"),
        [
            (tenacity.stop_after_delay(5), 4),
            (tenacity.stop_before_delay(5), 3),
            (tenacity.stop_after_delay(100) | tenacity.stop_after_attempt(2), 2),
            (tenacity.stop_after_delay(3) & tenacity.stop_after_attempt(5), 5),
            (lambda state: state.idle_for >= 4, 3),
        ],
    )
    def test_times_are_those_of_our_clock(self, virtual_clock: VirtualClock, stop: Any, calls: int) -> None:
        flaky = Failing()
        with pytest.raises(ConnectionError):
            Pipeline(Retry(stop=stop, wait=backoff.fixed(2)), budget=None).call(flaky)

        assert flaky.calls == calls

    def test_a_stopped_call_costs_no_token(self) -> None:
        budget = RetryBudget(capacity=5)
        with pytest.raises(ConnectionError):
            Pipeline(Retry(stop=tenacity.stop_after_attempt(1)), budget=budget).call(Failing())

        assert budget.tokens == 5

    def test_bad_input(self) -> None:
        wrong: Any = 5
        with pytest.raises(TypeError, match="stop must be a stop_"):
            Retry(stop=wrong)


class TestTryAgain:
    def test_it_is_tried_again_and_nobody_has_failed(self, virtual_clock: VirtualClock) -> None:
        flaky = Failing(2, tenacity.TryAgain)
        breaker = CircuitBreaker(consecutive_failures=1)

        assert Pipeline(Retry(3), breaker).call(flaky) == "fine"
        assert (flaky.calls, breaker.state) == (3, "closed")

    def test_a_breaker_does_not_complain_that_it_is_on_no_list(self, caplog: pytest.LogCaptureFixture) -> None:
        pipeline = Pipeline(CircuitBreaker(), name="asked")
        with pytest.raises(KeyError):
            pipeline.call(Failing(error=KeyError))
        assert len(caplog.records) == 1
        with pytest.raises(tenacity.TryAgain):
            pipeline.call(Failing(error=tenacity.TryAgain))

        assert len(caplog.records) == 1

    def test_it_comes_out_when_attempts_are_used_up(self) -> None:
        with pytest.raises(tenacity.TryAgain) as caught:
            Pipeline(Retry(2, wait=NOW)).call(Failing(error=tenacity.TryAgain))

        assert "no attempts are left" in caught.value.__notes__[0]
