"""A circuit breaker in a pipeline, in each mode, and the memory that it takes."""

import asyncio
import contextlib
import gc
import sys
from collections.abc import Callable
from typing import Any

import pytest

from resilience import CircuitOpenError, Mode, Pipeline, RejectReason, Retry, backoff
from resilience._policies.breaker.breaker import CircuitBreaker
from resilience.events import BreakerChanged, BreakerState, Rejected
from resilience.testing import Recorder, VirtualClock
from tests.policies.breaker.helpers import Rig, fails

# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


@pytest.mark.usefixtures("clock")
class TestInAPipeline:
    def test_sync_and_async_share_it(self, clock: VirtualClock) -> None:
        breaker = CircuitBreaker(consecutive_failures=8)
        pipeline = Pipeline(breaker, name="quotes")

        async def fails_later() -> None:
            await asyncio.sleep(0)
            raise ConnectionError

        for _ in range(2):
            with pytest.raises(ConnectionError):
                pipeline.call(fails)
            with pytest.raises(ConnectionError):
                asyncio.run(pipeline.acall(fails_later))
        with Recorder(pipeline, events=[Rejected]) as recorder:
            with pytest.raises(CircuitOpenError):
                pipeline.call(fails)
            with pytest.raises(CircuitOpenError):
                asyncio.run(pipeline.acall(fails_later))
        rejections = recorder.of(Rejected)
        assert [(one.reason, one.mode) for one in rejections] == [(RejectReason.OPEN, Mode.ENFORCE)] * 2
        assert [one.retry_after for one in rejections] == [pytest.approx(breaker.snapshot()["retry_after"])] * 2
        clock.advance(2)
        for _ in range(3):
            assert pipeline.call(lambda: "fine") == "fine"
        assert breaker.snapshot()["state"] == "closed"

    def test_a_retry_outside_does_not_retry_the_refusal(self) -> None:
        pipeline = Pipeline(Retry(9, wait=backoff.none()), CircuitBreaker(consecutive_failures=4))
        calls: list[None] = []

        def down() -> None:
            calls.append(None)
            raise ConnectionError("down")

        with pytest.raises(ConnectionError) as caught:
            pipeline.call(down)
        assert len(calls) == 2
        assert "attempt 3 not made: circuit open" in caught.value.__notes__[0]
        with pytest.raises(CircuitOpenError):
            pipeline.call(down)

    def test_shadow_mode_lets_everything_through_and_keeps_the_state_true(self, clock: VirtualClock) -> None:
        breaker = CircuitBreaker(consecutive_failures=4, mode="shadow")
        pipeline = Pipeline(breaker, name="quotes")
        healthy = False
        calls: list[None] = []

        def dependency() -> None:
            calls.append(None)
            if not healthy:
                raise ConnectionError

        def ask() -> None:
            with contextlib.suppress(ConnectionError):
                pipeline.call(dependency)

        with Recorder(pipeline, events=[Rejected, BreakerChanged]) as recorder:
            for _ in range(5):
                ask()
            assert breaker.snapshot()["state"] == "open"
            assert [one.mode for one in recorder.of(Rejected)] == [Mode.SHADOW] * 3
            clock.advance(2)
            ask()  # a probe, which fails
            assert breaker.snapshot()["opens"] == 2
            clock.advance(2)
            healthy = True
            for _ in range(3):
                ask()
        assert breaker.snapshot()["state"] == "closed"
        assert len(calls) == 9
        assert [one.state for one in recorder.of(BreakerChanged)] == [
            "open",
            "half_open",
            "open",
            "half_open",
            "closed",
        ]
        assert {one.mode for one in recorder.of(BreakerChanged)} == {Mode.SHADOW}

    def test_the_log_tells_shadow_mode(self, caplog: pytest.LogCaptureFixture) -> None:
        breaker = CircuitBreaker(consecutive_failures=1, mode="shadow")
        pipeline = Pipeline(breaker, name="logged-in-the-shadow")

        def dependency() -> None:
            raise ConnectionError

        with pytest.raises(ConnectionError):
            pipeline.call(dependency)

        assert "logged-in-the-shadow/breaker: the circuit breaker would be open since" in caplog.text

    def test_off(self) -> None:
        breaker = CircuitBreaker(consecutive_failures=1)
        pipeline = Pipeline(breaker)
        breaker.mode = Mode.OFF
        with pytest.raises(ConnectionError):
            pipeline.call(fails)
        assert breaker.snapshot()["calls"] == 0

    def test_a_cancelled_probe_gives_its_place_back(self, clock: VirtualClock) -> None:
        breaker = CircuitBreaker(consecutive_failures=1, half_open_calls=1)
        pipeline = Pipeline(breaker)
        with pytest.raises(ConnectionError):
            pipeline.call(fails)
        clock.advance(2)

        async def main() -> None:
            async def hangs() -> None:
                await asyncio.Event().wait()

            for _ in range(3):
                task = asyncio.create_task(pipeline.acall(hangs))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                with pytest.raises(CircuitOpenError):
                    await pipeline.acall(hangs)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task

        asyncio.run(main())
        assert breaker.snapshot()["state"] == "half_open"
        for error in (KeyboardInterrupt, KeyError, GeneratorExit):
            with pytest.raises(error):
                pipeline.call(raises(error))
        pipeline.call(lambda: None)
        assert breaker.snapshot()["state"] == "closed"


