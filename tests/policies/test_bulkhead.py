from __future__ import annotations

import asyncio
import gc
import logging
import math
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any, TypeAlias

import anyio
import anyio.lowlevel
import pytest
import trio
import uvloop

from resilience import (
    BulkheadFullError,
    Call,
    DeadlineExceededError,
    Ending,
    EndingKind,
    Gate,
    Pipeline,
    Retry,
    Ticket,
    backoff,
)
from resilience._call.wait_queue import TicketState
from resilience._outcome.ending import OK
from resilience._policies.bulkhead import Bulkhead
from resilience._util.finalizers import run_pending
from resilience.events import Rejected
from resilience.testing import Recorder, VirtualClock, virtual_time
from tests.support.cancellation import RUNNERS, Report, Scenario

PATIENCE = 60.0
LONG = 1e6
Run: TypeAlias = "Callable[[Callable[[], Any]], Any]"


def run_asyncio(main: Callable[[], Any]) -> Any:
    return asyncio.run(main())


def run_uvloop(main: Callable[[], Any]) -> Any:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


def run_trio(main: Callable[[], Any]) -> Any:
    return trio.run(main)


on_each_loop = pytest.mark.parametrize("run", [run_asyncio, run_uvloop, run_trio])
each_runner = pytest.mark.parametrize("harness", RUNNERS)


def call_of(bulkhead: Bulkhead, **settings: Any) -> Call:
    _, binding = Pipeline(bulkhead, **settings).entry()
    return Call(binding, int, (), {})


def admitted(bulkhead: Bulkhead, calls: int = 1) -> Call:
    """Let so many calls in, by the hooks; return a call to go on with."""
    call = call_of(bulkhead)
    for _ in range(calls):
        assert bulkhead.admit(call) is None
    return call


def queued(bulkhead: Bulkhead, call: Call) -> Ticket:
    ticket = bulkhead.admit(call)
    assert ticket is not None
    return ticket


def idle(bulkhead: Bulkhead) -> bool:
    return (bulkhead.in_flight, bulkhead.queued) == (0, 0)


def wait_until(condition: Callable[[], bool]) -> None:
    while not condition():
        os.sched_yield()


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def joined(*threads: threading.Thread) -> None:
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def reasons(recorder: Recorder) -> list[str]:
    return [event.reason for event in recorder.of(Rejected)]


@pytest.fixture
def _frantic_switching() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


# Settings


def test_the_defaults() -> None:
    bulkhead = Bulkhead(5)

    assert bulkhead.describe() == {
        "kind": "bulkhead",
        "name": "bulkhead",
        "mode": "enforce",
        "settings": {"limit": 5, "queue": 0, "max_wait": 1.0},
    }
    assert bulkhead.snapshot() == {"in_flight": 0, "queued": 0, "limit": 5, "peak": 0}
    assert (bulkhead.limit, bulkhead.in_flight, bulkhead.queued, bulkhead.peak) == (5, 0, 0, 0)
    assert repr(bulkhead) == "Bulkhead(limit=5)"
    assert bulkhead.holds_permit


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"limit": 0}, ValueError, "limit must be an integer >= 1, not 0"),
    ({"limit": -3}, ValueError, "limit must be an integer >= 1, not -3"),
    ({"limit": 2.0}, TypeError, "limit must be an integer >= 1, not 2.0"),
    ({"limit": True}, TypeError, "limit must be an integer >= 1, not True"),
    ({"limit": None}, TypeError, "limit must be an integer >= 1, not None"),
    ({"queue": -1}, ValueError, "queue must be an integer >= 0, not -1"),
    ({"queue": 1.5}, TypeError, "queue must be an integer >= 0, not 1.5"),
    ({"max_wait": -0.1}, ValueError, "max_wait must be a number >= 0, not -0.1"),
    ({"max_wait": math.inf}, ValueError, "max_wait must be a number >= 0, not inf"),
    ({"max_wait": math.nan}, ValueError, "max_wait must be a number >= 0, not nan"),
    ({"max_wait": None}, TypeError, "max_wait must be a number >= 0, not None"),
    ({"max_wait": "1"}, TypeError, "max_wait must be a number >= 0, not '1'"),
]


