"""tenacity's vocabulary in our Retry, and our backoffs in tenacity's retry."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import tenacity
from tenacity.asyncio import retry as async_retry

from resilience import Allowlist, CircuitBreaker, FailureKind, Pipeline, Retry, RetryBudget, backoff
from resilience._util.log_once import forget
from resilience.events import RetryGivenUp, RetryScheduled
from resilience.testing import Recorder, VirtualClock, virtual_time

NOW = backoff.none()


@pytest.fixture(autouse=True)
def _forget() -> None:
    forget()


class Flaky:
    """Fails so many times, then answers."""

    def __init__(self, failures: int = 10**9, error: Callable[[], Exception] = lambda: ConnectionError("down")) -> None:
        self.failures = failures
        self.error = error
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error()
        return "fine"


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
    def test_strategies(self, virtual_time: VirtualClock, wait: Any, expected: list[float]) -> None:
        assert Pipeline(Retry(4, wait=wait)).call(Flaky(3)) == "fine"
        assert virtual_time.sleeps == expected

    def test_the_state_is_that_of_the_call(self, virtual_time: VirtualClock) -> None:
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
        flaky = Flaky()
        with caplog.at_level(logging.ERROR, "resilience"), pytest.raises(ConnectionError):
            Pipeline(Retry(wait=lambda state: wait)).call(flaky)

        assert flaky.calls == 1
        assert "delay of a policy" in caplog.text

    @pytest.mark.parametrize("wait", [5, "x", tenacity.wait_fixed])
    def test_bad_input(self, wait: Any) -> None:
        with pytest.raises(TypeError, match="wait must be a backoff, a wait_"):
            Retry(wait=wait)

    def test_the_servers_hint_is_a_floor(self, virtual_time: VirtualClock) -> None:
        from resilience import Failure

        hinted = Allowlist(when=lambda error: Failure(FailureKind.OVERLOAD, 9.0))
        Pipeline(Retry(2, wait=tenacity.wait_fixed(1), on=hinted)).call(Flaky(1))

        assert virtual_time.sleeps == [9]


class TestStop:
    def test_a_stop_alone_sets_no_limit_of_attempts(self, virtual_time: VirtualClock) -> None:
        flaky = Flaky()
        pipeline = Pipeline(Retry(stop=tenacity.stop_after_attempt(7), wait=NOW), budget=None)
        with Recorder(pipeline) as recorder, pytest.raises(ConnectionError) as caught:
            pipeline.call(flaky)

        assert flaky.calls == 7
        assert reasons(recorder) == ["stop"]
        assert "its stop condition was met" in caught.value.__notes__[0]

    @pytest.mark.parametrize(("attempts", "stop", "calls"), [(3, 5, 3), (5, 3, 3)])
    def test_whichever_comes_first(self, attempts: int, stop: int, calls: int) -> None:
        flaky = Flaky()
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
    def test_times_are_those_of_our_clock(self, virtual_time: VirtualClock, stop: Any, calls: int) -> None:
        flaky = Flaky()
        with pytest.raises(ConnectionError):
            Pipeline(Retry(stop=stop, wait=backoff.fixed(2)), budget=None).call(flaky)

        assert flaky.calls == calls

    def test_a_stopped_call_costs_no_token(self) -> None:
        budget = RetryBudget(capacity=5)
        with pytest.raises(ConnectionError):
            Pipeline(Retry(stop=tenacity.stop_after_attempt(1)), budget=budget).call(Flaky())

        assert budget.tokens == 5

    def test_bad_input(self) -> None:
        wrong: Any = 5
        with pytest.raises(TypeError, match="stop must be a stop_"):
            Retry(stop=wrong)


class TestOn:
    @pytest.mark.parametrize(
        ("on", "error", "calls"),
        [
            (tenacity.retry_if_exception_type(KeyError), KeyError, 3),
            (tenacity.retry_if_exception_type(KeyError), ConnectionError, 1),
            (tenacity.retry_if_not_exception_type(KeyError), ValueError, 3),
            (tenacity.retry_if_exception_message(match="bo"), lambda: ValueError("boom"), 3),
            (tenacity.retry_if_exception(lambda error: "x" in str(error)), lambda: ValueError("y"), 1),
            (tenacity.retry_if_exception_type(KeyError) | tenacity.retry_if_exception_type(OSError), OSError, 3),
            (tenacity.retry_if_exception_type(OSError) & tenacity.retry_if_exception_message("no"), OSError, 1),
            (tenacity.retry_any(tenacity.retry_if_exception_type(KeyError)), KeyError, 3),
        ],
    )
    def test_exceptions(self, on: Any, error: Callable[[], Exception], calls: int) -> None:
        flaky = Flaky(error=error)
        with suppress(Exception):
            Pipeline(Retry(3, wait=NOW, on=on)).call(flaky)

        assert flaky.calls == calls

    @pytest.mark.parametrize(
        "on",
        [
            tenacity.retry_if_result(lambda value: value == "bad"),
            tenacity.retry_if_not_result(lambda value: value != "bad"),
            tenacity.retry_if_exception_type(KeyError) | tenacity.retry_if_result(lambda value: value == "bad"),
        ],
    )
    def test_results(self, on: Any) -> None:
        calls: list[int] = []

        def third_time_good() -> str:
            calls.append(1)
            return "bad" if len(calls) < 3 else "good"

        assert Pipeline(Retry(3, wait=NOW, on=on)).call(third_time_good) == "good"
        assert len(calls) == 3

    def test_wherever_an_allowlist_is_taken(self) -> None:
        keys = tenacity.retry_if_exception_type(KeyError)
        flaky = Flaky(error=KeyError)
        breaker = CircuitBreaker(consecutive_failures=3, on=keys)
        with pytest.raises(KeyError):
            Pipeline(Retry(3, wait=NOW), breaker, failures=keys).call(flaky)

        assert (flaky.calls, breaker.state) == (3, "open")
        assert (Allowlist(OSError) | keys).classify(KeyError()) is not None

    def test_exceptions_only_are_never_asked_about_results(self) -> None:
        assert not Allowlist.of(tenacity.retry_if_exception_type(KeyError)).lists_results
        assert not Allowlist.of(
            tenacity.retry_if_exception_type(KeyError) | tenacity.retry_if_exception_message("x")
        ).lists_results
        assert Allowlist.of(tenacity.retry_if_result(bool)).lists_results
        assert Allowlist.of(tenacity.retry_unless_exception_type(KeyError)).lists_results

    def test_cancellation_never_reaches_a_predicate(self) -> None:
        asked: list[BaseException] = []

        def predicate(error: BaseException) -> bool:
            asked.append(error)
            return True

        pipeline = Pipeline(Retry(3, on=tenacity.retry_if_exception(predicate)))

        async def cancelled() -> None:
            raise asyncio.CancelledError

        def interrupted() -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            pipeline.call(interrupted)
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(pipeline.acall(cancelled))

        assert asked == []


class TestAsyncPredicates:
    async def listed(self, error: BaseException) -> bool:
        await asyncio.sleep(0)
        return isinstance(error, KeyError)

    @pytest.mark.parametrize("kind", ["plain", "strategy", "any", "all"])
    @pytest.mark.parametrize(("error", "calls"), [(KeyError, 3), (ValueError, 1)])
    def test_awaited_calls(self, kind: str, error: type[Exception], calls: int) -> None:
        strategy = async_retry.retry_if_exception(self.listed)
        on: Any = {
            "plain": self.listed,
            "strategy": strategy,
            "any": strategy | tenacity.retry_if_exception_type(OSError),
            "all": strategy & tenacity.retry_if_exception_type(Exception),
        }[kind]
        flaky = Flaky(error=error)
        with pytest.raises(error):
            asyncio.run(Pipeline(Retry(3, wait=NOW, on=on)).acall(flaky))

        assert flaky.calls == calls

    def test_plain_calls_refuse_them(self) -> None:
        flaky = Flaky(error=KeyError)
        with pytest.raises(TypeError, match="retry has an async predicate"):
            Pipeline(Retry(3, on=self.listed)).call(flaky)

        assert flaky.calls == 1

    def test_in_shadow_mode(self) -> None:
        pipeline = Pipeline(Retry(3, on=self.listed, mode="shadow"))
        with Recorder(pipeline) as recorder, pytest.raises(KeyError):
            asyncio.run(pipeline.acall(Flaky(error=KeyError)))

        assert [event.mode for event in recorder.of(RetryScheduled)] == ["shadow"]

    def test_one_that_fails_lets_the_error_out(self, caplog: pytest.LogCaptureFixture) -> None:
        async def broken(error: Exception) -> bool:
            raise RuntimeError("a bug in a hook")

        with caplog.at_level(logging.ERROR, "resilience"), pytest.raises(KeyError):
            asyncio.run(Pipeline(Retry(3, on=broken)).acall(Flaky(error=KeyError)))

        assert "a bug in a hook" in caplog.text

    def test_they_are_taken_by_retry_alone(self) -> None:
        wrong: Any = self.listed
        made: list[Callable[[], object]] = [
            lambda: Allowlist.of(wrong),
            lambda: Allowlist(when=wrong),
            lambda: Allowlist.of_results(wrong),
            lambda: Pipeline(Retry(), failures=wrong),
        ]
        for make in made:
            with pytest.raises(TypeError, match="async predicate"):
                make()

    def test_async_predicates_of_results_are_refused(self) -> None:
        async def bad(value: Any) -> bool:
            return True

        strategy: Any = async_retry.retry_if_result(bad)
        for on in (strategy, async_retry.retry_any(strategy)):
            with pytest.raises(TypeError, match="async predicate of returned values"):
                Retry(on=on)


class TestTryAgain:
    def test_it_is_tried_again_and_nobody_has_failed(self, virtual_time: VirtualClock) -> None:
        flaky = Flaky(2, tenacity.TryAgain)
        breaker = CircuitBreaker(consecutive_failures=1)

        assert Pipeline(Retry(3), breaker).call(flaky) == "fine"
        assert (flaky.calls, breaker.state) == (3, "closed")

    def test_a_breaker_does_not_complain_that_it_is_on_no_list(self, caplog: pytest.LogCaptureFixture) -> None:
        pipeline = Pipeline(CircuitBreaker(), name="asked")
        with pytest.raises(KeyError):
            pipeline.call(Flaky(error=KeyError))
        assert len(caplog.records) == 1
        with pytest.raises(tenacity.TryAgain):
            pipeline.call(Flaky(error=tenacity.TryAgain))

        assert len(caplog.records) == 1

    def test_it_comes_out_when_attempts_are_used_up(self) -> None:
        with pytest.raises(tenacity.TryAgain) as caught:
            Pipeline(Retry(2, wait=NOW)).call(Flaky(error=tenacity.TryAgain))

        assert "no attempts are left" in caught.value.__notes__[0]


class TestCallbacks:
    def test_log_callbacks_work_on_our_state(
        self, virtual_time: VirtualClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        logger = logging.getLogger("app")
        callbacks = [
            tenacity.before_log(logger, logging.INFO),
            tenacity.after_log(logger, logging.INFO),
            tenacity.before_sleep_log(logger, logging.INFO, exc_info=True),
        ]

        def stop(state: tenacity.RetryCallState) -> bool:
            for callback in callbacks:
                callback(state)
            return False

        with caplog.at_level(logging.INFO, "app"):
            Pipeline(Retry(2, wait=backoff.fixed(3), stop=stop)).call(Flaky(1))

        lines = [record.getMessage() for record in caplog.records if record.name == "app"]
        assert "1st time" in lines[0]
        assert "Finished call" in lines[1]
        assert re.search(r"in 3(\.0)? seconds as it raised ConnectionError: down", lines[2])

    def test_the_state_keeps_no_exception(self) -> None:
        states: list[Any] = []

        def stop(state: tenacity.RetryCallState) -> bool:
            states.append(state)
            return False

        class Argument:
            pass

        def down(_: Argument) -> None:
            raise ConnectionError("down")

        argument = Argument()
        alive = weakref.ref(argument)
        gc.collect()
        gc.disable()
        try:
            with suppress(ConnectionError):
                Pipeline(Retry(2, wait=NOW, stop=stop)).call(down, argument)
            assert states[0].outcome is None
            states.clear()
            del argument
            assert alive() is None
        finally:
            gc.enable()


class TestInTenacity:
    @pytest.mark.parametrize(
        "wait",
        [
            backoff.full_jitter(1, 10),
            backoff.equal_jitter(1, 10),
            backoff.decorrelated_jitter(1, 10),
            backoff.proportional(1, 10),
            backoff.fixed(2),
            backoff.none(),
            backoff.fixed(1) + tenacity.wait_fixed(1),
        ],
    )
    def test_our_backoffs_wait_for_a_plain_retry_of_tenacitys(self, wait: Any) -> None:
        slept: list[float] = []
        retrying = tenacity.Retrying(wait=wait, stop=tenacity.stop_after_attempt(4), sleep=slept.append, reraise=True)
        with pytest.raises(ConnectionError):
            retrying(Flaky())

        assert len(slept) == 3
        assert all(0 <= one <= 10 for one in slept)

    def test_decorrelated_jitter_knows_the_wait_before(self) -> None:
        wait = backoff.decorrelated_jitter(1, 1000)
        state: Any = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
        state.upcoming_sleep = 100.0

        assert max(wait(state) for _ in range(200)) > 3


def test_nothing_of_tenacitys_is_touched_on_the_success_path() -> None:
    def untouchable(asked: Any) -> Any:
        raise AssertionError("asked on the success path")

    pipeline = Pipeline(Retry(wait=untouchable, stop=untouchable, on=tenacity.retry_if_exception(untouchable)))

    assert pipeline.call(int) == 0
    with virtual_time():
        assert asyncio.run(pipeline.acall(int)) == 0


class TestUnlisted:
    def test_the_first_unlisted_exception_of_a_type_is_logged_with_the_fix(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        pipeline = Pipeline(Retry(), name="unlisted-here")
        with caplog.at_level(logging.WARNING, "resilience"):
            for _ in range(3):
                with pytest.raises(KeyError):
                    pipeline.call(Flaky(error=KeyError))
            with pytest.raises(ValueError, match="x"):
                pipeline.call(Flaky(error=lambda: ValueError("x")))

        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) == 2
        assert "unlisted-here let builtins.KeyError through" in lines[0]
        assert "failures=NETWORK_ERRORS | KeyError" in lines[0]

    def test_a_known_answer_is_not(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING, "resilience"), pytest.raises(KeyError):
            Pipeline(Retry(), failures=Allowlist(OSError, answers=(KeyError,))).call(Flaky(error=KeyError))

        assert caplog.records == []

    def test_a_breaker_says_so_too(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING, "resilience"), pytest.raises(KeyError):
            Pipeline(CircuitBreaker()).call(Flaky(error=KeyError))

        assert "let builtins.KeyError through" in caplog.text
