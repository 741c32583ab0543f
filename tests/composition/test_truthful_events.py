"""What is said is true: events, warnings and counts where something unusual happens."""

from __future__ import annotations

import asyncio
import gc
import logging
import warnings
import weakref
from typing import Any

import pytest

import resilience
from resilience import Mode, Pipeline, RejectedError, ResilienceWarning, Retry, RetryBudget, Substitute, backoff
from resilience._util.log_once import forget
from resilience.events import CallEnded, FallbackUsed, Outcome, Rejected
from resilience.testing import Recorder, VirtualClock, virtual_time
from tests.support.turnstile import Turnstile


@pytest.fixture(autouse=True)
def _forget() -> None:
    forget()


def down() -> str:
    raise ConnectionError("down")


def broken() -> bool:
    raise RuntimeError("a bug in a hook")


class Stale(Substitute[str]):
    def replace(self, call: Any, ending: Any) -> str:
        return "stale"


def test_what_when_raises_never_reaches_the_call(virtual_time: VirtualClock, caplog: pytest.LogCaptureFixture) -> None:
    pipeline = Pipeline(Stale(), Retry(2))
    heard: list[Any] = []
    pipeline.subscribe(heard.append, when=broken)

    with caplog.at_level(logging.ERROR, "resilience"):
        assert pipeline.call(down) == "stale"

    assert heard == []
    assert len(caplog.records) == 1
    assert "when= of a listener" in caplog.text


def test_a_call_cancelled_between_attempts_made_one() -> None:
    pipeline = Pipeline(Retry(3, wait=backoff.fixed(60)))

    async def main() -> None:
        task = asyncio.ensure_future(pipeline.acall(down))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with virtual_time(), Recorder(pipeline, events=[CallEnded]) as recorder:
        asyncio.run(main())

    assert [(event.outcome, event.attempts) for event in recorder.of(CallEnded)] == [(Outcome.ABANDONED, 1)]


def test_a_call_cancelled_in_a_queue_made_none() -> None:
    gate = Turnstile()
    pipeline = Pipeline(gate)
    assert gate.take()

    async def main() -> None:
        task = asyncio.ensure_future(pipeline.acall(down))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with virtual_time(), Recorder(pipeline, events=[CallEnded]) as recorder:
        asyncio.run(main())

    assert [(event.outcome, event.attempts) for event in recorder.of(CallEnded)] == [(Outcome.ABANDONED, 0)]


def test_a_drained_inner_pipeline_refuses_in_its_own_name() -> None:
    inner = Pipeline(Retry(), name="inner-drained")
    outer = Pipeline(inner, name="outer-of-drained")
    inner.drain(0)

    with Recorder(inner) as within, Recorder(outer) as without, pytest.raises(RejectedError) as caught:
        outer.call(down)

    assert caught.value.pipeline == "inner-drained"
    assert [event.pipeline for event in within.of(Rejected)] == ["inner-drained"]
    assert without.of(Rejected) == []
    assert [event.outcome for event in without.of(CallEnded)] == [Outcome.REJECTED]
    assert outer.snapshot()["in_flight"] == 0


@pytest.mark.parametrize("mode", ["enforce", "shadow", "off"])
def test_an_inner_pipeline_is_drained_in_every_mode(mode: str) -> None:
    inner = Pipeline(Retry(), mode=mode)
    outer = Pipeline(inner)
    inner.drain(0)

    with pytest.raises(RejectedError, match="drained"):
        outer.call(down)


def test_a_call_refused_while_draining_has_an_end() -> None:
    pipeline = Pipeline(Retry())
    pipeline.drain(0)

    async def main() -> None:
        with pytest.raises(RejectedError):
            await pipeline.acall(down)

    with Recorder(pipeline) as recorder:
        with pytest.raises(RejectedError):
            pipeline.call(down)
        asyncio.run(main())

    ends = [(event.outcome, event.attempts) for event in recorder.of(CallEnded)]
    assert ends == [(Outcome.REJECTED, 0), (Outcome.REJECTED, 0)]


def test_a_substitute_in_shadow_mode_says_what_it_would_do() -> None:
    pipeline = Pipeline(Stale(mode="shadow"))

    async def main() -> None:
        with pytest.raises(ConnectionError):
            await pipeline.acall(down)

    with Recorder(pipeline) as recorder:
        with pytest.raises(ConnectionError):
            pipeline.call(down)
        asyncio.run(main())
        with pytest.raises(ValueError, match="nobody listed this"):
            pipeline.call(int, "nobody listed this")

    assert [event.mode for event in recorder.of(FallbackUsed)] == [Mode.SHADOW, Mode.SHADOW]