@pytest.mark.parametrize(("settings", "kind", "message"), BAD)
def test_bad_settings_are_refused_by_constructor_and_update(
    settings: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind) as constructed:
        Bulkhead(**{"limit": 1, **settings})
    bulkhead = Bulkhead(1)
    with pytest.raises(kind) as updated:
        bulkhead.update(**settings)

    assert str(constructed.value) == str(updated.value) == message
    assert bulkhead.describe() == Bulkhead(1).describe()


def test_a_setting_that_does_not_exist() -> None:
    with pytest.raises(TypeError, match="bulkhead has no setting depth; it has limit, max_wait, queue"):
        Bulkhead(1).update(depth=3)


def test_a_huge_limit_costs_nothing() -> None:
    bulkhead = Bulkhead(sys.maxsize)
    admitted(bulkhead, 3)
    bulkhead.update(limit=1)

    assert (bulkhead.in_flight, bulkhead.limit) == (3, 1)


# The hooks


def test_permits_are_taken_and_come_back() -> None:
    bulkhead = Bulkhead(2)
    call = admitted(bulkhead, 2)
    assert bulkhead.in_flight == 2
    with pytest.raises(BulkheadFullError):
        bulkhead.admit(call)
    for kind in (EndingKind.ABANDONED, EndingKind.FAILED):
        bulkhead.settle(None, Ending(kind))

    assert idle(bulkhead)
    assert bulkhead.peak == 2


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"queue": 0}, "it has no queue to wait in"),
        ({"queue": 3, "max_wait": 0}, "it has no queue to wait in"),
        ({"queue": 1}, "the 1 places in its queue are taken"),
    ],
)
def test_a_full_bulkhead_says_what_happened_why_and_what_to_do(settings: dict[str, Any], why: str) -> None:
    bulkhead = Bulkhead(2, **settings)
    call = call_of(bulkhead, name="orders")
    with pytest.raises(BulkheadFullError) as caught:
        for _ in range(4):
            bulkhead.admit(call)
    error = caught.value

    assert str(error) == (
        f"bulkhead of orders is full: all 2 permits are in use, and {why}; the dependency was not called. Make fewer "
        "calls at once, or raise limit, queue or max_wait if the dependency can bear it"
    )
    assert (error.policy, error.pipeline, error.reason, error.retry_after) == ("bulkhead", "orders", "full", None)
    assert error.unprocessed
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.reason, copy.pipeline) == (str(error), "full", "orders")


def test_every_rejection_is_a_new_exception() -> None:
    bulkhead = Bulkhead(1)
    call = admitted(bulkhead)
    errors: list[BulkheadFullError] = []
    for _ in range(2):
        with pytest.raises(BulkheadFullError) as caught:
            bulkhead.admit(call)
        errors.append(caught.value)

    assert errors[0] is not errors[1]


def test_a_newcomer_does_not_overtake() -> None:
    bulkhead = Bulkhead(1, queue=2)
    call = admitted(bulkhead)
    first = queued(bulkhead, call)
    bulkhead.settle(None, OK)
    second = queued(bulkhead, call)

    assert (first.state, second.state) == (TicketState.GRANTED, TicketState.WAITING)
    assert (bulkhead.in_flight, bulkhead.queued) == (1, 1)
    assert first.acquire()
    bulkhead.settle(first, OK)
    assert second.acquire()
    bulkhead.settle(second, OK)
    assert idle(bulkhead)


def test_who_gives_up_waiting_frees_the_place_and_who_gives_up_granted_hands_on() -> None:
    bulkhead = Bulkhead(1, queue=3)
    call = admitted(bulkhead)
    first, second, third = (queued(bulkhead, call) for _ in range(3))
    second.leave()
    assert bulkhead.queued == 2
    bulkhead.settle(None, OK)
    assert first.state is TicketState.GRANTED
    first.leave()

    assert (first.state, second.state, third.state) == (
        TicketState.CANCELLED,
        TicketState.CANCELLED,
        TicketState.GRANTED,
    )
    assert (bulkhead.in_flight, bulkhead.queued) == (1, 0)


