"""Cuts: ours, somebody else's, and what must never be mistaken for one another."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import threading
import weakref
from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeAlias

import anyio
import anyio.lowlevel
import pytest
import trio
import uvloop

from resilience import (
    Allowlist,
    Call,
    DeadlineExceededError,
    Ending,
    FailureKind,
    Pipeline,
    RejectedError,
    Retry,
    Substitute,
    Timeout,
    backoff,
    carry,
    current_deadline,
    deadline_after,
    remaining,
)
from resilience._outcome.network_errors import NETWORK_ERRORS
from resilience._runtime import asyncio as on_loops
from resilience._util.clock import FOREVER, clock
from resilience._util.log_once import forget
from resilience.events import CallEnded, Outcome, Rejected, TimedOut
from resilience.testing import Recorder, VirtualClock, virtual_time
from tests.support.cancellation import RUNNERS, Report, Scenario
from tests.support.turnstile import Turnstile

Main: TypeAlias = "Callable[[], Awaitable[Any]]"
Run: TypeAlias = "Callable[[Main], Any]"


def on_asyncio(main: Main) -> Any:
    async def run() -> Any:
        return await main()

    with virtual_time():
        return asyncio.run(run())


def on_uvloop(main: Main) -> Any:
    async def run() -> Any:
        return await main()

    with virtual_time(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


def on_trio(main: Main) -> Any:
    with virtual_time() as clock:
        return trio.run(main, clock=clock.trio())


each_loop = pytest.mark.parametrize("run", [on_asyncio, on_trio])
uvloop_too = pytest.mark.parametrize("run", [on_asyncio, on_uvloop, on_trio])  # only our own waits are virtual there


@pytest.fixture(autouse=True)
def _forget() -> None:
    forget()


async def hang() -> str:
    await anyio.Event().wait()
    return "never"


def uncancelled() -> bool:
    """Whether the running task has no cancellation left over."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return True
    return task is None or task.cancelling() == 0


@uvloop_too
def test_a_hang_is_cut_and_every_gate_hears_of_it(run: Run) -> None:
    outer, inner = Turnstile(), Turnstile()
    pipeline = Pipeline(outer, Timeout(2, name="total"), inner, name=f"quotes {run.__name__}")

    async def main() -> None:
        with pytest.raises(DeadlineExceededError) as caught:
            await pipeline.acall(hang)
        error = caught.value
        whose = f"the deadline of total of {pipeline.name} (2 s)"
        assert str(error) == f"{whose} passed while hang ran; it had 2 s, and may have been processed"
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


@pytest.mark.parametrize(
    "pipeline",
    [
        Pipeline(Retry(2, wait=backoff.none()), Pipeline(Timeout(1.0), name="inner-of-a-loop"), name="loop-outside"),
        Pipeline(Pipeline(Retry(2, wait=backoff.none()), name="loop-within"), Timeout(1.0), name="after-a-loop"),
    ],
    ids=["the Timeout in a nested pipeline", "the Retry in a nested pipeline"],
)
def test_a_timeout_within_a_loop_is_that_of_an_attempt_in_whatever_pipeline_it_stands(pipeline: Pipeline[Any]) -> None:
    wholes: list[float] = []

    class Seen(Call):
        def next_attempt(self) -> None:
            wholes.append(self.total_deadline)
            super().next_attempt()

    def fail() -> None:
        wholes.append(call.total_deadline)
        raise ConnectionError

    call = Seen(pipeline.call_options(NETWORK_ERRORS), fail, (), {})
    with pytest.raises(ConnectionError):
        pipeline._execute(call)

    assert wholes == [FOREVER, FOREVER, FOREVER], "an attempt's time is not that of the streamed result"


@each_loop
def test_cancellation_from_outside_stays_cancellation(run: Run) -> None:
    gate = Turnstile()
    pipeline = Pipeline(Timeout(10), gate)

    async def main() -> None:
        with anyio.move_on_after(1) as scope:
            await pipeline.acall(hang)
        assert scope.cancelled_caught
        assert uncancelled()
        await anyio.lowlevel.checkpoint()

    run(main)

    assert gate.endings == ["abandoned"]


