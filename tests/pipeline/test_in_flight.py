"""Draining a pipeline, and the calls that it waits for."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest

from resilience import DeferredSettlement, Pipeline, RejectedError, RejectReason, Retry, RetryBudget, backoff
from resilience._call.caller import options_of
from resilience._call.entry import execute
from resilience._call.running_call import RunningCall
from resilience._outcome.network_errors import NETWORK_ERRORS
from resilience._pipeline.in_flight import Drain
from resilience.events import Rejected, RetryScheduled
from resilience.testing import Recorder, virtual_time
from tests.support.functions import Flaky, down
from tests.support.policies import Streaming, retrying
from tests.support.turnstile import Turnstile

PATIENCE = 60.0
# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


class TestDraining:
    def test_new_calls_are_refused_until_resume(self) -> None:
        pipeline = retrying(name="drained")
        guarded = pipeline.bind()
        assert pipeline.drain(0)
        assert pipeline.snapshot()["draining"] is True
        with Recorder(pipeline) as recorder:
            with pytest.raises(RejectedError, match="drained") as caught:
                guarded.call(int)
            with pytest.raises(RejectedError):
                asyncio.run(pipeline.acall(int))
        assert caught.value.reason is RejectReason.DRAINING
        assert [event.reason for event in recorder.of(Rejected)] == ["draining", "draining"]
        pipeline.resume()
        assert guarded.call(int) == 0
        assert asyncio.run(pipeline.acall(int)) == 0
        assert pipeline.snapshot()["in_flight"] == 0

    def test_it_ends_a_wait_in_another_thread(self) -> None:
        pipeline = Pipeline(Retry(wait=backoff.fixed(3600), max_retry_after=0))
        waiting = threading.Event()
        raised: list[BaseException] = []

        def work() -> None:
            try:
                pipeline.call(down)
            except ConnectionError as error:
                raised.append(error)

        with pipeline.subscribe(lambda event: waiting.set(), events=[RetryScheduled]):
            thread = threading.Thread(target=work)
            thread.start()
            assert waiting.wait(PATIENCE)
            assert pipeline.drain(PATIENCE)
        thread.join(PATIENCE)
        assert len(raised) == 1
        assert pipeline.snapshot()["in_flight"] == 0

    def test_adrain(self) -> None:
        pipeline = Pipeline(Retry(wait=backoff.fixed(3600)))

        async def main() -> None:
            call = asyncio.create_task(pipeline.acall(down))
            await asyncio.sleep(0)
            assert await pipeline.adrain(10)
            with pytest.raises(ConnectionError) as caught:
                await call
            assert caught.value.__notes__ == ["resilience: attempt 2 not made: draining"]

        with virtual_time() as clock:
            asyncio.run(main())
            assert clock.elapsed < 10

    def test_it_does_not_wait_for_calls_that_it_refuses(self) -> None:
        pipeline: Pipeline[Any] = Pipeline(name="drained-under-load")
        refusing, told = threading.Event(), threading.Event()

        def listen(event: Rejected) -> None:
            refusing.set()
            assert told.wait(PATIENCE)

        def late() -> None:
            with pytest.raises(RejectedError):
                pipeline.call(int)

        with pipeline.subscribe(listen, events=[Rejected]):
            drain = Drain(pipeline.in_flight)
            thread = threading.Thread(target=late)
            thread.start()
            assert refusing.wait(PATIENCE)
            assert pipeline.snapshot()["in_flight"] == 1
            assert not drain.unfinished()
            told.set()
            thread.join(PATIENCE)

    def test_whoever_leaves_as_a_drain_begins_to_wait_tells_it(self) -> None:
        pipeline: Pipeline[Any] = Pipeline(name="drained-at-the-last-moment")
        told: list[str] = []

        class Live(set[Any]):
            def discard(self, call: Any) -> None:
                if not told:
                    told.append("the drain waits")
                    assert Drain(pipeline.in_flight).add_waker(lambda: told.append("somebody has left"))
                super().discard(call)

        pipeline.in_flight.calls = Live()
        assert pipeline(lambda: 0)() == 0

        assert told == ["the drain waits", "somebody has left"]

    def test_a_drain_that_finds_somebody_gone_tells_the_others(self) -> None:
        pipeline: Pipeline[Any] = Pipeline(name="drained-by-two")
        told: list[str] = []
        call = RunningCall.make(options_of(pipeline, NETWORK_ERRORS), int, (), {})
        pipeline.in_flight.calls.add(call)
        first, second = Drain(pipeline.in_flight), Drain(pipeline.in_flight)
        assert first.add_waker(lambda: told.append("the first"))

        pipeline.in_flight.calls.discard(call)  # and whoever has left has not looked for drains yet
        assert not second.unfinished()

        assert told == ["the first"]

    def test_a_drain_that_is_resumed_from_still_waits_for_those_who_were_in(self) -> None:
        pipeline: Pipeline[Any] = Pipeline(name="resumed-while-drained")
        call = RunningCall.make(options_of(pipeline, NETWORK_ERRORS), int, (), {})
        pipeline.in_flight.calls.add(call)
        drain = Drain(pipeline.in_flight)

        pipeline.resume()
        assert drain.unfinished()

        pipeline.in_flight.calls.discard(call)
        assert not drain.unfinished()

    def test_a_stream_that_is_dropped_during_a_drain_ends_it(self) -> None:
        pipeline: Pipeline[Any] = Pipeline(Turnstile(), name="drained-of-a-stream")
        held: list[Any] = [DeferredSettlement()]
        held.append(
            RunningCall.make(
                options_of(pipeline, NETWORK_ERRORS), lambda: setattr(held[1], "deferred", held[0]), (), {}
            )
        )
        execute(pipeline.engine, held[1])
        drain = Drain(pipeline.in_flight)
        assert drain.unfinished()
        held.clear()
        gc.collect()

        assert not drain.unfinished()
        assert pipeline.drain(0)

    def test_in_vain(self) -> None:
        pipeline = Pipeline[Any]()
        with virtual_time() as clock:
            assert pipeline.call(lambda: pipeline.drain(5)) is False
            assert clock.elapsed == pytest.approx(5)

    @pytest.mark.parametrize("timeout", [-1, float("nan")])
    def test_wrong_timeout(self, timeout: float) -> None:
        pipeline = retrying()
        with pytest.raises(ValueError, match="timeout"):
            pipeline.drain(timeout)
        assert pipeline.call(int) == 0

    def test_reset(self) -> None:
        pipeline = retrying()
        pipeline.call(Flaky())
        pipeline.drain(0)
        pipeline.reset()
        assert isinstance(pipeline.budget, RetryBudget)
        assert pipeline.budget.tokens == 10
        assert pipeline.call(int) == 0


def test_a_drain_sees_a_stream_that_is_dropped() -> None:
    streaming = Streaming()
    pipeline = Pipeline(streaming)
    pipeline.call(lambda: "head")
    timer = threading.Timer(0.05, streaming.left.clear)
    timer.start()

    assert pipeline.drain(5) is True
    timer.join()