def test_a_dropped_grant_is_handed_on() -> None:
    """A Ctrl-C between the grant, or the place in line, and the wait leaves a ticket that nobody holds."""
    bulkhead = Bulkhead(1, queue=3)
    call = admitted(bulkhead)
    queued(bulkhead, call)
    after = queued(bulkhead, call)
    bulkhead.settle(None, OK)
    gc.collect()
    run_pending()

    assert after.acquire()
    bulkhead.settle(after, OK)
    assert idle(bulkhead)


def test_reset_forgets_the_peak_and_no_permit() -> None:
    bulkhead = Bulkhead(5, queue=1)
    admitted(bulkhead, 4)
    for _ in range(3):
        bulkhead.settle(None, OK)
    assert bulkhead.snapshot() == {"in_flight": 1, "queued": 0, "limit": 5, "peak": 4}
    bulkhead.reset()
    assert bulkhead.snapshot() == {"in_flight": 1, "queued": 0, "limit": 5, "peak": 1}
    call = admitted(bulkhead, 4)
    waiting = queued(bulkhead, call)
    bulkhead.reset()

    assert bulkhead.snapshot() == {"in_flight": 5, "queued": 1, "limit": 5, "peak": 5}
    bulkhead.settle(None, OK)
    assert waiting.acquire()


# What others do at the worst moment