def test_an_attempt_that_was_not_made_is_not_paid_for(virtual_time: VirtualClock) -> None:
    gate = Turnstile(room=0)

    class ClosesAfterOne(Turnstile):
        def settle(self, token: Any, ending: Any) -> None:
            pass  # the one permit stays out

    gate = ClosesAfterOne(room=0)
    budget = RetryBudget(capacity=5)
    pipeline = Pipeline(Retry(3), gate, budget=budget)

    with pytest.raises(ConnectionError) as caught:
        pipeline.call(down)

    assert "attempt 2 not made: bulkhead full" in caught.value.__notes__[0]
    assert budget.tokens == 5


def test_a_refund_to_a_grpc_budget_changes_nothing() -> None:
    budget = RetryBudget.grpc(10)
    budget.failed()

    budget.refund()

    assert budget.tokens == 9


def test_the_budget_of_a_retry_of_its_own_is_shown_and_reset(virtual_time: VirtualClock) -> None:
    retry = Retry(2, budget=RetryBudget(capacity=3))
    pipeline = Pipeline(retry, Retry(1))
    with pytest.raises(ConnectionError):
        pipeline.call(down)

    assert pipeline.snapshot()["policies"]["retry"] == {"budget": {"tokens": 2.0, "capacity": 3.0}}
    assert pipeline.snapshot()["policies"]["retry_2"] == {}
    pipeline.reset()

    assert pipeline.snapshot()["policies"]["retry"] == {"budget": {"tokens": 3.0, "capacity": 3.0}}


def test_the_log_of_a_shadow_retry_does_not_promise(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "resilience"), pytest.raises(ConnectionError):
        Pipeline(Retry(mode="shadow")).call(down)

    assert "would follow in" in caplog.text


def test_warnings_point_at_the_line_of_the_user() -> None:
    keep = Pipeline(Retry(), name="twice-at-my-line")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        again = Pipeline(Retry(), name="twice-at-my-line")

    assert [(str(one.category.__name__), one.filename) for one in caught] == [(ResilienceWarning.__name__, __file__)]
    assert resilience.pipelines()["twice-at-my-line"] is again
    del keep


def test_warnings_for_an_adopted_name_point_at_the_line_of_the_user() -> None:
    keep = Pipeline(Retry(), name="namesake")
    unnamed = Pipeline(Retry())

    def namesake() -> None: ...

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        unnamed(namesake)

    assert [one.filename for one in caught] == [__file__]
    del keep


def test_what_is_bound_keeps_its_pipeline() -> None:
    pipeline = Pipeline(Retry(), name="kept-by-what-is-bound")
    guarded = pipeline.bind(idempotent=True)(lambda: "fine")
    alive = weakref.ref(pipeline)
    del pipeline
    gc.collect()

    assert resilience.pipelines()["kept-by-what-is-bound"] is alive()
    assert guarded() == "fine"


def test_the_mapping_of_pipelines_is_read_in_one_go() -> None:
    keep = Pipeline(Retry(), name="read-in-one-go")

    assert keep in list(resilience.pipelines().values())
    assert ("read-in-one-go", keep) in list(resilience.pipelines().items())


def test_a_wait_in_a_queue_is_no_sleep() -> None:
    gate = Turnstile(patience=5)
    assert gate.take()

    async def main() -> None:
        with pytest.raises(RejectedError):
            await Pipeline(gate).acall(down)

    with virtual_time() as clock:
        asyncio.run(main())

    assert clock.sleeps == []
    assert clock.elapsed == pytest.approx(5)


def test_a_pipeline_has_no_settings_of_its_own() -> None:
    with pytest.raises(TypeError, match="has no setting attempts; it has none of its own"):
        Pipeline(Retry()).update(attempts=3)


def test_a_virtual_loop_outside_virtual_time_waits_for_real() -> None:
    from resilience.testing import virtual_loop

    loop = virtual_loop()
    try:
        turns: list[int] = []

        async def main() -> None:
            loop.call_later(0.05, lambda: None)
            waiter = loop.create_future()
            loop.call_later(0.05, waiter.set_result, None)
            selector: Any = vars(loop)["_selector"]
            select = selector.select

            def counted(timeout: float | None = None) -> Any:
                turns.append(1)
                return select(timeout)

            selector.select = counted
            await waiter

        loop.run_until_complete(main())
    finally:
        loop.close()

    assert len(turns) < 20