def test_a_native_cancellation_stays_one() -> None:
    pipeline = Pipeline(Timeout(10))

    async def main() -> None:
        task = asyncio.ensure_future(pipeline.acall(hang))
        await asyncio.sleep(1)
        task.cancel("shutting down")
        with pytest.raises(asyncio.CancelledError, match="shutting down"):
            await task
        assert task.cancelling() == 1

    on_asyncio(main)


@each_loop
def test_an_outer_scope_wins_a_tie(run: Run) -> None:
    pipeline = Pipeline(Timeout(1))

    async def main() -> None:
        with anyio.move_on_after(1) as scope:
            await pipeline.acall(hang)
        assert scope.cancelled_caught
        assert uncancelled()
        await anyio.lowlevel.checkpoint()

    run(main)


def test_an_outer_asyncio_timeout_and_ours_in_one_tick() -> None:
    gate = Turnstile()
    pipeline = Pipeline(Timeout(1), gate)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await pipeline.acall(hang)
        assert uncancelled()
        await asyncio.sleep(0)

    on_asyncio(main)


@pytest.mark.parametrize("ours_first", [True, False])
def test_outside_cancellation_in_the_tick_of_our_cut_wins(ours_first: bool) -> None:
    gate = Turnstile()
    pipeline = Pipeline(Timeout(1), gate)

    async def main() -> None:
        task = asyncio.ensure_future(pipeline.acall(hang))
        await asyncio.sleep(0.5)
        if ours_first:
            fire = on_loops._DeadlineCancel.fire

            def both(cut: Any) -> None:
                fire(cut)
                task.cancel()
        else:
            fire = on_loops._DeadlineCancel.fire

            def both(cut: Any) -> None:
                task.cancel()
                fire(cut)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(on_loops._DeadlineCancel, "fire", both)
            with pytest.raises(asyncio.CancelledError):
                await task
        assert task.cancelling() == 1

    on_asyncio(main)

    assert gate.endings == ["abandoned"]


@each_loop
def test_the_users_own_timeout_stays_the_users(run: Run) -> None:
    gate = Turnstile()
    pipeline = Pipeline(Timeout(10), gate, failures=ConnectionError)

    async def own() -> None:
        with anyio.fail_after(1):
            await anyio.Event().wait()

    async def main() -> None:
        with pytest.raises(TimeoutError) as caught:
            await pipeline.acall(own)
        assert not isinstance(caught.value, DeadlineExceededError)

    run(main)

    assert gate.endings == ["error"]


@each_loop
def test_the_users_own_timeout_may_be_tried_again_inside(run: Run) -> None:
    pipeline = Pipeline(Timeout(2.5))
    tries: list[int] = []

    async def own() -> None:
        while True:
            with anyio.move_on_after(1):
                await anyio.Event().wait()
            tries.append(1)

    async def main() -> None:
        with pytest.raises(DeadlineExceededError):
            await pipeline.acall(own)

    run(main)

    assert len(tries) == 2


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


class AppError(Exception):
    pass


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


def test_a_cut_through_asyncios_task_group() -> None:
    pipeline = Pipeline(Timeout(1))

    async def child() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise AppError

    async def family() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(child())

    async def main() -> None:
        with pytest.raises(DeadlineExceededError) as caught:
            await pipeline.acall(family)
        assert isinstance(caught.value.__cause__, BaseExceptionGroup)
        assert uncancelled()
        await asyncio.sleep(0)

    on_asyncio(main)


@each_loop
def test_a_deadline_that_has_passed_calls_nothing(run: Run) -> None:
    gate = Turnstile()
    pipeline = Pipeline(Retry(3), gate)
    calls: list[int] = []

    async def main() -> None:
        with deadline_after(1):
            await anyio.sleep(2)
            with pytest.raises(
                DeadlineExceededError, match="the caller's deadline passed before the call was made"
            ) as it:
                await pipeline.acall(lambda: calls.append(1))
        assert it.value.unprocessed is True

    with Recorder(pipeline, events=[CallEnded]) as recorder:
        run(main)

    assert calls == []
    assert gate.endings == ["abandoned"]
    assert [(event.outcome, event.attempts) for event in recorder.of(CallEnded)] == [(Outcome.ABANDONED, 0)]