class Meanwhile:
    """A lock before which, at its n-th time, somebody else does something."""

    def __init__(self, bulkhead: Bulkhead, nth: int, action: Callable[[], object]) -> None:
        line: Any = bulkhead._line
        self.lock: threading.Lock = line.lock
        self.left = nth
        self.action = action
        line.lock = self

    def __enter__(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.action()
        self.lock.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self.lock.release()


def test_a_permit_that_comes_back_while_a_newcomer_looks_for_one_is_taken() -> None:
    bulkhead = Bulkhead(5)
    call = admitted(bulkhead)
    Meanwhile(bulkhead, 1, lambda: bulkhead.settle(None, OK))

    assert bulkhead.admit(call) is None
    assert (bulkhead.in_flight, bulkhead.peak) == (1, 1)


def test_a_permit_that_comes_back_while_a_newcomer_lines_up_is_granted() -> None:
    bulkhead = Bulkhead(1, queue=1)
    call = admitted(bulkhead)
    Meanwhile(bulkhead, 2, lambda: bulkhead.settle(None, OK))

    assert queued(bulkhead, call).acquire()
    assert (bulkhead.in_flight, bulkhead.queued) == (1, 0)


def test_a_newcomer_does_not_overtake_between_a_permit_and_its_grant() -> None:
    bulkhead = Bulkhead(1, queue=2)
    call = admitted(bulkhead)
    first = queued(bulkhead, call)
    woken: list[str] = []
    assert first.add_waker(partial(woken.append, "first"))
    second: list[Ticket] = []
    Meanwhile(bulkhead, 1, lambda: second.append(queued(bulkhead, call)))
    bulkhead.settle(None, OK)

    assert woken == ["first"]
    assert first.acquire()
    assert not second[0].acquire()


def test_another_newcomer_may_be_faster() -> None:
    bulkhead = Bulkhead(1)
    call = call_of(bulkhead)
    Meanwhile(bulkhead, 1, lambda: bulkhead.admit(call))

    with pytest.raises(BulkheadFullError):
        bulkhead.admit(call)
    assert (bulkhead.in_flight, bulkhead.peak) == (1, 1)


# Update while running


def test_a_higher_limit_lets_in_who_waits() -> None:
    bulkhead = Bulkhead(1, queue=5)
    call = admitted(bulkhead)
    tickets = [queued(bulkhead, call) for _ in range(3)]
    woken: list[int] = []
    for number, ticket in enumerate(tickets):
        assert ticket.add_waker(partial(woken.append, number))
    bulkhead.update(limit=3)

    assert woken == [0, 1]
    assert [ticket.acquire() for ticket in tickets] == [True, True, False]
    assert (bulkhead.in_flight, bulkhead.queued, bulkhead.limit, bulkhead.peak) == (3, 1, 3, 3)


def test_under_a_lower_limit_those_inside_finish_and_nobody_comes_in() -> None:
    bulkhead = Bulkhead(4, queue=1)
    call = admitted(bulkhead, 4)
    bulkhead.update(limit=2)
    assert (bulkhead.in_flight, bulkhead.limit) == (4, 2)
    ticket = queued(bulkhead, call)
    for left in (3, 2):
        bulkhead.settle(None, OK)
        assert (bulkhead.in_flight, ticket.state) == (left, TicketState.WAITING)
    bulkhead.settle(None, OK)
    assert (bulkhead.in_flight, ticket.state) == (2, TicketState.GRANTED)
    assert ticket.acquire()
    for token in (ticket, None):
        bulkhead.settle(token, OK)

    assert idle(bulkhead)
    assert bulkhead.peak == 4
    admitted(bulkhead, 2)
    with pytest.raises(BulkheadFullError, match="all 2 permits"):
        bulkhead.update(queue=0)
        bulkhead.admit(call)


def test_a_limit_that_goes_down_and_up_again() -> None:
    bulkhead = Bulkhead(4)
    call = admitted(bulkhead, 4)
    bulkhead.settle(None, OK)
    bulkhead.update(limit=1)
    with pytest.raises(BulkheadFullError):
        bulkhead.admit(call)
    bulkhead.update(limit=5)
    assert [bulkhead.admit(call) for _ in range(2)] == [None, None]
    with pytest.raises(BulkheadFullError):
        bulkhead.admit(call)

    assert (bulkhead.in_flight, bulkhead.peak) == (5, 5)


def test_queue_and_max_wait_hold_for_who_comes_later() -> None:
    bulkhead = Bulkhead(1, queue=2, max_wait=1.0)
    with virtual_time() as clock:
        call = admitted(bulkhead)
        early = [queued(bulkhead, call) for _ in range(2)]
        bulkhead.update(queue=1, max_wait=5)
        with pytest.raises(BulkheadFullError):
            bulkhead.admit(call)
        early[0].leave()
        early[1].leave()
        late = queued(bulkhead, call)

        assert early[1].until == clock.monotonic() + 1.0
        assert late.until == clock.monotonic() + 5.0


# Threads


def test_the_queue_is_served_in_order_across_threads_asyncio_and_trio() -> None:
    bulkhead = Bulkhead(1, queue=20, max_wait=LONG)
    pipeline = Pipeline(bulkhead)
    served: list[int] = []
    release = threading.Event()

    async def note(number: int) -> None:
        await anyio.lowlevel.checkpoint()
        served.append(number)

    def has_queued(calls: int) -> bool:
        return bulkhead.queued == calls

    ways: list[Callable[[int], object]] = [
        lambda number: pipeline.call(served.append, number),
        lambda number: asyncio.run(pipeline(note)(number)),
        lambda number: trio.run(pipeline(note), number),
    ]
    threads = [in_thread(lambda: pipeline.call(release.wait, PATIENCE))]
    wait_until(lambda: bulkhead.in_flight == 1)
    for number in range(9):
        threads.append(in_thread(partial(ways[number % 3], number)))
        wait_until(partial(has_queued, number + 1))
    release.set()
    joined(*threads)

    assert served == list(range(9))
    assert idle(bulkhead)
    assert bulkhead.peak == 1


def test_a_thread_waits_no_longer_than_max_wait() -> None:
    bulkhead = Bulkhead(1, queue=1, max_wait=0.2)
    pipeline = Pipeline(bulkhead, name="bulkhead-in-vain")
    with virtual_time() as clock, Recorder(pipeline) as recorder:
        admitted(bulkhead)
        with pytest.raises(BulkheadFullError, match=r"the longest wait for one, 0\.2 s, is over") as caught:
            pipeline.call(int)
        assert clock.elapsed == pytest.approx(0.2)

    assert (caught.value.reason, caught.value.policy) == ("queue_timeout", "bulkhead")
    assert reasons(recorder) == ["queue_timeout"]
    assert (bulkhead.in_flight, bulkhead.queued) == (1, 0)


class Hurry(Gate[None]):
    """Gives a call so many seconds."""

    def __init__(self, clock: VirtualClock, seconds: float) -> None:
        super().__init__()
        self.clock = clock
        self.seconds = seconds

    def admit(self, call: Call) -> None:
        call.deadline = self.clock.monotonic() + self.seconds


@pytest.mark.parametrize(("seconds", "error"), [(0.1, DeadlineExceededError), (0.3, BulkheadFullError)])
def test_what_runs_out_first_is_named(seconds: float, error: type[Exception]) -> None:
    bulkhead = Bulkhead(1, queue=1, max_wait=0.2)
    admitted(bulkhead)
    with virtual_time() as clock, pytest.raises(error) as caught:
        Pipeline(Hurry(clock, seconds), bulkhead).call(int)

    assert getattr(caught.value, "unprocessed", False)
    assert clock.elapsed == pytest.approx(min(seconds, 0.2))
    assert (bulkhead.in_flight, bulkhead.queued) == (1, 0)


@pytest.mark.usefixtures("_frantic_switching")
@pytest.mark.parametrize("queue", [0, 8])
def test_it_is_exact_under_8_threads(queue: int) -> None:
    bulkhead = Bulkhead(3, queue=queue, max_wait=LONG)
    pipeline = Pipeline(bulkhead)
    start = threading.Barrier(8, timeout=PATIENCE)
    lock = threading.Lock()
    inside = most = done = refused = 0

    def work() -> None:
        nonlocal inside, most, done
        with lock:
            inside += 1
            most = max(most, inside)
        with lock:
            inside -= 1
            done += 1

    def run() -> None:
        nonlocal refused
        start.wait()
        for _ in range(400):
            try:
                pipeline.call(work)
            except BulkheadFullError:
                with lock:
                    refused += 1

    joined(*[in_thread(run) for _ in range(8)])

    assert done + refused == 8 * 400
    assert refused == 0 or queue == 0
    assert 1 <= most <= bulkhead.peak <= 3
    assert idle(bulkhead)
    admitted(bulkhead, 3)


@pytest.mark.usefixtures("_frantic_switching")
def test_it_is_exact_while_the_limit_moves() -> None:
    bulkhead = Bulkhead(6, queue=8, max_wait=LONG)
    pipeline = Pipeline(bulkhead)
    stop = threading.Event()
    done: list[int] = []

    def run() -> None:
        for _ in range(300):
            pipeline.call(done.append, 1)

    def move() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            bulkhead.update(limit=1 + number * 5 % 7)
            if number % 10 == 0:
                bulkhead.reset()
            assert 0 <= bulkhead.in_flight <= 7

    mover = in_thread(move)
    joined(*[in_thread(run) for _ in range(7)])
    stop.set()
    joined(mover)

    assert len(done) == 7 * 300
    assert idle(bulkhead)
    bulkhead.update(limit=4, queue=0)
    with pytest.raises(BulkheadFullError):
        admitted(bulkhead, 5)
    assert bulkhead.in_flight == 4


# Ctrl-C


def test_ctrl_c_while_parked_gives_the_place_back() -> None:
    bulkhead = Bulkhead(1, queue=1, max_wait=PATIENCE)
    pipeline = Pipeline(bulkhead)
    admitted(bulkhead)

    def interrupt() -> None:
        wait_until(lambda: bulkhead.queued == 1)
        os.kill(os.getpid(), signal.SIGINT)

    thread = in_thread(interrupt)
    with pytest.raises(KeyboardInterrupt):
        pipeline.call(int)
    joined(thread)

    assert (bulkhead.in_flight, bulkhead.queued) == (1, 0)
    bulkhead.settle(None, OK)
    assert pipeline.call(int) == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, ZeroDivisionError, ConnectionError])