def raises(error: type[BaseException]) -> Callable[[], None]:
    def raising() -> None:
        raise error

    return raising


def size(thing: Any, seen: set[int]) -> int:
    if id(thing) in seen or isinstance(thing, type | BreakerState | Mode):
        return 0
    seen.add(id(thing))
    return sys.getsizeof(thing) + sum(size(part, seen) for part in gc.get_referents(thing))


def test_memory() -> None:
    breaker = CircuitBreaker()
    seen: set[int] = set()
    assert 500 < sum(size(part, seen) for part in (vars(breaker), *vars(breaker).values())) < 3000


@pytest.mark.usefixtures("clock")
class TestRejections:
    def test_the_policy_is_named_as_in_the_pipeline(self) -> None:
        first, second = CircuitBreaker(), CircuitBreaker()
        second.isolate()

        with pytest.raises(CircuitOpenError) as caught:
            Pipeline(first, second).call(int)

        assert caught.value.policy == "breaker_2"

    def test_the_time_that_is_left_may_be_longer_than_the_clock_has_run(self, clock: VirtualClock) -> None:
        open_for = 3 * clock.monotonic()
        rig = Rig(open_for=open_for, max_open_for=2 * open_for)
        rig.open()

        assert rig.refused().retry_after == pytest.approx(rig.breaker.snapshot()["retry_after"])
        assert rig.breaker.snapshot()["retry_after"] > 2 * clock.monotonic()

    def test_a_probe_that_comes_too_late_is_rejected_with_the_time_that_is_left(self, clock: VirtualClock) -> None:
        """Another probe has failed since the breaker was seen half-open."""
        open_for = 3 * clock.monotonic()
        rig = Rig(half_open_calls=1, open_for=open_for, max_open_for=100 * open_for)
        rig.half_open(clock)
        machine = vars(rig.breaker)["_machine"]
        take, first = machine.take, rig.admit()

        def takes_too_late(*probe: Any) -> bool:
            rig.end(first, "failed")
            return bool(take(*probe))

        machine.take = takes_too_late

        assert rig.refused().retry_after == pytest.approx(rig.breaker.snapshot()["retry_after"])
        assert rig.breaker.snapshot()["retry_after"] > 2 * open_for / 3


@pytest.mark.parametrize("state", BreakerState)
def test_a_hedge_is_permitted_while_it_is_closed(state: BreakerState, clock: VirtualClock) -> None:
    rig = Rig()
    if state is BreakerState.HALF_OPEN:
        rig.half_open(clock)
    elif state is BreakerState.OPEN:
        rig.open()
    elif state is BreakerState.ISOLATED:
        rig.breaker.isolate()

    assert rig.breaker.permits_hedge(rig.call()) is (state is BreakerState.CLOSED)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_call_may_take_longer_than_the_clock_had_run_before(clock: VirtualClock, streamed: bool) -> None:
    rig = Rig(slow_after=2 * clock.monotonic(), window=1e9)
    token = rig.admit()
    clock.advance(3 * clock.monotonic())
    if streamed:
        token = rig.breaker.on_response_head(token)
    rig.end(token, "ok")

    assert rig.counts == (1, 0, 1)


def test_it_is_busy_while_it_is_open_or_isolated(clock: VirtualClock) -> None:
    rig = Rig(open_for=5.0)
    now = clock.monotonic()
    assert rig.breaker._busy_until(now) == now
    rig.open()
    assert rig.breaker._busy_until(now) == pytest.approx(now + rig.breaker.snapshot()["retry_after"])
    rig.breaker.isolate()
    assert rig.breaker._busy_until(now) == float("inf")


def test_an_exception_that_is_no_failure_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    class Strange(Exception):
        pass

    def strange() -> None:
        raise Strange

    pipeline = Pipeline(CircuitBreaker())
    for _ in range(2):
        with pytest.raises(Strange):
            pipeline.call(strange)

    assert len([line for line in caplog.messages if "Strange" in line]) == 1


def test_the_snapshot_counts_parts_of_a_second(clock: VirtualClock) -> None:
    rig = Rig(open_for=1.0)
    assert rig.seen("seconds_in_state") == (0.0,)
    rig.open()
    clock.advance(rig.breaker.snapshot()["retry_after"] - 0.25)

    assert rig.seen("retry_after") == (pytest.approx(0.25),)


def test_the_message_says_for_how_long_it_is_open(clock: VirtualClock) -> None:
    del clock
    rig = Rig(open_for=20.0)
    rig.open()

    assert f"open for {rig.breaker.snapshot()['retry_after']:.3g} s" in str(rig.refused())
