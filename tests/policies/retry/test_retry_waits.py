"""The waits between attempts: backoffs, hints of the server, waits by kind of failure."""

import asyncio
import statistics

import pytest

from resilience import Allowlist, Failure, FailureKind, Mode, Pipeline, Retry, backoff
from resilience.events import RetryGivenUp, RetryScheduled
from resilience.testing import Recorder, VirtualClock, seeded
from tests.policies.retry.helpers import Down, listing

# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


class TestWaits:
    @pytest.mark.parametrize(
        ("hint", "longest", "slept"),
        [
            (5.0, 60.0, [5.0]),
            (1.0, 60.0, [2.0]),
            (60.0, 60.0, [60.0]),
            (5.0, 0.0, [2.0]),
            (1e9, 0.0, [2.0]),
            (0.0, 60.0, [2.0]),
            (float("nan"), 60.0, [2.0]),
            (float("inf"), 60.0, [2.0]),
            (-1.0, 60.0, [2.0]),
            (None, 60.0, [2.0]),
        ],
    )
    def test_hints(self, clock: VirtualClock, hint: float | None, longest: float, slept: list[float]) -> None:
        retry = Retry(wait=backoff.fixed(2), max_retry_after=longest)
        pipeline = Pipeline(retry, failures=listing(Failure(retry_after=hint)))
        with Recorder(pipeline, events=[RetryScheduled]) as recorder:
            assert pipeline.call(Down(ConnectionError("no"))) == "fine"
        (event,) = recorder.of(RetryScheduled)
        assert (event.attempt, event.mode) == (1, Mode.ENFORCE)
        assert clock.sleeps == pytest.approx([event.wait])
        most = min(slept[0] * 1.2, slept[0] + 5) if slept[0] == hint else slept[0]
        assert slept[0] <= event.wait <= most

    def test_calls_that_were_given_the_same_hint_do_not_come_back_together(self, clock: VirtualClock) -> None:
        pipeline = Pipeline(Retry(wait=backoff.none()), failures=listing(Failure(retry_after=10.0)), budget=None)

        with seeded(7):
            for _ in range(300):
                pipeline.call(Down(ConnectionError("no")))

        assert min(clock.sleeps) >= 10
        assert max(clock.sleeps) <= 12
        assert statistics.quantiles(clock.sleeps, n=4) == pytest.approx([10.5, 11, 11.5], abs=0.2)

    def test_by_kind(self, clock: VirtualClock) -> None:
        waits = {
            FailureKind.TRANSIENT: backoff.fixed(1),
            FailureKind.TIMEOUT: backoff.fixed(2),
            FailureKind.OVERLOAD: backoff.fixed(4),
        }
        failures = Allowlist(ConnectionError, TimeoutError) | listing(Failure(FailureKind.OVERLOAD))
        busy = Allowlist(when=lambda error: Failure(FailureKind.OVERLOAD) if isinstance(error, OSError) else None)
        pipeline = Pipeline(Retry(4, wait=waits), failures=failures | busy)
        assert pipeline.call(Down(TimeoutError(), OSError(), ConnectionError())) == "fine"
        assert clock.sleeps == pytest.approx([2, 4, 1])

    def test_no_wait_never_sleeps(self, clock: VirtualClock) -> None:
        pipeline = Pipeline(Retry(wait=backoff.none()))
        assert pipeline.call(Down(ConnectionError(), ConnectionError())) == "fine"

        async def main() -> None:
            assert await pipeline.acall(Down(ConnectionError(), ConnectionError())) == "fine"

        asyncio.run(main())
        assert clock.sleeps == []
        assert clock.elapsed == 0

    @pytest.mark.usefixtures("clock")
    @pytest.mark.parametrize("wait", [float("nan"), float("inf"), -1.0])
    def test_a_broken_backoff_lets_the_failure_out(self, wait: float) -> None:
        class Broken(backoff.Backoff):
            def seconds(self, retry: int, previous: float | None) -> float:
                return wait

        down = Down(default=ConnectionError)
        pipeline = Pipeline(Retry(wait=Broken()))
        with Recorder(pipeline, events=[RetryGivenUp]) as recorder, pytest.raises(ConnectionError):
            pipeline.call(down)
        assert (down.calls, recorder.events) == (1, [])

    def test_a_backoff_gets_the_number_and_the_last_wait(self, clock: VirtualClock) -> None:
        seen: list[tuple[int, float | None]] = []

        class Noting(backoff.Backoff):
            def seconds(self, retry: int, previous: float | None) -> float:
                seen.append((retry, previous))
                return float(retry)

        assert Pipeline(Retry(wait=Noting())).call(Down(ConnectionError(), ConnectionError())) == "fine"
        assert seen == [(1, None), (2, 1.0)]
        assert clock.sleeps == pytest.approx([1, 2])

    @pytest.mark.usefixtures("clock")
    def test_a_whole_number_of_seconds_becomes_a_float(self) -> None:
        class Whole(backoff.Backoff):
            def seconds(self, retry: int, previous: float | None) -> float:
                return 2

        pipeline = Pipeline(Retry(wait=Whole()))
        with Recorder(pipeline, events=[RetryScheduled]) as recorder:
            assert pipeline.call(Down(ConnectionError())) == "fine"
        assert [repr(event.wait) for event in recorder.of(RetryScheduled)] == ["2.0"]
