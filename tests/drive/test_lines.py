"""Waiting in line: first come first served, across threads, asyncio and trio."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio

from resilience import (
    Call,
    DeadlineExceededError,
    DeferredSettlement,
    Ending,
    EndingKind,
    Gate,
    Mode,
    Pipeline,
    RejectedError,
    Retry,
    Ticket,
    _runtime,
    backoff,
    set_mode,
)
from resilience._call.call import CallOptions
from resilience._call.wait_queue import TicketState
from resilience._outcome.ending import OK
from resilience._util.clock import clock
from resilience._util.finalizers import run_pending
from resilience.events import Rejected
from resilience.testing import Recorder, VirtualLoop, reset, seeded, virtual_loop, virtual_time
from tests.support.turnstile import Turnstile


def run_asyncio(main: Callable[[], Any]) -> Any:
    return asyncio.run(main())


def run_uvloop(main: Callable[[], Any]) -> Any:
    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


def run_trio(main: Callable[[], Any]) -> Any:
    return trio.run(main)


LOOPS = [run_asyncio, run_trio, run_uvloop]


def wait_until(condition: Callable[[], bool]) -> None:
    while not condition():
        os.sched_yield()


def test_threads_are_served_in_order() -> None:
    gate = Turnstile()
    pipeline = Pipeline(gate)
    order: list[int] = []
    release = threading.Event()
    with virtual_time():
        holder = threading.Thread(target=pipeline.call, args=(release.wait,))
        holder.start()
        wait_until(lambda: gate.in_flight == 1)
        threads: list[threading.Thread] = []
        gate.patience = 1e6
        for number in range(5):
            thread = threading.Thread(target=pipeline.call, args=(order.append, number))
            thread.start()
            wait_until(lambda count=number: len(gate.line) == count + 1)  # type: ignore[misc]
            threads.append(thread)
        release.set()
        for thread in [holder, *threads]:
            thread.join(10)

    assert sorted(order) == [0, 1, 2, 3, 4]
    assert gate.leaked() is None
    assert gate.peak == 1


def test_a_thread_that_waits_in_vain_is_refused() -> None:
    gate = Turnstile()
    gate.take()
    pipeline = Pipeline(gate, name="in-vain")
    with virtual_time() as clock, Recorder(pipeline) as recorder, pytest.raises(RejectedError, match="longest wait"):
        pipeline.call(int)

    assert clock.elapsed == pytest.approx(1.0)
    assert [event.reason for event in recorder.of(Rejected)] == ["queue_timeout"]
    assert len(gate.line) == 0


def test_a_full_line_refuses_at_once() -> None:
    gate = Turnstile(room=0)
    gate.take()

    with pytest.raises(RejectedError, match="full"):
        Pipeline(gate).call(int)


def test_the_deadline_in_the_queue_is_named() -> None:
    gate = Turnstile()
    gate.take()

    class Hurry(Gate[None]):
        def admit(self, call: Call) -> None:
            call.deadline = clock.monotonic() + 0.25

        def settle(self, token: Ticket | None, ending: Ending) -> None:
            assert ending.kind is EndingKind.ABANDONED

    with virtual_time() as clock, pytest.raises(DeadlineExceededError, match="waited for turnstile") as caught:
        Pipeline(Hurry(), gate).call(int)

    assert caught.value.unprocessed
    assert clock.elapsed == pytest.approx(0.25)


@pytest.mark.parametrize("run", LOOPS)
def test_tasks_wait_and_are_served(run: Callable[[Callable[[], Any]], Any]) -> None:
    gate = Turnstile(limit=2)
    pipeline = Pipeline(gate)
    done: list[int] = []

    async def work(number: int) -> None:
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        done.append(number)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for number in range(6):
                group.start_soon(pipeline(work), number)

    run(main)

    assert sorted(done) == list(range(6))
    assert gate.peak == 2
    assert gate.leaked() is None


@pytest.mark.parametrize("run", LOOPS)
def test_a_task_that_waits_in_vain_is_refused(run: Callable[[Callable[[], Any]], Any]) -> None:
    gate = Turnstile()
    gate.take()
    pipeline = Pipeline(gate)

    async def main() -> float:
        with pytest.raises(RejectedError):
            await pipeline.acall(int)
        return virtual.elapsed

    with virtual_time() as virtual:
        assert run(main) == pytest.approx(1.0)
    assert len(gate.line) == 0


@pytest.mark.parametrize("run", LOOPS)
def test_a_thread_wakes_a_task(run: Callable[[Callable[[], Any]], Any]) -> None:
    gate = Turnstile(patience=1e6)
    gate.take()
    pipeline = Pipeline(gate)

    def release() -> None:
        wait_until(lambda: len(gate.line) == 1)
        gate.put()
        gate.line.grant()

    async def main() -> int:
        thread = threading.Thread(target=release)
        thread.start()
        try:
            return await pipeline.acall(lambda: 7)
        finally:
            thread.join()

    assert run(main) == 7
    assert gate.leaked() is None


@pytest.mark.parametrize("run", LOOPS)
def test_a_closed_loop_hands_its_grant_on(run: Callable[[Callable[[], Any]], Any]) -> None:
    gate = Turnstile(patience=1e6)
    gate.take()
    woken: list[str] = []

    async def main() -> Ticket:
        ticket = gate.line.enqueue(1e12, 10)
        assert ticket is not None
        if run is run_trio:
            token = trio.lowlevel.current_trio_token()
            ticket.add_waker(lambda: token.run_sync_soon(woken.append, "too late"))
        else:
            loop = asyncio.get_running_loop()
            ticket.add_waker(lambda: loop.call_soon_threadsafe(woken.append, "too late"))
        return ticket

    ticket = run(main)
    gate.put()
    gate.line.grant()

    assert ticket.state is TicketState.CANCELLED
    assert gate.leaked() is None
    assert woken == []


@pytest.mark.parametrize("run", LOOPS)
def test_a_wake_that_comes_after_all_disturbs_nobody(run: Callable[[Callable[[], Any]], Any]) -> None:
    class Served:
        """Granted while it was being parked: nothing to wait for, and yet whoever grants it will wake it."""

        def add_waker(self, wake: Callable[[], object]) -> bool:
            thread = threading.Thread(target=wake)
            thread.start()
            thread.join()
            return False

    async def main() -> int:
        rounds = 0
        for _ in range(10):
            await _runtime.park(Served(), clock.monotonic() + 60)
            await anyio.lowlevel.checkpoint()
            rounds += 1
        return rounds

    assert run(main) == 10


def test_a_granted_ticket_that_is_left_serves_the_next() -> None:
    gate = Turnstile()
    gate.take()
    first, second = gate.line.enqueue(1e12, 10), gate.line.enqueue(1e12, 10)
    assert first is not None
    assert second is not None
    gate.put()
    gate.line.grant()
    assert first.state is TicketState.GRANTED
    first.leave()
    first.leave()

    assert second.acquire()
    assert not first.acquire()
    second.leave()
    assert gate.in_flight == 1


@pytest.mark.filterwarnings("ignore:there are two pipelines")
@pytest.mark.parametrize("run", LOOPS)
def test_retry_waits_take_virtual_time_only(run: Callable[[Callable[[], Any]], Any]) -> None:
    attempts: dict[str, int] = {}

    async def fetch(who: str) -> str:
        attempts[who] = attempts.get(who, 0) + 1
        if attempts[who] < 3:
            raise ConnectionError
        order.append(who)
        return who

    order: list[str] = []

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(Pipeline(Retry(3, wait=backoff.fixed(100.0)), name="slow")(fetch), "slow")
            group.start_soon(Pipeline(Retry(3, wait=backoff.fixed(30.0)), name="quick")(fetch), "quick")

    with virtual_time() as clock:
        run(main)

    assert order == ["quick", "slow"]
    assert clock.elapsed == pytest.approx(200.0)


def test_a_virtual_loop_and_a_virtual_trio_clock_take_everything_along() -> None:
    with virtual_time() as clock:
        with asyncio.Runner(loop_factory=virtual_loop) as runner:
            assert isinstance(runner.get_loop(), VirtualLoop)
            runner.run(asyncio.sleep(3600))
        assert clock.elapsed == pytest.approx(3600.0)
        trio.run(trio.sleep, 3600, clock=clock.trio())
        assert clock.elapsed == pytest.approx(7200.0)
        gate = Turnstile()
        gate.take()

        async def main() -> None:
            with pytest.raises(RejectedError):
                await Pipeline(gate).acall(int)

        trio.run(main, clock=clock.trio())
        assert clock.elapsed == pytest.approx(7201.0)


class Body:
    """A streamed result: it settles when it is read out, closed or dropped."""

    def __init__(self, deferred: DeferredSettlement) -> None:
        self.deferred = deferred


def streaming_pipeline(*gates: Turnstile) -> tuple[Pipeline[Any], Callable[[], Body]]:
    pipeline: Pipeline[Any] = Pipeline(*gates)
    _, binding = pipeline.entry()

    def open_body() -> Body:
        call = Call(binding, lambda: None, (), {})

        def function() -> Body:
            call.deferred = DeferredSettlement()
            return Body(call.deferred)

        call.function = function
        pipeline.engine.calls.add(call)
        try:
            body: Body = pipeline.engine.execute(call)
            return body
        finally:
            pipeline.engine.leave(call)
            call.function = int

    return pipeline, open_body


@pytest.mark.parametrize("kind", [EndingKind.OK, EndingKind.FAILED, EndingKind.ABANDONED])
def test_a_stream_keeps_its_permits_until_it_ends(kind: EndingKind) -> None:
    outer, inner = Turnstile(3), Turnstile(3)
    pipeline, open_body = streaming_pipeline(outer, inner)
    body = open_body()
    assert (outer.in_flight, inner.in_flight, pipeline.snapshot()["in_flight"]) == (1, 1, 1)
    body.deferred.end(Ending(kind))
    body.deferred.end(OK)

    assert (outer.in_flight, inner.in_flight, pipeline.snapshot()["in_flight"]) == (0, 0, 0)
    assert outer.endings == inner.endings == [kind]
    late: list[str] = []
    body.deferred.add(lambda token, ending: late.append(ending.kind), None)
    assert late == [kind]


def test_a_dropped_stream_is_settled_by_the_next_call() -> None:
    gate = Turnstile(3)
    pipeline, open_body = streaming_pipeline(gate)
    body = open_body()
    del body
    assert pipeline.call(int) == 0
    run_pending()

    assert gate.endings[0] == "abandoned"
    assert gate.leaked() is None


def test_shadow_gates_report_and_let_through() -> None:
    gate = Turnstile(room=0)
    gate.mode = Mode.SHADOW
    pipeline = Pipeline(gate)
    gate.take()
    with Recorder(pipeline) as recorder:
        assert pipeline.call(int) == 0
        gate.room = 5
        assert asyncio.run(pipeline.acall(int)) == 0
        gate.put()
        with pytest.raises(ZeroDivisionError):
            pipeline.call(lambda: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            asyncio.run(pipeline.acall(lambda: 1 // 0))
        assert asyncio.run(pipeline.acall(int)) == 0

    assert [(event.reason, event.mode) for event in recorder.of(Rejected)] == [
        ("full", "shadow"),
        ("queue_timeout", "shadow"),
    ]
    assert gate.leaked() is None


def test_the_switch_turns_everything_off() -> None:
    gate = Turnstile(room=0)
    gate.take()
    pipeline = Pipeline(gate)
    set_mode("off")
    try:
        assert pipeline.call(int) == 0
    finally:
        set_mode("enforce")
    with pytest.raises(RejectedError):
        pipeline.call(int)


def test_seeded_jitter_repeats_itself_and_reset_forgets() -> None:
    waits: list[list[float]] = []
    pipeline = Pipeline(Retry(3))
    for _ in range(2):
        with virtual_time() as clock, seeded(7), pytest.raises(ConnectionError):
            pipeline.call(fail)
        waits.append(clock.sleeps)
    assert waits[0] == waits[1]
    assert pipeline.snapshot()["budget"]["tokens"] == 6.0
    reset()
    assert pipeline.snapshot()["budget"]["tokens"] == 10.0


def fail() -> None:
    raise ConnectionError


def test_the_clock_is_moved_by_hand() -> None:
    with virtual_time() as clock:
        before = clock.monotonic()
        clock.advance(2.5)
        clock.jump(before)
        assert clock.monotonic() - before == 2.5
        for bad in (-1.0, float("nan"), float("inf")):
            with pytest.raises(ValueError, match="seconds must be a number >= 0"):
                clock.advance(bad)


def test_a_binding_knows_its_site() -> None:
    pipeline: Pipeline[Any] = Pipeline(name="known")
    _, binding = pipeline.entry()

    assert isinstance(binding, CallOptions)
    assert binding.pipeline.name == "known"
