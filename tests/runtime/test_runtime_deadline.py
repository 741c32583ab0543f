"""Calls that are cut at their deadline, on every event loop."""

from __future__ import annotations

import contextvars

import anyio
import anyio.lowlevel
import pytest

from resilience import DeadlineExceededError, Pipeline, Retry, Timeout, backoff, deadline_after, remaining
from resilience._util.clock import clock
from resilience.events import CallEnded, Outcome, TimedOut
from resilience.testing import Recorder
from tests.support.functions import AppError, hang, pages
from tests.support.loops import Run, each_loop, uncancelled, uvloop_too
from tests.support.turnstile import Turnstile

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@uvloop_too
def test_a_hang_is_cut_and_every_gate_hears_of_it(run: Run) -> None:
    outer, inner = Turnstile(), Turnstile()
    pipeline = Pipeline(outer, Timeout(2, name="total"), inner, name=f"quotes {run.__name__}")

    async def main() -> None:
        with pytest.raises(DeadlineExceededError) as caught:
            await pipeline.acall(hang)
        error = caught.value
        whose = f"the deadline of total of {pipeline.name} (2 s)"
        assert str(error) == f"{whose} passed while hang ran; it had 2 s of virtual time, and may have been processed"
        assert (error.policy, error.pipeline, error.unprocessed, error.scored) == ("total", pipeline.name, False, True)
        assert isinstance(error, TimeoutError)
        assert uncancelled()
        await anyio.lowlevel.checkpoint()

    with Recorder(pipeline) as recorder:
        run(main)

    assert (outer.endings, inner.endings) == (["timed_out"], ["timed_out"])
    assert [(event.scope, event.timeout, event.late, event.policy) for event in recorder.of(TimedOut)] == [
        ("call", 2.0, False, "total")
    ]
    assert [event.outcome for event in recorder.of(CallEnded)] == [Outcome.TIMED_OUT]


@each_loop
def test_what_answers_in_time_is_left_alone(run: Run) -> None:
    pipeline = Pipeline(Timeout(2))

    async def main() -> None:
        async def quick() -> str:
            await anyio.sleep(1)
            return "fine"

        assert await pipeline.acall(quick) == "fine"
        await anyio.sleep(5)  # the cut must not come later
        assert uncancelled()

    run(main)


@uvloop_too
def test_each_attempt_is_cut_and_tried_again_until_the_total_is_up(run: Run) -> None:
    pipeline = Pipeline(Timeout(2.5), Retry(5, wait=backoff.fixed(0.1)), Timeout(1.0))
    starts: list[float] = []

    async def slow() -> None:
        starts.append(remaining(0.0))
        await anyio.Event().wait()

    async def main() -> None:
        with pytest.raises(DeadlineExceededError) as caught:
            await pipeline.acall(slow)
        assert caught.value.policy == "timeout"
        assert "past the deadline" in caught.value.__notes__[0]

    with Recorder(pipeline) as recorder:
        run(main)

    assert starts == pytest.approx([1.0, 1.0, 0.3])
    assert [event.scope for event in recorder.of(TimedOut)] == ["attempt", "attempt", "call"]


@each_loop
def test_a_swallowed_cut_gives_a_late_value_that_counts_as_timed_out(run: Run) -> None:
    outer, inner = Turnstile(), Turnstile()
    pipeline = Pipeline(outer, Retry(3), Timeout(1), inner)
    calls: list[int] = []

    async def stubborn() -> str:
        calls.append(1)
        with anyio.move_on_after(5) as scope:
            try:
                await anyio.Event().wait()
            except BaseException:
                scope.shield = True
        return "late"

    async def main() -> None:
        assert await pipeline.acall(stubborn) == "late"
        assert uncancelled()

    with Recorder(pipeline, events=[TimedOut]) as recorder:
        run(main)

    assert calls == [1]
    assert (outer.endings, inner.endings) == (["timed_out"], ["timed_out"])
    assert [event.late for event in recorder.events if isinstance(event, TimedOut)] == [True]


@uvloop_too
def test_a_converted_cut_is_still_our_cut(run: Run) -> None:
    gate = Turnstile()
    pipeline = Pipeline(Timeout(1), gate, failures=ConnectionError)

    async def converts() -> None:
        try:
            await anyio.Event().wait()
        except BaseException as error:
            raise AppError from error

    async def main() -> None:
        with pytest.raises(DeadlineExceededError) as caught:
            await pipeline.acall(converts)
        assert isinstance(caught.value.__cause__, AppError)
        assert uncancelled()

    run(main)

    assert gate.endings == ["timed_out"]


@each_loop
def test_a_cut_through_a_task_group_is_still_our_cut(run: Run) -> None:
    pipeline = Pipeline(Timeout(1))

    async def child() -> None:
        try:
            await anyio.Event().wait()
        finally:
            raise AppError

    async def family() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(child)
            group.start_soon(child)

    async def main() -> None:
        with pytest.raises(DeadlineExceededError):
            await pipeline.acall(family)
        assert uncancelled()
        await anyio.lowlevel.checkpoint()

    run(main)


@uvloop_too
def test_deadlines_that_come_out_of_order_are_cut_in_order(run: Run) -> None:
    pipeline = Pipeline(Retry(1))
    order: list[int] = []

    async def one(seconds: int) -> None:
        with deadline_after(seconds), pytest.raises(DeadlineExceededError):
            await pipeline.acall(hang)
        order.append(seconds)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for seconds in (5, 3, 9, 1, 7):
                group.start_soon(one, seconds)

    run(main)

    assert order == [1, 3, 5, 7, 9]


@each_loop
def test_context_variables_stay_set(run: Run) -> None:
    async def sets() -> None:
        variable.set("by the function")

    async def main() -> None:
        await Pipeline(Timeout(1), Retry(2)).acall(sets)
        assert variable.get() == "by the function"

    run(main)


@each_loop
def test_misuse_under_a_deadline_is_refused_when_awaited(run: Run) -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match="returned a generator"):
            await Pipeline(Timeout(1)).acall(pages)
        assert await Pipeline(Timeout(1)).acall(int) == 0

    run(main)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["asyncio", "uvloop", "trio"])
def test_real_clocks(backend: str) -> None:
    pipeline = Pipeline(Retry(2, wait=backoff.none()), Timeout(0.05))

    async def main() -> None:
        started = clock.monotonic()
        with pytest.raises(DeadlineExceededError):
            await pipeline.acall(hang)
        assert 0.1 <= clock.monotonic() - started <= 0.1 + 0.25

    options = {"use_uvloop": True} if backend == "uvloop" else {}
    anyio.run(main, backend="trio" if backend == "trio" else "asyncio", backend_options=options)
