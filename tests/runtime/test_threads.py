"""Waits and calls in threads: waking, stopping, deadlines, and calls that are left behind."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.to_thread
import pytest

from resilience import (
    Bulkhead,
    BulkheadFullError,
    DeadlineExceededError,
    DeferredSettlement,
    Pipeline,
    Retry,
    Timeout,
    backoff,
    current_deadline,
    deadline_after,
)
from resilience._call.running_call import GIVEN, RunningCall
from resilience._outcome.ending import OK
from resilience._runtime import threads
from resilience._runtime.threads import Stopped, StopToken, ThreadCall
from resilience._util import log_once
from resilience._util.clock import FOREVER, clock
from resilience.testing import VirtualClock
from tests.support.calls import running_call
from tests.support.functions import Failing, hang, pages, raising
from tests.support.garbage import no_collection
from tests.support.loops import Run, each_loop
from tests.support.threads import PATIENCE, interrupt_while, wait_until
from tests.support.turnstile import Turnstile

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


class Waiter:
    """Something to wait for, which keeps what wakes its waiter."""

    def __init__(self, *, over: bool = False) -> None:
        self.over = over
        self.wakers: list[Callable[[], object]] = []

    def add_waker(self, wake: Callable[[], object]) -> bool:
        self.wakers.append(wake)
        return not self.over


def thread_of(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


class TestWaiting:
    @pytest.mark.parametrize("wait", [threads.park, threads.sleep])
    def test_until_woken(self, wait: Callable[[Any, float], None]) -> None:
        waiter = Waiter()
        thread = thread_of(lambda: wait(waiter, FOREVER))

        wait_until(lambda: bool(waiter.wakers))
        assert thread.is_alive()
        waiter.wakers[0]()

        thread.join(PATIENCE)
        assert not thread.is_alive()

    @pytest.mark.parametrize("wait", [threads.park, threads.sleep])
    def test_until_a_point_in_time(self, virtual_clock: VirtualClock, wait: Callable[[Any, float], None]) -> None:
        wait(Waiter(), clock.monotonic() + 7)

        assert virtual_clock.elapsed == pytest.approx(7)

    @pytest.mark.parametrize("wait", [threads.park, threads.sleep])
    def test_for_nothing(self, virtual_clock: VirtualClock, wait: Callable[[Any, float], None]) -> None:
        wait(Waiter(over=True), clock.monotonic() + 7)

        assert virtual_clock.elapsed == 0

    def test_only_the_waits_between_attempts_are_sleeps(self, virtual_clock: VirtualClock) -> None:
        threads.park(Waiter(), clock.monotonic() + 1)
        threads.sleep(Waiter(), clock.monotonic() + 2)

        assert virtual_clock.sleeps == pytest.approx([2])


class TestStopping:
    def test_a_wait_ends(self) -> None:
        stop, waiter = StopToken(), Waiter()
        raised: list[BaseException] = []

        def work() -> None:
            try:
                threads.park(waiter, FOREVER)
            except BaseException as error:
                raised.append(error)

        threads.start(work, stop)
        wait_until(lambda: bool(waiter.wakers))
        stop.stop()

        wait_until(lambda: bool(raised))
        assert isinstance(raised[0], Stopped)

    def test_a_later_wait_does_not_begin(self, virtual_clock: VirtualClock) -> None:
        stop = StopToken()
        stop.stop()

        def work() -> None:
            threads.stopping.set(stop)
            with pytest.raises(Stopped):
                threads.park(Waiter(), clock.monotonic() + 7)

        contextvars.copy_context().run(work)

        assert virtual_clock.elapsed == 0

    def test_whoever_is_woken_at_the_same_time_stops_as_well(self) -> None:
        stop, bell = StopToken(), threading.Lock()
        bell.acquire()

        def wait(lock: threading.Lock, seconds: float) -> bool:
            lock.release()  # by what it has waited for
            stop.stop()  # and a second release would be an error
            return True

        with pytest.raises(Stopped):
            stop.wait(wait, bell, FOREVER)

    def test_a_wait_that_nobody_stops_goes_on(self, virtual_clock: VirtualClock) -> None:
        def work() -> None:
            threads.stopping.set(StopToken())
            threads.park(Waiter(), clock.monotonic() + 7)

        contextvars.copy_context().run(work)

        assert virtual_clock.elapsed == pytest.approx(7)

    def test_a_thread_is_started_in_a_copy_of_the_context(self) -> None:
        stop = StopToken()
        seen: list[Any] = []

        def work() -> None:
            seen.append((variable.get(), threads.stopping.get(), threading.current_thread().daemon))
            variable.set("by the thread")

        def run() -> str:
            variable.set("by its starter")
            threads.start(work, stop)
            wait_until(lambda: bool(seen))
            return variable.get()

        assert contextvars.copy_context().run(run) == "by its starter"
        assert seen == [("by its starter", stop, True)]
        assert threads.stopping.get() is None


def forgets_to_await() -> Awaitable[str]:
    return hang()


class TestCalling:
    def test_the_deadline_is_the_ambient_one_inside_and_put_back_afterwards(self, virtual_clock: VirtualClock) -> None:
        seen: list[float | None] = []

        def look() -> None:
            seen.append(current_deadline())

        def fail() -> None:
            look()
            raise KeyError

        with deadline_after(5):
            outside = current_deadline()
            call = running_call(None, look)
            call.deadline = clock.monotonic() + 1
            call.deadline_source = GIVEN
            threads.call_with_deadline(call)
            look()
            call = running_call(None, fail)
            call.deadline = clock.monotonic() + 1
            call.deadline_source = GIVEN
            with pytest.raises(KeyError):
                threads.call_with_deadline(call)
            look()

        assert seen == [call.deadline, outside, call.deadline, outside]

    def test_nothing_is_called_after_the_deadline(self, virtual_clock: VirtualClock) -> None:
        calls: list[int] = []
        call = running_call(None, calls.append, 1)
        call.deadline = clock.monotonic()
        call.deadline_source = GIVEN

        with pytest.raises(DeadlineExceededError) as caught:
            threads.call_with_deadline(call)

        assert caught.value.unprocessed
        assert (calls, call.calls_made) == ([], 0)

    @pytest.mark.parametrize(
        ("error", "expected"), [(DeadlineExceededError(), DeadlineExceededError), (KeyError(), KeyError)]
    )
    def test_an_exception_after_the_deadline_is_its_own_unless_the_deadline_caused_it(
        self, virtual_clock: VirtualClock, error: Exception, expected: type[Exception]
    ) -> None:
        def work() -> None:
            virtual_clock.advance(2)
            raise error

        call = running_call(None, work)
        call.deadline = clock.monotonic() + 1
        call.deadline_source = GIVEN

        with pytest.raises(expected) as caught:
            threads.call_with_deadline(call)

        assert (caught.value is error) is (expected is KeyError)
        assert caught.value.__cause__ is (None if expected is KeyError else error)

    def test_there_are_no_cancel_scopes(self) -> None:
        assert threads.effective_deadline() == FOREVER


class Late(RunningCall):
    """A call that keeps what it has to dispose of."""

    __slots__ = ("disposed",)

    disposed: list[Any]

    def copy(self) -> Late:
        copy = self.copy_state_to(Late.make(self.options, self.function, self.args, self.kwargs))
        copy.disposed = self.disposed
        return copy

    def dispose(self, result: Any) -> None:
        self.disposed.append(result)


def late(function: Callable[[], Any]) -> Late:
    call = Late.make(Pipeline[Any]().entry()[1], function, (), {})
    call.disposed = []
    return call


def invoke(call: RunningCall) -> Any:
    call.calls_made += 1
    return call.function()


class TestThreadCall:
    def test_a_result_in_time(self) -> None:
        call = late(lambda: "fine")
        thread_call = ThreadCall(invoke, call)

        thread_call.start()

        assert thread_call.wait(FOREVER)
        assert thread_call.outcome() == "fine"
        assert (thread_call.abandoned, call.deferred, call.calls_made, call.disposed) == (None, None, 1, [])

    @pytest.mark.parametrize("error", [KeyError("mine"), KeyboardInterrupt()])
    def test_what_is_raised_in_time(self, error: BaseException) -> None:
        thread_call = ThreadCall(invoke, late(raising(error)))

        thread_call.start()
        assert thread_call.wait(FOREVER)

        with pytest.raises(type(error)) as caught:
            thread_call.outcome()
        assert caught.value is error

    def test_what_is_raised_is_kept_by_nobody(self) -> None:
        class Probe:
            pass

        seen: list[weakref.ref[Probe]] = []

        def fail() -> None:
            probe = Probe()
            seen.append(weakref.ref(probe))
            raise KeyError

        with no_collection():
            thread_call = ThreadCall(invoke, late(fail))
            thread_call.start()
            assert thread_call.wait(FOREVER)
            with pytest.raises(KeyError):
                thread_call.outcome()

            wait_until(lambda: seen[0]() is None)

    def test_a_result_that_comes_too_late_is_disposed_of(self, virtual_clock: VirtualClock) -> None:
        release = threading.Event()

        def work() -> str:
            virtual_clock.advance(1)
            release.wait(PATIENCE)
            return "late"

        call = late(work)
        thread_call = ThreadCall(invoke, call)
        until = clock.monotonic() + 1
        thread_call.start()

        assert not thread_call.wait(until)
        assert call.deferred is not None
        assert call.deferred is thread_call.abandoned
        endings: list[str] = []
        call.deferred.add(lambda ending: endings.append(ending.kind))
        assert (endings, call.disposed) == ([], [])
        release.set()

        wait_until(lambda: bool(endings))
        assert (endings, call.disposed) == (["timed_out"], ["late"])

    def test_what_hangs_further_in_is_waited_for(self, virtual_clock: VirtualClock) -> None:
        release, further = threading.Event(), DeferredSettlement(known=True)

        def step(call: RunningCall) -> None:
            virtual_clock.advance(1)
            release.wait(PATIENCE)
            call.deferred = further

        call = late(int)
        thread_call = ThreadCall(step, call)
        until = clock.monotonic() + 1
        thread_call.start()
        assert not thread_call.wait(until)
        release.set()

        wait_until(lambda: call.disposed == [None])
        assert call.deferred is not None
        assert not call.deferred.ended
        further.end(OK)
        assert call.deferred.ended

    @pytest.mark.parametrize("before", [True, False])
    def test_a_drain_ends_the_waits_of_the_thread(self, before: bool) -> None:
        stopped: list[bool] = []
        waits = threading.Event()

        def step(call: RunningCall) -> None:
            waits.set()
            wait_until(lambda: call.retries_stopped)
            stopped.append(call.retries_stopped)

        call = late(int)

        def stop() -> None:
            waits.wait(PATIENCE)
            call.stop_retrying()

        if before:
            call.stop_retrying()
        else:
            thread_of(stop)
        thread_call = ThreadCall(step, call)
        thread_call.start()

        assert thread_call.wait(FOREVER)
        assert stopped == [True]


def test_ctrl_c_while_parked_gives_the_place_back() -> None:
    gate = Turnstile(patience=60.0)
    gate.take()
    pipeline: Pipeline[Any] = Pipeline(gate)

    thread = threading.Thread(target=interrupt_while, args=(lambda: len(gate.line) == 1,))
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        pipeline.call(int)
    thread.join()

    assert len(gate.line) == 0
    assert gate.in_flight == 1
    assert pipeline.snapshot()["in_flight"] == 0


def test_context_variables_stay_set_plainly() -> None:
    def run() -> str:
        Pipeline(Timeout(1), Retry(2)).call(variable.set, "by the function")
        return variable.get()

    assert contextvars.copy_context().run(run) == "by the function"


def test_misuse_under_a_deadline_is_refused_as_well() -> None:
    with pytest.raises(TypeError, match="returned a generator"):
        Pipeline(Timeout(1)).call(pages)
    with pytest.raises(TypeError, match="acall"):
        Pipeline(Timeout(1)).call(forgets_to_await)


class TestWaitInAnEventLoop:
    """A plain guarded call that waits blocks the loop: that is said once for each operation."""

    @pytest.fixture(autouse=True)
    def _nothing_logged(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(log_once, "_logged", set())

    @each_loop
    def test_a_wait_between_two_attempts_says_so(self, run: Run, caplog: pytest.LogCaptureFixture) -> None:
        flaky = Failing(2)

        async def main() -> None:
            Pipeline(Retry(3, wait=backoff.fixed(0.1))).call(flaky)

        run(main)

        assert len([message for message in caplog.messages if "blocks" in message]) == 1
        assert "blocks the loop meanwhile; use `await pipeline.acall(...)`" in caplog.text

    def test_so_does_a_wait_in_a_queue_and_for_a_thread(self, caplog: pytest.LogCaptureFixture) -> None:
        bulkhead = Bulkhead(1, queue=1, max_wait=0.01)

        async def main() -> None:
            with bulkhead.calling(), pytest.raises(BulkheadFullError):
                bulkhead.call(str)
            Pipeline(Timeout(30, thread=True)).call(str)

        asyncio.run(main())

        told = [
            message.partition(" waits in a thread")[0] for message in caplog.messages if "blocks the loop" in message
        ]
        assert told == ["a guarded call", "str"]

    @each_loop
    def test_a_call_that_does_not_wait_says_nothing(self, run: Run, caplog: pytest.LogCaptureFixture) -> None:
        async def main() -> None:
            Pipeline(Retry(3, wait=backoff.none()), Bulkhead(1, queue=1)).call(Failing(1))
            await anyio.to_thread.run_sync(Pipeline(Retry(3, wait=backoff.fixed(0))).call, Failing(1))

        run(main)

        assert caplog.messages == []

    @pytest.mark.usefixtures("virtual_clock")
    def test_without_a_loop_nothing_is_said(self, caplog: pytest.LogCaptureFixture) -> None:
        Pipeline(Retry(3, wait=backoff.fixed(1))).call(Failing(2))

        assert caplog.messages == []