def test_a_permit_comes_back_whatever_the_function_raises(error: type[BaseException]) -> None:
    bulkhead = Bulkhead(1)
    pipeline = Pipeline(bulkhead)

    def fail() -> None:
        assert bulkhead.in_flight == 1
        raise error

    async def fail_async() -> None:
        fail()

    with pytest.raises(error):
        pipeline.call(fail)
    coroutine = pipeline(fail_async)()
    with pytest.raises(error):
        coroutine.send(None)

    assert idle(bulkhead)


SIGNALLED = """
import gc, signal
from resilience import Call, Pipeline
from resilience._outcome.ending import OK
from resilience._policies.bulkhead import Bulkhead

class Signalled(BaseException):
    pass

armed = False
heard = lost = 0

def hear(*_):
    global heard
    if armed:
        heard += 1
        raise Signalled

gc.disable()  # an exception in a finaliser is swallowed
bulkhead = Bulkhead(1)
_, binding = Pipeline(bulkhead).entry()
call = Call(binding, int, (), {})
admit, settle = bulkhead.admit, bulkhead.settle
signal.signal(signal.SIGALRM, hear)
signal.setitimer(signal.ITIMER_REAL, 2e-5, 2e-5)
while heard < 2000:
    entered = False
    try:
        armed = True
        while True:
            admit(call)
            entered = True
            settle(None, OK)
            entered = False
    except Signalled:
        armed = False
    if bulkhead.in_flight:
        lost += not entered
        settle(None, OK)
signal.setitimer(signal.ITIMER_REAL, 0)
print("lost", lost, bulkhead.snapshot())
"""


