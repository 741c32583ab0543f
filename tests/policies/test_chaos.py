"""Chaos: what it injects, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anyio
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
from resilience._util.clock import clock
from resilience.events import FaultInjected, TimedOut
from resilience.testing import Recorder, VirtualClock, seeded, virtual_time
from tests.support.calls import running_call
from tests.support.functions import Failing
from tests.support.loops import Run, each_loop
from tests.support.ways import each_way


def faults(chaos: Chaos, calls: int) -> int:
    return sum(chaos.inject(running_call()) is not None for _ in range(calls))


class StatusError(Exception):
    """An exception whose type needs more arguments than it keeps, as those of many SDKs do."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class NotCopied(Exception):
    def __new__(cls, *args: object) -> NotCopied:
        if args:
            raise TypeError("no arguments")
        return super().__new__(cls)

    def __init__(self) -> None:
        super().__init__("kept")

    def __reduce__(self) -> Any:
        raise TypeError("not pickled")


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

    @pytest.mark.parametrize("error", [StatusError("teapot", status=418), OSError("down"), OSError])
    def test_an_error_may_be_any_that_can_be_copied(self, error: Any) -> None:
        fault = Chaos(1.0, error=error, enabled=True).inject(running_call())

        assert fault is not None
        made = fault.error
        assert type(made) is (error if isinstance(error, type) else type(error))
        if isinstance(error, Exception):
            assert (str(made), made is error, vars(made)) == (str(error), False, vars(error))

    @pytest.mark.parametrize("error", [StatusError, NotCopied()])
    def test_one_that_cannot_be_made_is_refused(self, error: Any) -> None:
        with pytest.raises(TypeError, match="give a function that returns the exception"):
            Chaos(1.0, error=error)

    def test_a_coroutine_function_is_refused(self) -> None:
        async def make(call: Call) -> Exception:
            return OSError(call.operation)

        wrong: Any = make
        with pytest.raises(TypeError, match="not the coroutine function make"):
            Chaos(1.0, error=wrong)

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

    def test_a_change_goes_on_with_the_choices_of_the_seed(self) -> None:
        def choices(chaos: Chaos, count: int) -> list[bool]:
            return [chaos.inject(running_call()) is not None for _ in range(count)]

        chaos = Chaos(0.5, error=OSError, enabled=True, seed=3)
        both = choices(Chaos(0.5, error=OSError, enabled=True, seed=3), 60)
        first = choices(chaos, 30)

        chaos.update(error=ConnectionError)

        assert first + choices(chaos, 30) == both
        chaos.update(seed=4)
        chaos.update(seed=3)
        assert choices(chaos, 60) == both


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

        with virtual_time() as virtual, Recorder(pipeline) as recorder, pytest.raises(DeadlineExceededError) as caught:
            make(pipeline, lambda: "fine")

        assert virtual.elapsed == pytest.approx(1.0)
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

    @each_loop
    def test_a_deadline_that_becomes_void_meanwhile_does_not_cut_it(self, run: Run) -> None:
        """Of a task that was started inside of a guarded call, and lives longer."""
        slow = Pipeline(Chaos(1.0, latency=5.0, enabled=True))

        async def main() -> Any:
            answers: list[Any] = []

            async def background() -> None:
                answers.append(await slow.acall(lambda: "fine"))

            async with anyio.create_task_group() as tasks:

                async def start() -> None:
                    tasks.start_soon(background)
                    await anyio.sleep(0.5)

                await Pipeline(Timeout(1.0)).acall(start)
            return answers

        assert run(main) == ["fine"]

    @each_loop
    def test_a_drain_does_not_cut_it(self, run: Run) -> None:
        pipeline = Pipeline(Chaos(1.0, latency=5.0, enabled=True))

        async def main() -> Any:
            took: list[float] = []

            async def call() -> None:
                started = clock.monotonic()
                await pipeline.acall(str)
                took.append(clock.monotonic() - started)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call)
                await anyio.sleep(1)
                assert await pipeline.adrain(60)
            return took

        assert run(main) == [pytest.approx(5.0)]

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

        with virtual_time() as virtual, Recorder(pipeline) as recorder:
            result = make(pipeline, lambda: "fine")

        (event,) = recorder.of(FaultInjected)
        assert (event.policy, event.latency, event.error_type, event.result, str(event.mode)) == (
            *("chaos", 0.5, "", True),
            mode,
        )
        assert (result, virtual.elapsed) == ((3, 0.5) if mode == "enforce" else ("fine", 0.0))


@pytest.fixture
def broken() -> Injector:
    class Broken(Injector):
        pass

    return Broken()


@each_way
def test_an_injector_whose_hook_fails_injects_nothing(make: Callable[..., Any], broken: Injector) -> None:
    assert make(Pipeline(broken), lambda: "fine") == "fine"
