"""tenacity's predicates and log callbacks, and the state that they are asked with."""

from __future__ import annotations

import asyncio
import logging
import re
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import tenacity
from tenacity.asyncio import retry as async_retry

from resilience import Allowlist, CircuitBreaker, Pipeline, Retry, backoff
from resilience.events import RetryScheduled
from resilience.testing import Recorder, VirtualClock, virtual_time
from tests.support.functions import Failing
from tests.support.garbage import no_collection

NOW = backoff.none()

pytestmark = pytest.mark.usefixtures("nothing_logged_yet")


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
        flaky = Failing(error=error)
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
        flaky = Failing(error=KeyError)
        breaker = CircuitBreaker(consecutive_failures=6, on=keys)
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
        flaky = Failing(error=error)
        with pytest.raises(error):
            asyncio.run(Pipeline(Retry(3, wait=NOW, on=on)).acall(flaky))

        assert flaky.calls == calls

    def test_plain_calls_refuse_them(self) -> None:
        flaky = Failing(error=KeyError)
        with pytest.raises(TypeError, match="retry has an async predicate"):
            Pipeline(Retry(3, on=self.listed)).call(flaky)

        assert flaky.calls == 1

    def test_in_shadow_mode(self) -> None:
        pipeline = Pipeline(Retry(3, on=self.listed, mode="shadow"))
        with Recorder(pipeline) as recorder, pytest.raises(KeyError):
            asyncio.run(pipeline.acall(Failing(error=KeyError)))

        assert [event.mode for event in recorder.of(RetryScheduled)] == ["shadow"]

    def test_one_that_fails_lets_the_error_out(self, caplog: pytest.LogCaptureFixture) -> None:
        async def broken(error: Exception) -> bool:
            raise RuntimeError("a bug in a hook")

        with caplog.at_level(logging.ERROR, "resilience"), pytest.raises(KeyError):
            asyncio.run(Pipeline(Retry(3, on=broken)).acall(Failing(error=KeyError)))

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


class TestCallbacks:
    def test_log_callbacks_work_on_our_state(
        self, virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
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
            Pipeline(Retry(2, wait=backoff.fixed(3), stop=stop)).call(Failing(1))

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
        with no_collection():
            with suppress(ConnectionError):
                Pipeline(Retry(2, wait=NOW, stop=stop)).call(down, argument)
            assert states[0].outcome is None
            states.clear()
            del argument
            assert alive() is None


def test_nothing_of_tenacitys_is_touched_on_the_success_path() -> None:
    def untouchable(asked: Any) -> Any:
        raise AssertionError("asked on the success path")

    pipeline = Pipeline(Retry(wait=untouchable, stop=untouchable, on=tenacity.retry_if_exception(untouchable)))

    assert pipeline.call(int) == 0
    with virtual_time():
        assert asyncio.run(pipeline.acall(int)) == 0