def test_a_signal_during_admit_loses_no_permit() -> None:
    """Either `admit` came back, or nothing was taken: Python hears signals between its steps, wherever it calls."""
    child = subprocess.run([sys.executable, "-c", SIGNALLED], capture_output=True, text=True, timeout=PATIENCE)

    assert child.stderr == ""
    assert child.stdout == "lost 0 {'in_flight': 0, 'queued': 0, 'limit': 1, 'peak': 1}\n"


# Event loops


@on_each_loop
def test_tasks_are_served_in_order(run: Run) -> None:
    bulkhead = Bulkhead(1, queue=10, max_wait=LONG)
    pipeline = Pipeline(bulkhead)
    order: list[int] = []
    admitted(bulkhead)

    async def work(number: int) -> None:
        assert bulkhead.in_flight == 1
        order.append(number)
        await anyio.lowlevel.checkpoint()

    async def enter(number: int) -> None:
        while bulkhead.queued < number:
            await anyio.lowlevel.checkpoint()
        if number == 8:
            bulkhead.settle(None, OK)
        else:
            await pipeline.acall(work, number)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for number in range(9):
                group.start_soon(enter, number)

    run(main)

    assert order == list(range(8))
    assert idle(bulkhead)


@on_each_loop
def test_tasks_share_a_limit(run: Run) -> None:
    bulkhead = Bulkhead(2, queue=10, max_wait=LONG)
    pipeline = Pipeline(bulkhead)
    inside: list[int] = []
    most = 0

    async def work(number: int) -> None:
        nonlocal most
        inside.append(number)
        most = max(most, len(inside))
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        inside.remove(number)

    guarded: Callable[[int], Coroutine[Any, Any, None]] = pipeline(work)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for number in range(8):
                group.start_soon(guarded, number)

    run(main)

    assert (most, bulkhead.peak) == (2, 2)
    assert idle(bulkhead)


@on_each_loop
def test_after_1000_timeouts_the_capacity_is_full(run: Run) -> None:
    bulkhead = Bulkhead(3, queue=1000, max_wait=0.5)
    pipeline = Pipeline(bulkhead)
    caught: list[str] = []
    inside: list[int] = []

    async def wait_in_vain() -> None:
        try:
            await pipeline.acall(int)
        except BulkheadFullError as error:
            caught.append(str(error.reason))

    async def meet() -> None:
        inside.append(1)
        while len(inside) < 3:
            await anyio.lowlevel.checkpoint()

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(1001):
                group.start_soon(wait_in_vain)
        for _ in range(3):
            bulkhead.settle(None, OK)
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(pipeline.acall, meet)

    admitted(bulkhead, 3)
    with virtual_time():
        run(main)

    assert sorted(caught) == ["full"] + ["queue_timeout"] * 1000
    assert len(inside) == 3
    assert idle(bulkhead)


@on_each_loop
def test_a_thread_lets_a_task_in_by_raising_the_limit(run: Run) -> None:
    bulkhead = Bulkhead(1, queue=1, max_wait=LONG)
    pipeline = Pipeline(bulkhead)
    admitted(bulkhead)

    def update() -> None:
        wait_until(lambda: bulkhead.queued == 1)
        bulkhead.update(limit=2)

    async def main() -> int:
        thread = in_thread(update)
        try:
            return await pipeline.acall(lambda: 7)
        finally:
            joined(thread)

    assert run(main) == 7
    assert (bulkhead.in_flight, bulkhead.queued, bulkhead.peak) == (1, 0, 2)