def test_a_deadline_that_has_passed_calls_nothing_plainly(virtual_time: VirtualClock) -> None:
    gate = Turnstile()
    calls: list[int] = []
    with deadline_after(1):
        virtual_time.advance(1)
        with pytest.raises(DeadlineExceededError) as caught:
            Pipeline(Retry(3), gate).call(lambda: calls.append(1))

    assert (calls, gate.endings, caught.value.unprocessed) == ([], ["abandoned"], True)


@uvloop_too
@pytest.mark.parametrize(("patience", "error"), [(1.0, RejectedError), (10.0, DeadlineExceededError)])
def test_in_a_queue_what_runs_out_first_says_which(run: Run, patience: float, error: type[Exception]) -> None:
    gate = Turnstile(patience=patience)
    assert gate.take()
    pipeline = Pipeline(Timeout(5, name="total"), gate)

    async def main() -> None:
        with pytest.raises(error) as caught:
            await pipeline.acall(hang)
        if isinstance(caught.value, DeadlineExceededError):
            assert str(caught.value) == (
                "the deadline of total (5 s) passed while the call waited for turnstile; nothing was called"
            )
            assert caught.value.unprocessed

    run(main)

    assert len(gate.line) == 0


@uvloop_too
def test_a_caller_in_a_hurry_is_not_scored(run: Run) -> None:
    pipeline = Pipeline(Timeout(1), failures=ConnectionError)

    async def main() -> None:
        with deadline_after(0.005), pytest.raises(DeadlineExceededError) as caught:
            await pipeline.acall(hang)
        assert caught.value.scored is False
        with deadline_after(0.5), pytest.raises(DeadlineExceededError) as caught:
            await pipeline.acall(hang)
        assert caught.value.scored is True
        with deadline_after(0.5), pytest.raises(DeadlineExceededError) as caught:
            await Pipeline(Retry(1)).acall(hang)
        assert caught.value.scored is False  # nobody says how long it may take

    run(main)


def test_a_cut_that_is_not_scored_is_no_failure_that_counts() -> None:
    unfair = Ending(None, DeadlineExceededError(scored=False))
    fair = Ending(None, DeadlineExceededError())

    assert unfair.failure is not None
    assert fair.failure is not None
    assert (unfair.kind, unfair.failure.kind, unfair.failure.counted) == ("timed_out", FailureKind.TIMEOUT, False)
    assert (fair.kind, fair.failure.counted) == ("timed_out", True)


@uvloop_too
def test_a_pipeline_further_in_that_obeys_our_deadline_counts_as_ours(run: Run) -> None:
    gate = Turnstile()
    outer = Pipeline(gate, Timeout(1, name="outer"))
    inner = Pipeline(Retry(1))

    async def main() -> None:
        with pytest.raises(DeadlineExceededError) as caught:
            await outer.acall(inner.acall, hang)
        assert caught.value.policy == "outer"
        assert caught.value.scored
        assert uncancelled()

    run(main)

    assert gate.endings == ["timed_out"]


def test_the_same_plainly(virtual_time: VirtualClock) -> None:
    gate = Turnstile()
    outer = Pipeline(gate, Timeout(1, name="outer"))
    inner = Pipeline(Retry(3, wait=backoff.fixed(0.4)))
    calls: list[int] = []

    def use() -> None:
        calls.append(1)
        virtual_time.advance(1)
        inner.call(calls.append, 2)

    with pytest.raises(DeadlineExceededError) as caught:
        outer.call(use)

    assert calls == [1]
    assert (caught.value.policy, caught.value.unprocessed) == ("outer", False)
    assert gate.endings == ["timed_out"]


