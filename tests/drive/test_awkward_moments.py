"""Regressions: things that end, are dropped, or change at an awkward moment."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import trio

import resilience
from resilience import (
    Allowlist,
    Call,
    DeferredSettlement,
    Ending,
    Gate,
    Loop,
    Pipeline,
    RejectedError,
    Retry,
    RetryBudget,
    RetryState,
    Ticket,
    backoff,
)
from resilience._call.retry_marks import given_up_results
from resilience._outcome.ending import OK
from resilience._util.clock import clock
from resilience._util.finalizers import pending, run_pending
from resilience.events import RetryScheduled
from resilience.testing import Recorder, VirtualClock, seeded, virtual_time
from tests.support.turnstile import Turnstile

NOW = backoff.none()


def down() -> str:
    raise ConnectionError("down")


@contextmanager
def hasty_switches() -> Generator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def together(*jobs: Callable[[], object]) -> list[BaseException]:
    """Run the jobs in threads at once; returns what they raised."""
    raised: list[BaseException] = []
    start = threading.Barrier(len(jobs))

    def run(job: Callable[[], object]) -> None:
        start.wait(10)
        try:
            job()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    return raised


class Streaming(Gate[None]):
    """The innermost gate of these tests: what the function returns goes on as a stream."""

    def __init__(self) -> None:
        super().__init__()
        self.deferred: DeferredSettlement | None = None

    def admit(self, call: Call) -> None:
        call.deferred = DeferredSettlement()
        self.deferred = call.deferred


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


def suspended(pipeline: Pipeline[Any]) -> Any:
    """Return the coroutine of a call that hangs in its function, and will never be resumed."""
    loop = asyncio.new_event_loop()
    coroutine = pipeline.acall(forever)

    async def first_step() -> None:
        coroutine.send(None)

    loop.run_until_complete(first_step())
    loop.close()
    return coroutine


def test_a_coroutine_dropped_inside_a_locked_region_does_not_deadlock() -> None:
    gate = Turnstile()
    coroutine = suspended(Pipeline(gate))
    assert gate.in_flight == 1

    with gate.line.lock:
        coroutine.close()
        assert gate.in_flight == 1  # nobody can settle it now
    run_pending()

    assert gate.in_flight == 0


def test_a_coroutine_dropped_elsewhere_settles_at_once() -> None:
    gate = Turnstile()
    coroutine = suspended(Pipeline(gate))

    del coroutine
    gc.collect()

    assert gate.in_flight == 0


def test_a_waiter_gets_a_permit_that_was_lost_while_it_waited() -> None:
    gate = Turnstile(patience=1)
    coroutine = suspended(Pipeline(gate))

    async def fine() -> str:
        return "fine"

    async def main() -> str:
        waiter = asyncio.ensure_future(Pipeline(gate).acall(fine))
        await asyncio.sleep(0)
        assert len(gate.line) == 1
        with gate.line.lock:
            coroutine.close()
        assert pending
        return await waiter

    with virtual_time():
        assert asyncio.run(main()) == "fine"
    assert gate.leaked() is None


def test_a_drain_sees_a_stream_that_is_dropped() -> None:
    streaming = Streaming()
    pipeline = Pipeline(streaming)
    pipeline.call(lambda: "head")
    timer = threading.Timer(0.05, lambda: setattr(streaming, "deferred", None))
    timer.start()

    assert pipeline.drain(5) is True
    timer.join()


def test_pipelines_may_be_made_while_others_change_them_all() -> None:
    stop = threading.Event()

    def make() -> None:
        made = 0
        while not stop.is_set() and made < 100:  # all are rewired with each change, so there must not be too many
            made += 1
            Pipeline(Retry(), name=f"made-{threading.get_ident()}-{made}")

    def change() -> None:
        retry = Retry()
        keep = [Pipeline(retry, name=f"kept-{number}") for number in range(20)]
        try:
            for _ in range(20):
                resilience.subscribe(print, events=[RetryScheduled])()
                retry.update(attempts=2)
                resilience.set_mode("enforce")
                assert set(keep) <= set(resilience.pipelines().values())
        finally:
            stop.set()

    with hasty_switches():
        assert together(make, make, change) == []


class Explodes(Gate[None]):
    def admit(self, call: Call) -> None: ...

    def settle(self, token: Ticket | None, ending: Ending) -> None:
        raise SystemExit


def test_one_settle_that_raises_a_base_exception_does_not_keep_the_others() -> None:
    outer, streaming = Turnstile(), Streaming()
    pipeline = Pipeline(outer, Explodes(), streaming)
    pipeline.call(lambda: "head")
    assert outer.in_flight == 1
    assert streaming.deferred is not None

    with pytest.raises(SystemExit):
        streaming.deferred.end(OK)

    assert outer.in_flight == 0
    assert pipeline.snapshot()["in_flight"] == 0


def test_what_a_task_that_outlives_the_call_gives_up_on_is_not_kept() -> None:
    bad = Allowlist.of_results(lambda value: value == "bad")
    pipeline = Pipeline(Retry(2, wait=NOW), failures=bad)
    inner = Pipeline(Retry(2, wait=NOW, budget=None), failures=bad)
    books: list[Any] = []

    async def returns_bad() -> str:
        return "bad"

    async def background(gone: asyncio.Event) -> None:
        await gone.wait()
        for _ in range(100):
            await inner.acall(returns_bad)
        books.append(given_up_results.get())

    async def main() -> None:
        gone = asyncio.Event()

        async def start() -> Any:
            return asyncio.create_task(background(gone))

        task = await pipeline.acall(start)
        gone.set()
        await task

    asyncio.run(main())

    assert books[0] is not None
    assert len(books[0].values) == 0


def test_a_mode_set_during_updates_stays() -> None:
    retry = Retry()
    reverted: list[int] = []

    def update() -> None:
        for number in range(2000):
            retry.update(attempts=1 + number % 3)

    def switch() -> None:
        for number in range(1000):
            mode = ("off", "shadow")[number % 2]
            retry.mode = mode
            if retry.mode != mode:
                reverted.append(number)

    with hasty_switches():
        assert together(update, update, switch) == []
    assert reverted == []


class Argument:
    pass


def test_a_refusal_keeps_no_arguments_alive() -> None:
    gate = Turnstile(patience=0.001)
    assert gate.take()
    drained = Pipeline(Retry())
    drained.drain(0)
    gc.collect()
    gc.disable()
    try:
        for pipeline in (Pipeline(gate), drained):
            argument = Argument()
            alive = weakref.ref(argument)
            with suppress(RejectedError):
                pipeline.call(print, argument)
            del argument
            assert alive() is None
    finally:
        gc.enable()


def test_a_retry_that_slept_leaves_no_garbage() -> None:
    pipeline = Pipeline(Retry(2, wait=backoff.fixed(0.001)))

    async def main() -> int:
        attempts = 0

        async def flaky(_: Argument) -> str:
            nonlocal attempts
            attempts += 1
            if attempts % 2:
                raise ConnectionError("down")
            return "fine"

        await pipeline.acall(flaky, Argument())
        gc.collect()
        gc.disable()
        try:
            for _ in range(5):
                await pipeline.acall(flaky, Argument())
            return gc.collect()
        finally:
            gc.enable()

    with virtual_time():
        assert asyncio.run(main()) == 0


def test_a_task_dropped_in_a_retry_wait_with_its_loop_goes() -> None:
    pipeline = Pipeline(Retry(2, wait=backoff.fixed(60)))
    loop = asyncio.new_event_loop()
    task = loop.create_task(pipeline.acall(down))
    for _ in range(3):
        loop.call_soon(loop.stop)
        loop.run_forever()
    loop.close()
    assert pipeline.snapshot()["in_flight"] == 1
    silence: Any = task
    silence._log_destroy_pending = False
    del task, silence

    pipeline.drain(0)
    gc.collect()

    assert pipeline.drain(0) is True


def test_trio_alarms_are_forgotten_with_their_run() -> None:
    pipeline = Pipeline(Retry(2, wait=backoff.fixed(5)))

    async def retried() -> None:
        await pipeline.acall(down)

    async def cancelled() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(retried)
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()

    async def main() -> None:
        with pytest.raises(ConnectionError):
            await pipeline.acall(down)

    with virtual_time() as clock:
        for _ in range(5):
            trio.run(cancelled)
            assert clock.trio_alarms == []
        trio.run(main)


def test_a_pipeline_that_stands_twice_in_another_counts_each_place() -> None:
    inner = Pipeline(Retry(1), name="stands-twice")
    seen: list[int] = []

    class Looks(Gate[None]):
        def admit(self, call: Call) -> None:
            seen.append(inner.snapshot()["in_flight"])

        def settle(self, token: Ticket | None, ending: Ending) -> None:
            seen.append(inner.snapshot()["in_flight"])

    outer = Pipeline(inner, Looks(), inner)
    outer.call(lambda: seen.append(inner.snapshot()["in_flight"]))

    assert seen == [1, 2, 1]
    assert inner.snapshot()["in_flight"] == 0


def test_a_retry_that_a_drain_prevents_is_neither_paid_nor_announced() -> None:
    budget = RetryBudget(capacity=5)
    pipeline = Pipeline(Retry(3, wait=backoff.fixed(1)), budget=budget)

    def draining() -> None:
        pipeline.drain(0)
        raise ConnectionError("down")

    with Recorder(pipeline) as recorder, pytest.raises(ConnectionError) as caught:
        pipeline.call(draining)

    assert budget.tokens == 5
    assert recorder.of(RetryScheduled) == []
    assert caught.value.__notes__ == ["resilience: attempt 2 not made: draining"]


class BrokenAdmit(Gate[None]):
    def admit(self, call: Call) -> None:
        raise KeyError("a bug in a hook")


class BrokenRefusal(Turnstile):
    def rejection(self, call: Call) -> RejectedError:
        raise KeyError("a bug in a hook")


class BrokenReward(Loop):
    def delay(self, call: Call, ending: Ending, series: RetryState) -> None: ...

    def on_success(self, site: Any) -> Callable[[], object]:
        def pay() -> None:
            raise KeyError("a bug in a hook")

        return pay


@pytest.mark.parametrize("mode", ["enforce", "shadow"])
def test_a_reward_that_raises_takes_no_success_away(mode: str) -> None:
    assert Pipeline(BrokenReward(mode=mode)).call(lambda: "fine") == "fine"


def test_a_broken_gate_in_shadow_mode_lets_calls_through() -> None:
    gate = BrokenRefusal()
    assert gate.take()
    gate.mode = "shadow"

    assert Pipeline(BrokenAdmit(mode="shadow"), gate).call(lambda: "fine") == "fine"


def test_a_broken_refusal_is_a_plain_one(virtual_time: VirtualClock) -> None:
    gate = BrokenRefusal()
    assert gate.take()

    with pytest.raises(RejectedError, match="turnstile did not let the call in"):
        Pipeline(gate).call(lambda: "fine")


@pytest.mark.parametrize("wait", [float("inf"), float("nan"), -5, "x", [], 10**400, True])
def test_a_wait_that_is_none_lets_the_error_out(wait: Any) -> None:
    class Odd(Loop):
        def delay(self, call: Call, ending: Ending, series: RetryState) -> Any:
            return wait

    with pytest.raises(ConnectionError, match="down"):
        Pipeline(Odd()).call(down)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
def test_a_forked_child_does_not_count_the_calls_of_the_parents_threads() -> None:
    pipeline = Pipeline(Retry())
    running, stop = threading.Event(), threading.Event()

    def hang() -> None:
        running.set()
        stop.wait(10)

    thread = threading.Thread(target=pipeline.call, args=(hang,))
    thread.start()
    assert running.wait(10)
    child = os.fork()
    if child == 0:
        os._exit(0 if pipeline.drain(1) else 1)
    _, status = os.waitpid(child, 0)
    stop.set()
    thread.join(10)

    assert os.waitstatus_to_exitcode(status) == 0


def test_a_policy_alone_has_one_budget_whoever_comes_first() -> None:
    with hasty_switches():
        for _ in range(50):
            retry = Retry()
            entries: list[Any] = []
            assert together(*[lambda retry=retry, entries=entries: entries.append(retry.entry()[0])] * 3) == []
            assert len({id(entry) for entry in entries}) == 1


def test_virtual_times_may_overlap() -> None:
    before, chance = clock.time, clock.random
    first, second = virtual_time(), virtual_time()
    one, other = seeded(1), seeded(2)
    virtual = first.__enter__()
    another = second.__enter__()
    one.__enter__()
    other.__enter__()

    first.__exit__(None, None, None)
    one.__exit__(None, None, None)
    assert clock.time is another is not virtual
    second.__exit__(None, None, None)
    other.__exit__(None, None, None)

    assert clock.time is before
    assert clock.random is chance