@pytest.mark.parametrize("factory", [asyncio.SelectorEventLoop, uvloop.new_event_loop])
def test_a_loop_closed_with_waiters_in_it_hands_on(
    factory: Callable[[], asyncio.AbstractEventLoop], caplog: pytest.LogCaptureFixture
) -> None:
    bulkhead = Bulkhead(1, queue=5, max_wait=LONG)
    pipeline = Pipeline(bulkhead)
    admitted(bulkhead)
    loop = factory()
    tasks = [loop.create_task(pipeline.acall(int)) for _ in range(3)]

    loop.call_soon(loop.stop)
    loop.run_forever()
    assert bulkhead.queued == 3
    loop.close()
    served: list[int] = []
    thread = in_thread(lambda: pipeline.call(served.append, 7))
    wait_until(lambda: bulkhead.queued == 4)
    bulkhead.settle(None, OK)
    joined(thread)

    assert served == [7]
    assert idle(bulkhead)
    with caplog.at_level(logging.CRITICAL, logger="asyncio"):  # it complains of tasks that never ended
        del tasks
        gc.collect()
        run_pending()
    assert idle(bulkhead)


# Cancellation at every suspension


def crowded(bulkhead: Bulkhead, make: Callable[[Bulkhead], Pipeline[Any]]) -> Scenario:
    """A call whose first attempt fails, while others hold the permits at first."""
    pipeline = make(bulkhead)
    attempts = 0

    async def fetch() -> str:
        nonlocal attempts
        await anyio.lowlevel.checkpoint()
        attempts += 1
        if attempts == 1:
            raise ConnectionError("hung up")
        await anyio.lowlevel.checkpoint()
        return "fine"

    async def hold() -> None:
        for _ in range(3):
            await anyio.lowlevel.checkpoint()

    async def holder() -> None:
        await Pipeline(bulkhead).acall(hold)

    def check() -> str | None:
        return None if idle(bulkhead) else str(bulkhead.snapshot())

    helpers: list[Callable[[], Coroutine[Any, Any, Any]]] = [holder] * (2 if bulkhead.settings.queue else 0)
    return Scenario(call=lambda: pipeline.acall(fetch), check=check, helpers=helpers)


PIPELINES: dict[str, Callable[[Bulkhead], Pipeline[Any]]] = {
    "alone": lambda bulkhead: Pipeline(bulkhead),
    "per attempt": lambda bulkhead: Pipeline(Retry(3, wait=backoff.fixed(0.5)), bulkhead),
    "around retries": lambda bulkhead: Pipeline(bulkhead, Retry(3, wait=backoff.fixed(0.5))),
    "twice": lambda bulkhead: Pipeline(Retry(3, wait=backoff.none()), Bulkhead(1, queue=1), bulkhead),
}


@each_runner
@pytest.mark.parametrize("queue", [0, 5])
@pytest.mark.parametrize("name", PIPELINES)
def test_permits_come_back_wherever_cancellation_strikes(
    harness: Callable[[Callable[[], Scenario]], Report], name: str, queue: int
) -> None:
    with virtual_time():
        report = harness(lambda: crowded(Bulkhead(1, queue=queue, max_wait=10.0), PIPELINES[name]))

    report.must_hold()


@each_runner
def test_permits_come_back_when_the_wait_in_the_queue_may_time_out(
    harness: Callable[[Callable[[], Scenario]], Report],
) -> None:
    """One permit is held for longer than the wait, so that cancellation also meets a wait that is over."""
    with virtual_time() as clock:

        def scenario() -> Scenario:
            bulkhead = Bulkhead(1, queue=5, max_wait=0.5)
            one = crowded(bulkhead, PIPELINES["per attempt"])

            async def patient() -> None:
                clock.advance(0.4)
                await Pipeline(bulkhead).acall(anyio.lowlevel.checkpoint)

            one.helpers.append(patient)
            return one

        report = harness(scenario)

    report.must_hold()


# Other hooks that raise, streams, shadow, off


