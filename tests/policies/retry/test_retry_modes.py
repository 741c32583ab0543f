"""A Retry in shadow mode, and one that is off."""

import asyncio

import pytest

from resilience import Mode, Pipeline, Retry
from resilience.events import RetryGivenUp, RetryScheduled
from resilience.testing import Recorder, VirtualClock
from tests.policies.retry.helpers import Down, notes

# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


class TestShadow:
    def test_it_reports_and_does_not_retry(self, clock: VirtualClock) -> None:
        pipeline = Pipeline(Retry(mode="shadow"))
        down = Down(default=ConnectionError)
        with Recorder(pipeline, events=[RetryScheduled]) as recorder, pytest.raises(ConnectionError) as caught:
            pipeline.call(down)
        (event,) = recorder.of(RetryScheduled)
        assert (down.calls, event.mode, event.attempt) == (1, Mode.SHADOW, 1)
        assert clock.sleeps == []
        assert notes(caught.value) == []

    def test_async(self, clock: VirtualClock) -> None:
        pipeline = Pipeline(Retry(mode="shadow"))
        down = Down(default=ConnectionError)

        async def main() -> None:
            with pytest.raises(ConnectionError):
                await pipeline.acall(down)
            assert await pipeline.acall(Down()) == "fine"

        with Recorder(pipeline, events=[RetryScheduled]) as recorder:
            asyncio.run(main())
        assert (down.calls, clock.sleeps) == (1, [])
        assert [event.mode for event in recorder.of(RetryScheduled)] == [Mode.SHADOW]

    def test_off(self) -> None:
        pipeline = Pipeline(Retry(mode="off"))
        down = Down(default=ConnectionError)
        with Recorder(pipeline, events=[RetryScheduled, RetryGivenUp]) as recorder, pytest.raises(ConnectionError):
            pipeline.call(down)
        assert (down.calls, recorder.events) == (1, [])
