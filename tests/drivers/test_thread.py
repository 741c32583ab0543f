"""Calls on a thread that is left behind when time is up: Timeout(thread=True)."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import weakref
from contextlib import suppress
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from resilience import (
    Allowlist,
    Bulkhead,
    Call,
    DeadlineExceededError,
    DeferredSettlement,
    Gate,
    Pipeline,
    RejectedError,
    RejectReason,
    Retry,
    Scope,
    Timeout,
    backoff,
    deadline_after,
    remaining,
)
from resilience.events import CallEnded, Outcome, Rejected
from resilience.testing import Recorder, VirtualClock
from tests.support.functions import AppError
from tests.support.garbage import no_collection
from tests.support.policies import Holding
from tests.support.threads import PATIENCE, wait_until
from tests.support.turnstile import Turnstile

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
NOW = backoff.none()


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
    pipeline = Pipeline(outer, scoring, Retry(2, wait=backoff.none()), Timeout(0.25, thread=True), inner)
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
    pipeline = Pipeline(Retry(2, wait=backoff.none()), gate, Timeout(0.25, thread=True))
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


def test_an_expired_deadline_starts_no_thread(virtual_clock: VirtualClock) -> None:
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


def test_a_thread_that_ends_while_one_further_in_hangs_holds_on() -> None:
    hanging = threading.Event()
    bulkhead = Bulkhead(10)

    def slow(error: Exception) -> bool:
        hanging.wait(0.4)
        return isinstance(error, TimeoutError)

    pipeline = Pipeline(
        bulkhead, Timeout(0.5, thread=True), Retry(2, wait=NOW, on=slow), Timeout(0.25, thread=True), name="two threads"
    )
    with pytest.raises(DeadlineExceededError):
        pipeline.call(hanging.wait, 10)
    for _ in range(20):  # the outer thread ends meanwhile
        hanging.wait(0.02)

    assert bulkhead.in_flight == 1
    hanging.set()
    assert pipeline.drain(10)
    assert bulkhead.in_flight == 0


def test_a_drain_ends_the_waits_of_a_thread() -> None:
    pipeline = Pipeline(Timeout(30, thread=True), Retry(3, wait=backoff.fixed(20)))
    raised: list[BaseException] = []
    failed = threading.Event()

    def fails() -> None:
        failed.set()
        raise ConnectionError("down")

    def call() -> None:
        try:
            pipeline.call(fails)
        except ConnectionError as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert failed.wait(5)

    assert pipeline.drain(5)
    thread.join(5)
    assert len(raised) == 1


def test_a_thread_that_starts_as_a_ctrl_c_comes_is_counted_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline: Pipeline[Any] = Pipeline(Timeout(60, thread=True), name="struck-at-the-start")
    release = threading.Event()
    start = threading.Thread.start

    def start_and_strike(thread: threading.Thread) -> None:
        start(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", start_and_strike)
    with pytest.raises(KeyboardInterrupt):
        pipeline.call(release.wait, PATIENCE)
    monkeypatch.undo()

    assert pipeline.snapshot()["in_flight"] == 1
    assert not pipeline.drain(0)
    release.set()
    assert pipeline.drain(PATIENCE)


class OnThread(Scope):
    """Gives calls a thread and one second; refuses them once told to."""

    kind = "on_thread"

    @property
    def seconds(self) -> float:
        return 1.0

    @property
    def thread(self) -> bool:
        return True

    def __init__(self) -> None:
        super().__init__()
        self.full = False
        self.abandoned: list[DeferredSettlement] = []

    def deadline(self, call: Call, now: float) -> float:
        return now + self.seconds

    def before_thread_call(self, call: Call) -> None:
        if self.full:
            raise RejectedError("no thread is left", reason=RejectReason.ABANDONED_FULL)

    def on_thread_abandoned(self, thread: DeferredSettlement) -> None:
        self.abandoned.append(thread)


def test_a_call_that_is_refused_a_thread_calls_nothing_and_is_reported() -> None:
    scope = OnThread()
    pipeline = Pipeline(scope)
    scope.full = True
    calls: list[int] = []

    with Recorder(pipeline, events=[Rejected]) as recorder, pytest.raises(RejectedError, match="no thread is left"):
        pipeline.call(calls.append, 1)

    assert calls == []
    assert [(event.policy, event.reason, event.mode) for event in recorder.of(Rejected)] == [
        ("on_thread", "abandoned_full", "enforce")
    ]


def test_a_scope_hears_of_the_thread_that_was_left_behind_and_when_it_ends(virtual_clock: VirtualClock) -> None:
    scope = OnThread()
    release = threading.Event()
    pipeline = Pipeline(scope)

    def hang() -> None:
        virtual_clock.advance(1)
        release.wait(PATIENCE)

    assert pipeline.call(int) == 0
    assert scope.abandoned == []
    with pytest.raises(DeadlineExceededError):
        pipeline.call(hang)

    (thread,) = scope.abandoned
    assert (thread.known, thread.ended) == (True, False)
    endings: list[str] = []
    thread.add(lambda ending: endings.append(ending.kind))
    release.set()
    wait_until(lambda: thread.ended)
    assert endings == ["timed_out"]


def test_an_awaited_call_has_no_thread_and_is_refused_none(virtual_clock: VirtualClock) -> None:
    scope = OnThread()
    scope.full = True

    async def whose() -> bool:
        return threading.current_thread() is threading.main_thread()

    assert asyncio.run(Pipeline(scope).acall(whose))


def test_where_there_is_no_thread_to_be_had_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    bulkhead = Bulkhead(1)
    scope = OnThread()
    pipeline = Pipeline(bulkhead, scope)

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        pipeline.call(int)
    monkeypatch.undo()

    assert (bulkhead.in_flight, scope.abandoned) == (0, [])
    assert pipeline.drain(0)


class Probe:
    """Something in a frame."""


def test_nothing_that_a_thread_has_raised_is_kept() -> None:
    class Keeping(Gate[None]):
        def __init__(self) -> None:
            super().__init__()
            self.calls: list[Any] = []

        def admit(self, call: Call) -> None:
            self.calls.append(call)

    inside, outside = Keeping(), Keeping()
    seen: list[weakref.ref[Probe]] = []

    def fail() -> None:
        probe = Probe()
        seen.append(weakref.ref(probe))
        raise ConnectionError

    with no_collection():
        with suppress(ConnectionError):
            Pipeline(outside, Timeout(5, thread=True), inside).call(fail)

        assert len(inside.calls) == len(outside.calls) == 1
        assert inside.calls[0] is not outside.calls[0]
        wait_until(lambda: seen[0]() is None)  # the thread may be about to end
        assert [call.ending for call in (*inside.calls, *outside.calls)] == [None, None]


class TestAwaited:
    """A plain function that is awaited runs on a thread, too, so that it does not block the loop."""

    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    @pytest.mark.slow
    def test_it_is_left_behind_at_the_deadline(self, backend: str) -> None:
        held, outer = Held(), Holding(limit=3)
        pipeline = Pipeline(outer, Timeout(0.25, thread=True))
        turns: list[int] = []

        async def others() -> None:
            while not turns or len(turns) < 10**6:
                turns.append(1)
                await anyio.sleep(0.001)

        async def main() -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(others)
                with pytest.raises(DeadlineExceededError):
                    await pipeline.acall(held)
                group.cancel_scope.cancel()

        anyio.run(main, backend=backend)

        assert len(turns) > 1
        assert outer.in_flight == 1
        held.released.set()
        wait_until(lambda: outer.in_flight == 0)

    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    def test_it_gives_results_and_errors_back_and_sees_the_context(self, backend: str) -> None:
        pipeline = Pipeline(Retry(2, wait=NOW), Timeout(30, thread=True))
        threads: list[int] = []

        def fails() -> str:
            threads.append(threading.get_ident())
            raise ConnectionError("down")

        async def main() -> None:
            variable.set("set")
            assert await pipeline.acall(variable.get) == "set"
            left: Any = await pipeline.acall(remaining)
            assert 0 < left <= 30
            with pytest.raises(ConnectionError, match="down"):
                await pipeline.acall(fails)

        anyio.run(main, backend=backend)

        assert len(threads) == 2
        assert threading.get_ident() not in threads

    def test_a_coroutine_function_needs_no_thread(self) -> None:
        async def where() -> int:
            return threading.get_ident()

        async def main() -> int:
            return await Pipeline(Timeout(30, thread=True)).acall(where)

        assert asyncio.run(main()) == threading.get_ident()

    def test_what_a_plain_function_returns_may_be_awaitable(self) -> None:
        async def main() -> str:
            result: Any = await Pipeline(Timeout(30, thread=True)).acall(lambda: asyncio.sleep(0, "awaited"))
            assert isinstance(result, str)
            return result

        assert asyncio.run(main()) == "awaited"

    def test_one_that_is_refused_a_thread_is_not_called(self) -> None:
        held = Held()
        timeout = Timeout(0.25, thread=True, max_abandoned=1)
        pipeline = Pipeline(timeout, name="awaited")

        async def main() -> None:
            with pytest.raises(DeadlineExceededError):
                await pipeline.acall(held)
            assert timeout.abandoned == 1
            with Recorder(pipeline) as recorder, pytest.raises(RejectedError) as caught:
                await pipeline.acall(held)
            assert caught.value.reason == RejectReason.ABANDONED_FULL
            assert len(recorder.of(Rejected)) == 1

        asyncio.run(main())
        assert len(held.seen) == 1
        held.released.set()
        wait_until(lambda: timeout.abandoned == 0)

    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    def test_a_cancellation_leaves_it_behind_and_is_no_failure(self, backend: str) -> None:
        held, outer = Held(), Holding(limit=3)
        scoring = Turnstile(limit=3)
        pipeline = Pipeline(outer, scoring, Timeout(60, thread=True))

        async def main() -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(pipeline.acall, held)
                while not held.seen:
                    await anyio.lowlevel.checkpoint()
                group.cancel_scope.cancel()

        anyio.run(main, backend=backend)

        assert scoring.endings == ["abandoned"]
        assert outer.in_flight == 1
        held.released.set()
        wait_until(lambda: outer.in_flight == 0)

    def test_a_thread_that_ends_after_its_loop_was_closed_is_let_go(self) -> None:
        held = Held()
        timeout = Timeout(60, thread=True)
        loop = asyncio.new_event_loop()
        task = loop.create_task(Pipeline(timeout).acall(held))
        loop.run_until_complete(asyncio.sleep(0))
        wait_until(lambda: bool(held.seen))
        task.cancel()
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
        loop.close()

        assert timeout.abandoned == 1
        held.released.set()
        wait_until(lambda: timeout.abandoned == 0)