class Broken(Gate[None]):
    """A gate whose hook raises."""

    def __init__(self, hook: str) -> None:
        super().__init__()
        self.hook = hook

    def admit(self, call: Call) -> None:
        if self.hook == "admit":
            raise ZeroDivisionError

    def settle(self, token: Ticket | None, ending: Ending) -> None:
        if self.hook == "settle":
            raise ZeroDivisionError


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("hook", ["admit", "settle"])
def test_hooks_that_raise_keep_no_permit(hook: str, inside: bool) -> None:
    bulkhead = Bulkhead(1)
    pipeline = Pipeline(bulkhead, Broken(hook)) if inside else Pipeline(Broken(hook), bulkhead)
    attempts: list[Callable[[], int]] = [lambda: pipeline.call(int), lambda: asyncio.run(pipeline.acall(int))]
    for _ in range(3):
        for attempt in attempts:
            if hook == "admit":
                with pytest.raises(ZeroDivisionError):
                    attempt()
            else:
                assert attempt() == 0

    assert idle(bulkhead)


def test_a_listener_that_raises_does_not_reach_the_call() -> None:
    bulkhead = Bulkhead(1)
    pipeline = Pipeline(bulkhead)
    admitted(bulkhead)

    def listener(event: object) -> None:
        raise ZeroDivisionError

    with pipeline.subscribe(listener), pytest.raises(BulkheadFullError):
        pipeline.call(int)

    bulkhead.settle(None, OK)
    assert idle(bulkhead)


def test_a_rejection_is_not_retried() -> None:
    bulkhead = Bulkhead(1)
    admitted(bulkhead)
    pipeline = Pipeline(Retry(5), bulkhead)
    with virtual_time() as clock, Recorder(pipeline) as recorder, pytest.raises(BulkheadFullError):
        pipeline.call(int)

    assert (reasons(recorder), clock.sleeps) == (["full"], [])


def test_shadow_counts_what_enforce_would_let_in() -> None:
    bulkhead = Bulkhead(1, mode="shadow")
    pipeline = Pipeline(bulkhead)
    seen: list[int] = []

    def outer() -> int:
        seen.append(bulkhead.in_flight)
        return pipeline.call(inner)

    def inner() -> int:
        seen.append(bulkhead.in_flight)
        return 7

    with Recorder(pipeline) as recorder:
        assert pipeline.call(outer) == 7

    assert seen == [1, 1]
    assert [(event.reason, event.mode) for event in recorder.of(Rejected)] == [("full", "shadow")]
    assert idle(bulkhead)
    bulkhead.mode = "enforce"
    with pytest.raises(BulkheadFullError):
        pipeline.call(outer)
    assert idle(bulkhead)


def test_the_mode_changes_while_calls_run() -> None:
    bulkhead = Bulkhead(3)
    pipeline = Pipeline(bulkhead)
    modes = iter(["shadow", "off", "enforce", "shadow"])

    def work(depth: int) -> int:
        bulkhead.update(mode=next(modes))
        return depth if depth == 3 else pipeline.call(work, depth + 1)

    assert pipeline.call(work, 0) == 3
    assert idle(bulkhead)


def test_one_bulkhead_in_two_pipelines_is_shared() -> None:
    bulkhead = Bulkhead(1)
    first, second = Pipeline(bulkhead, name="bulkhead-first"), Pipeline(bulkhead, name="bulkhead-second")

    with pytest.raises(BulkheadFullError) as caught:
        first.call(second.call, int)

    assert caught.value.pipeline == "bulkhead-second"
    assert idle(bulkhead)


def test_a_bulkhead_guards_a_function_by_itself() -> None:
    bulkhead = Bulkhead(1, name="narrow")

    @bulkhead
    def descend(depth: int) -> int:
        return depth if depth == 0 else descend(depth - 1)

    assert descend(0) == 0
    with pytest.raises(BulkheadFullError, match=r"narrow of .*descend is full") as caught:
        descend(1)
    assert caught.value.policy == "narrow"


def test_a_forked_child_can_use_it() -> None:
    from tests.support.fork import in_child

    bulkhead = Bulkhead(1, queue=1)
    pipeline = Pipeline(bulkhead)

    assert in_child(lambda: str(pipeline.call(lambda: 7))) == "7"
