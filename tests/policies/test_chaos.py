"""Chaos: what it injects, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from resilience import (
    Allowlist,
    Bulkhead,
    Call,
    Chaos,
    CircuitBreaker,
    DeadlineExceededError,
    Pipeline,
    Retry,
    Timeout,
    backoff,
    set_mode,
)
from resilience._policies.shapes import Injector
from resilience.events import FaultInjected, TimedOut
from resilience.testing import Recorder, VirtualClock, seeded, virtual_time
from tests.support.calls import running_call
from tests.support.functions import Failing
from tests.support.loops import Run, each_loop
from tests.support.ways import each_way


def faults(chaos: Chaos, calls: int) -> int:
    return sum(chaos.inject(running_call()) is not None for _ in range(calls))


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"rate": 1.5, "error": OSError}, "rate must be a number"),
            ({"rate": -0.1, "error": OSError}, "rate must be a number"),
            ({"rate": float("nan"), "error": OSError}, "rate must be a number"),
            ({"rate": 0.5, "latency": -1}, "latency must be a number"),
            ({"rate": 0.5, "error": 3}, "error must be an exception"),
            ({"rate": 0.5, "error": KeyboardInterrupt}, "error must be a subclass of Exception"),
            ({"rate": 0.5}, "something to inject"),
            ({"rate": 0.5, "error": OSError, "result": 1}, "not both"),
            ({"rate": 0.5, "error": OSError, "seed": "x"}, "seed must be an integer"),
            ({"rate": 0.5, "error": OSError, "enabled": 1}, "enabled must be True, False or a callable"),
        ],
    )
    def test_what_cannot_be_is_refused(self, settings: dict[str, Any], words: str) -> None:
        with pytest.raises((TypeError, ValueError), match=words):
            Chaos(**settings)

    def test_they_can_be_changed(self) -> None:
        chaos = Chaos(0.0, error=OSError, enabled=True)
        assert faults(chaos, 10) == 0

        chaos.update(rate=1.0)

        assert faults(chaos, 10) == 10


class TestEnabled:
    @each_way
    def test_it_does_nothing_unless_it_is_enabled(self, make: Callable[..., Any]) -> None:
        assert make(Pipeline(Chaos(1.0, error=OSError)), lambda: "fine") == "fine"

    def test_a_callable_is_asked_for_each_call(self) -> None:
        answers = [True, False, True]
        chaos = Chaos(1.0, error=OSError, enabled=lambda: answers.pop(0))

        assert faults(chaos, 3) == 2

    @pytest.mark.parametrize(
        "settings", [{"rate": 1.0, "enabled": lambda: 1 / 0}, {"rate": lambda call: 1 / 0, "enabled": True}]
    )
    def test_a_callable_that_fails_injects_nothing(self, settings: dict[str, Any]) -> None:
        assert faults(Chaos(error=OSError, **settings), 3) == 0

    def test_the_process_wide_switch_turns_it_off(self) -> None:
        pipeline = Pipeline(Chaos(1.0, error=ConnectionError, enabled=True))
        try:
            set_mode("off")
            assert pipeline.call(str) == ""
        finally:
            set_mode("enforce")
        with pytest.raises(ConnectionError):
            pipeline.call(str)


class TestRate:
    def test_a_share_of_the_calls(self) -> None:
        with seeded(7):
            assert faults(Chaos(0.3, error=OSError, enabled=True), 2000) == pytest.approx(600, rel=0.1)

    def test_a_callable_decides_for_each_call(self) -> None:
        def only_puts(call: Call) -> float:
            return call.args == ("put",)

        chaos = Chaos(only_puts, error=OSError, enabled=True)

        assert chaos.inject(running_call(None, str, "get")) is None
        assert chaos.inject(running_call(None, str, "put")) is not None

    def test_a_seed_makes_the_same_choices_again(self) -> None:
        def choices(chaos: Chaos) -> list[bool]:
            return [chaos.inject(running_call()) is not None for _ in range(50)]

        one, other = (Chaos(0.5, error=OSError, enabled=True, seed=3) for _ in range(2))
        first = choices(one)

        assert choices(other) == first
        assert choices(one) != first
        one.reset()
        assert choices(one) == first


class TestErrors:
    @each_way
    def test_an_exception_is_raised_in_place_of_the_call(self, make: Callable[..., Any]) -> None:
        dependency = Failing(0)

        with pytest.raises(ConnectionError, match="chaos"):
            make(Pipeline(Chaos(1.0, error=ConnectionError("chaos"), enabled=True)), dependency)

        assert dependency.calls == 0

    def test_each_call_gets_an_exception_of_its_own(self) -> None:
        given = ConnectionError("chaos")
        pipeline = Pipeline(Chaos(1.0, error=given, enabled=True))
        raised: list[Exception] = []
        for _ in range(2):
            with pytest.raises(ConnectionError) as caught:
                pipeline.call(str)
            raised.append(caught.value)

        assert raised[0] is not raised[1]
        assert given.__traceback__ is None

    @pytest.mark.parametrize("error", [ConnectionError, lambda call: ConnectionError(call.operation)])
    def test_a_type_or_a_callable_makes_one(self, error: Any) -> None:
        with pytest.raises(ConnectionError):
            Pipeline(Chaos(1.0, error=error, enabled=True)).call(str)

    def test_what_makes_no_exception_injects_nothing(self) -> None:
        make: Any = lambda call: "no exception"  # noqa: E731
        assert Pipeline(Chaos(1.0, error=make, enabled=True)).call(str) == ""

    def test_the_policies_outside_take_it_for_a_failure_of_the_dependency(self) -> None:
        dependency = Failing(0)
        breaker = CircuitBreaker()
        chaos = Chaos(lambda call: call.attempt == 1, error=ConnectionError, enabled=True)
        pipeline = Pipeline(Retry(2, wait=backoff.none()), breaker, chaos)

        assert pipeline.call(dependency) == "fine"
        assert (dependency.calls, breaker.snapshot()["failures"]) == (1, 1)


class TestLatency:
    @each_loop
    def test_a_delay_comes_before_the_call(self, run: Run) -> None:
        async def main() -> str:
            return await Pipeline(Chaos(1.0, latency=2.0, enabled=True)).acall(lambda: "fine")

        assert run(main) == "fine"

    def test_in_threads_too(self, virtual_clock: VirtualClock) -> None:
        assert Pipeline(Chaos(1.0, latency=2.0, enabled=True)).call(lambda: "fine") == "fine"
        assert virtual_clock.elapsed == 2.0

    @each_way
    def test_a_timeout_cuts_it_and_scores_it(self, make: Callable[..., Any]) -> None:
        breaker = CircuitBreaker()
        pipeline = Pipeline(breaker, Timeout(1.0), Chaos(1.0, latency=lambda call: 5.0, enabled=True))

        with virtual_time() as clock, Recorder(pipeline) as recorder, pytest.raises(DeadlineExceededError) as caught:
            make(pipeline, lambda: "fine")

        assert clock.elapsed == pytest.approx(1.0)
        assert not caught.value.unprocessed
        assert breaker.snapshot()["failures"] == 1
        assert len(recorder.of(TimedOut)) == 1

    def test_a_cancelled_delay_leaves_nothing(self) -> None:
        bulkhead = Bulkhead(1)
        pipeline = Pipeline(bulkhead, Chaos(1.0, latency=60.0, enabled=True))

        async def main() -> int:
            task = asyncio.create_task(pipeline.acall(str))
            await asyncio.sleep(1)
            assert bulkhead.in_flight == 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return bulkhead.in_flight

        with virtual_time():
            assert asyncio.run(main()) == 0

    def test_a_delay_may_come_before_an_error(self, virtual_clock: VirtualClock) -> None:
        with pytest.raises(ConnectionError):
            Pipeline(Chaos(1.0, latency=2.0, error=ConnectionError, enabled=True)).call(str)
        assert virtual_clock.elapsed == 2.0


class TestResults:
    @each_way
    @pytest.mark.parametrize("result", [None, "other"])
    def test_a_value_is_returned_in_place_of_the_call(self, make: Callable[..., Any], result: Any) -> None:
        dependency = Failing(0)

        assert make(Pipeline(Chaos(1.0, result=result, enabled=True), name=f"gives {result}"), dependency) is result
        assert dependency.calls == 0

    def test_it_may_be_a_bad_one(self) -> None:
        bad = Allowlist.of_results(lambda value: value == "bad")
        chaos = Chaos(lambda call: call.attempt == 1, result="bad", enabled=True)
        pipeline = Pipeline(Retry(2, wait=backoff.none()), chaos, failures=bad)

        assert pipeline.call(lambda: "fine") == "fine"


class TestEvents:
    @each_way
    @pytest.mark.parametrize("mode", ["enforce", "shadow"])
    def test_each_fault_is_published_and_in_shadow_mode_not_injected(self, make: Callable[..., Any], mode: Any) -> None:
        pipeline = Pipeline(Chaos(1.0, latency=0.5, result=3, enabled=True, mode=mode))

        with virtual_time() as clock, Recorder(pipeline) as recorder:
            result = make(pipeline, lambda: "fine")

        (event,) = recorder.of(FaultInjected)
        assert (event.policy, event.latency, event.error_type, event.result, str(event.mode)) == (
            *("chaos", 0.5, "", True),
            mode,
        )
        assert (result, clock.elapsed) == ((3, 0.5) if mode == "enforce" else ("fine", 0.0))


@pytest.fixture
def broken() -> Injector:
    class Broken(Injector):
        pass

    return Broken()


@each_way
def test_an_injector_whose_hook_fails_injects_nothing(make: Callable[..., Any], broken: Injector) -> None:
    assert make(Pipeline(broken), lambda: "fine") == "fine"