def test_a_late_value_of_a_plain_function_is_returned(
    virtual_time: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    outer, inner = Turnstile(), Turnstile()
    pipeline = Pipeline(outer, Retry(3), Timeout(1), inner, name="slow")

    def slow() -> str:
        virtual_time.advance(1)
        return "late"

    with caplog.at_level(logging.WARNING, "resilience"), Recorder(pipeline) as recorder:
        assert pipeline.call(slow) == "late"
        assert pipeline.call(slow) == "late"

    assert (outer.endings, inner.endings) == (["timed_out"] * 2, ["timed_out"] * 2)
    assert [event.late for event in recorder.of(TimedOut)] == [True, True]
    assert [event.outcome for event in recorder.of(CallEnded)] == [Outcome.TIMED_OUT] * 2
    assert len(caplog.records) == 1
    assert "thread=True" in caplog.text
    assert "remaining()" in caplog.text


class Stale(Substitute[str]):
    def replace(self, call: Call, ending: Ending) -> Any:
        return "stale"


class AsksForEver(Substitute[str]):
    async def replace(self, call: Call, ending: Ending) -> str:
        return await hang()


def test_a_late_value_is_not_replaced(virtual_time: VirtualClock) -> None:
    def slow() -> str:
        virtual_time.advance(1)
        return "late"

    assert Pipeline(Stale(), Timeout(1)).call(slow) == "late"


@uvloop_too
def test_a_deadline_is_replaced(run: Run) -> None:
    async def main() -> None:
        assert await Pipeline(Stale(), Timeout(1)).acall(hang) == "stale"
        with deadline_after(0):
            assert await Pipeline(Stale()).acall(hang) == "stale"

    run(main)


@uvloop_too
def test_what_a_substitute_awaits_is_cut_too(run: Run) -> None:
    pipeline = Pipeline(Timeout(2, name="total"), AsksForEver(), Timeout(1))

    async def main() -> None:
        before = current_deadline()
        with pytest.raises(DeadlineExceededError) as caught:
            await pipeline.acall(hang)
        assert caught.value.policy == "total"
        assert current_deadline() == before

    run(main)


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@each_loop
def test_context_variables_stay_set(run: Run) -> None:
    async def sets() -> None:
        variable.set("by the function")

    async def main() -> None:
        await Pipeline(Timeout(1), Retry(2)).acall(sets)
        assert variable.get() == "by the function"

    run(main)


def test_context_variables_stay_set_plainly() -> None:
    def run() -> str:
        Pipeline(Timeout(1), Retry(2)).call(variable.set, "by the function")
        return variable.get()

    assert contextvars.copy_context().run(run) == "by the function"


def test_shadow_reports_what_it_would_cut(virtual_time: VirtualClock) -> None:
    pipeline = Pipeline(Timeout(1, mode="shadow"))
    seen: list[float | None] = []

    def slow() -> str:
        seen.append(remaining())
        virtual_time.advance(1)
        return "late"

    with Recorder(pipeline) as recorder:
        assert pipeline.call(slow) == "late"
        assert pipeline.call(lambda: "quick") == "quick"

    assert seen == [None]
    assert [(event.mode, event.timeout) for event in recorder.of(TimedOut)] == [("shadow", 1.0)]
    assert [event.outcome for event in recorder.of(CallEnded)] == [Outcome.OK] * 2


@each_loop
def test_shadow_reports_it_of_awaited_calls(run: Run) -> None:
    pipeline = Pipeline(Timeout(1, mode="shadow"))

    async def main() -> None:
        await pipeline.acall(anyio.sleep, 2)

    with Recorder(pipeline, events=[TimedOut]) as recorder:
        run(main)

    assert [event.mode for event in recorder.of(TimedOut)] == ["shadow"]


def with_timeouts(gate: Turnstile) -> Scenario:
    pipeline = Pipeline(Timeout(10), Retry(3, wait=backoff.fixed(0.5)), gate, Timeout(1))
    attempts = 0

    async def fetch() -> str:
        nonlocal attempts
        await anyio.lowlevel.checkpoint()
        attempts += 1
        if attempts == 1:
            await anyio.Event().wait()
        return "fine"

    async def hold() -> None:
        for _ in range(3):
            await anyio.lowlevel.checkpoint()

    async def holder() -> None:
        await Pipeline(gate).acall(hold)

    def check() -> str | None:
        return gate.leaked() or (None if pipeline.snapshot()["in_flight"] == 0 else "the pipeline still counts a call")

    return Scenario(call=lambda: pipeline.acall(fetch), check=check, helpers=[holder, holder])


@pytest.mark.parametrize("run", RUNNERS)
def test_permits_come_back_wherever_cancellation_strikes(run: Callable[[Callable[[], Scenario]], Report]) -> None:
    with virtual_time():
        report = run(lambda: with_timeouts(Turnstile()))

    report.must_hold()
    assert report.visited >= 4


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


def test_timers_keep_no_loop_alive() -> None:
    pipeline = Pipeline(Timeout(60))

    async def fine() -> str:
        return "fine"

    loop = asyncio.new_event_loop()
    alive = weakref.ref(loop)
    assert loop.run_until_complete(pipeline.acall(fine)) == "fine"
    loop.close()
    del loop
    gc.collect()

    assert alive() is None


def test_a_task_dropped_with_its_loop_gives_its_permit_back() -> None:
    gate = Turnstile()
    pipeline = Pipeline(Timeout(60), gate)
    loop = asyncio.new_event_loop()
    task: Any = loop.create_task(pipeline.acall(hang))
    for _ in range(3):
        loop.call_soon(loop.stop)
        loop.run_forever()
    assert gate.in_flight == 1
    loop.close()
    task._log_destroy_pending = False
    del loop, task
    gc.collect()

    assert gate.in_flight == 0


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


@each_loop
def test_cancel_scopes_around_count_where_time_is_asked_for(run: Run) -> None:
    async def main() -> None:
        assert remaining() is None
        with anyio.fail_after(3):
            assert remaining() == pytest.approx(3)
            with deadline_after(2):
                assert remaining() == pytest.approx(2)
                with anyio.fail_after(1):
                    assert remaining() == pytest.approx(1)
                    await anyio.lowlevel.checkpoint()
        assert remaining() is None

    run(main)


@each_loop
def test_a_retry_does_not_wait_in_vain_for_a_scope_that_ends_first(run: Run) -> None:
    pipeline = Pipeline(Retry(3, wait=backoff.fixed(5)))

    async def down() -> None:
        raise ConnectionError("down")

    async def main() -> None:
        with anyio.fail_after(3), pytest.raises(ConnectionError) as caught:
            await pipeline.acall(down)
        assert "past the deadline" in caught.value.__notes__[0]

    run(main)


def test_a_deadline_is_carried_into_a_thread() -> None:
    seen: list[float | None] = []

    def look() -> None:
        seen.append(current_deadline())

    with deadline_after(5):
        at = current_deadline()
        thread = threading.Thread(target=carry(look))
        thread.start()
        thread.join()
        bare = threading.Thread(target=look)
        bare.start()
        bare.join()

    assert seen == [at, None]


def test_a_carried_deadline_only_shrinks() -> None:
    with deadline_after(50):
        carried = carry(remaining)
    with deadline_after(5):
        left = carried()

    assert left is not None
    assert left <= 5


class Holding(Turnstile):
    """A gate whose permits are in use as long as anything goes on."""

    holds_permit = True


class Held:
    """A function that hangs until released, on a thread."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.seen: list[str] = []

    def __call__(self) -> str:
        self.seen.append(variable.get())
        self.released.wait(10)
        return "late"


def test_a_thread_is_left_behind_and_holds_what_is_further_out() -> None:
    outer, scoring, inner = Holding(limit=3), Turnstile(limit=3), Turnstile(limit=3)
    pipeline = Pipeline(outer, scoring, Retry(2, wait=backoff.none()), Timeout(0.02, thread=True), inner)
    held = Held()

    with pytest.raises(DeadlineExceededError):
        pipeline.call(held)

    assert len(held.seen) == 2
    assert (outer.in_flight, outer.endings) == (1, [])
    assert scoring.endings == ["timed_out"]
    assert inner.in_flight == 2
    assert pipeline.snapshot()["in_flight"] > 0
    held.released.set()
    assert pipeline.drain(10)
    assert (outer.in_flight, inner.in_flight) == (0, 0)
    assert outer.endings == ["timed_out"]


def test_a_permit_inside_the_retry_is_held_by_its_own_attempt_only() -> None:
    gate = Holding(limit=2)
    pipeline = Pipeline(Retry(2, wait=backoff.none()), gate, Timeout(0.05, thread=True))
    held = Held()
    attempts: list[int] = []

    def second_time_quick() -> str:
        attempts.append(1)
        return held() if len(attempts) == 1 else "fine"

    assert pipeline.call(second_time_quick) == "fine"

    assert gate.in_flight == 1
    held.released.set()
    assert pipeline.drain(10)
    assert gate.in_flight == 0


def test_a_thread_sees_the_context_and_gives_results_and_errors_back() -> None:
    pipeline = Pipeline(Timeout(5, thread=True))

    def look() -> tuple[str, bool, bool]:
        left = remaining()
        return variable.get(), threading.current_thread() is threading.main_thread(), left is not None and left <= 5

    def fail() -> None:
        raise AppError("boom")

    def run() -> None:
        variable.set("seen")
        assert pipeline.call(look) == ("seen", False, True)

    contextvars.copy_context().run(run)
    with pytest.raises(AppError, match="boom"):
        pipeline.call(fail)
    assert pipeline.snapshot()["in_flight"] == 0


def test_an_expired_deadline_starts_no_thread(virtual_time: VirtualClock) -> None:
    started: list[int] = []
    with deadline_after(0), pytest.raises(DeadlineExceededError) as caught:
        Pipeline(Timeout(1, thread=True)).call(started.append, 1)

    assert started == []
    assert caught.value.unprocessed


def test_a_refusal_inside_a_thread_is_a_refusal() -> None:
    gate = Turnstile(room=0)
    assert gate.take()
    pipeline = Pipeline(Timeout(5, thread=True), gate)

    with Recorder(pipeline, events=[Rejected, CallEnded]) as recorder, pytest.raises(RejectedError):
        pipeline.call(print)

    assert [event.outcome for event in recorder.of(CallEnded)] == [Outcome.REJECTED]


def test_bad_results_inside_a_thread_come_out_as_values() -> None:
    bad = Allowlist.of_results(lambda value: value == "bad")

    assert Pipeline(Retry(2, wait=backoff.none()), Timeout(5, thread=True), failures=bad).call(lambda: "bad") == "bad"


def pages() -> Generator[int]:
    yield 1


def forgets_to_await() -> Awaitable[str]:
    return hang()


def test_misuse_under_a_deadline_is_refused_as_well() -> None:
    with pytest.raises(TypeError, match="generator function"):
        Pipeline(Timeout(1)).call(pages)
    with pytest.raises(TypeError, match="acall"):
        Pipeline(Timeout(1)).call(forgets_to_await)


@each_loop
def test_misuse_under_a_deadline_is_refused_when_awaited(run: Run) -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match="generator function"):
            await Pipeline(Timeout(1)).acall(pages)
        assert await Pipeline(Timeout(1)).acall(int) == 0

    run(main)


@each_loop
def test_an_error_of_an_inner_pipeline_before_our_deadline_is_its_own(run: Run) -> None:
    inner = Pipeline(Timeout(1, name="inner"))
    outer = Pipeline(Timeout(2, name="outer"))

    async def main() -> None:
        with pytest.raises(DeadlineExceededError) as caught:
            await outer.acall(inner.acall, hang)
        assert caught.value.policy == "inner"

    run(main)


def test_the_same_of_a_plain_inner_pipeline(virtual_time: VirtualClock) -> None:
    inner = Pipeline(Retry(1))

    def use() -> None:
        with deadline_after(0):
            inner.call(print)

    with pytest.raises(DeadlineExceededError) as caught:
        Pipeline(Timeout(2)).call(use)

    assert caught.value.policy == ""


def test_outside_of_tasks_there_are_no_scopes() -> None:
    assert current_deadline() is None
    assert on_loops.effective_deadline() == float("inf")


def test_a_coroutine_closed_in_another_context_closes_quietly() -> None:
    pipeline = Pipeline(Timeout(60))
    loop = asyncio.new_event_loop()
    task: Any = loop.create_task(pipeline.acall(hang))
    for _ in range(3):
        loop.call_soon(loop.stop)
        loop.run_forever()
    loop.close()
    task._log_destroy_pending = False

    contextvars.Context().run(task.get_coro().close)

    assert pipeline.snapshot()["in_flight"] == 0
