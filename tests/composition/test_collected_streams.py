"""A collection may come at every instruction, also where this thread has locked the state of a policy.

Then a finalizer of the user's closes a stream that holds permits. Its settlement is put off, exactly once, until the
region has ended.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

import resilience
from resilience import Bulkhead, CircuitBreaker, DeferredSettlement, Ending, Pipeline, Retry, RetryBudget
from resilience._call.call import Call
from resilience._util.finalizers import pending
from resilience._util.locks import holds_any_lock, inside_state
from resilience.events import BreakerChanged, CallEnded
from tests.support.policies import Streaming
from tests.support.threads import wait_until

PACKAGE = resilience.__path__[0]
pytestmark = pytest.mark.skipif(
    sys.version_info[:2] == (3, 12), reason="Python 3.12.1 does not trace every instruction of a function"
)
FAILED = Ending(None, ConnectionError(), resilience.NETWORK_ERRORS)


class Stream:
    """A client's stream, in a reference cycle, whose finalizer closes it: not one of ours."""

    def __init__(self, running: DeferredSettlement) -> None:
        self.running = running
        self.itself = self

    def __del__(self) -> None:
        self.running.end(FAILED)


class World:
    """A bulkhead, a breaker and a budget, and a stream that holds a permit of each."""

    def __init__(self) -> None:
        self.bulkhead = Bulkhead(3, queue=3)
        self.breaker = CircuitBreaker(consecutive_failures=100)
        self.budget = RetryBudget(initial=5)
        streaming = Streaming()
        gates = (Retry(budget=self.budget), self.bulkhead, self.breaker, streaming)
        self.pipeline: Pipeline[Any] = Pipeline(*gates)
        self.pipeline.call(str)
        self.running = streaming.left.pop()
        self.streams = [Stream(self.running)]
        streaming.left.clear()
        self.call = Call.make(self.pipeline.entry()[1], str, (), {})
        self.breaker.admit(self.call)

    def drop(self) -> None:
        """Drop the stream, and have the collector find it."""
        self.streams.clear()
        gc.collect(0)


def at_instruction(number: int, act: Callable[[], object], work: Callable[[], object]) -> bool:
    """Do the work, and `act` at this instruction of all those with the state locked; return whether there was one."""
    seen = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal seen
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and inside_state():
            seen += 1
            if seen == number:
                act()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return seen >= number


def wait_and_leave(world: World) -> None:
    tokens = [world.bulkhead.admit(world.call) for _ in range(3)]
    for token in tokens:
        if isinstance(token, resilience.Ticket):  # unless the stream has given its permit back
            token.add_waker(print)
            token.leave()
        else:
            world.bulkhead.settle(token, FAILED)


def be_granted(world: World) -> None:
    tickets: list[Any] = [world.bulkhead.admit(world.call) for _ in range(3)]
    world.bulkhead.settle(tickets[0], FAILED)
    for ticket in tickets[1:]:
        assert not isinstance(ticket, resilience.Ticket) or ticket.acquire()
        world.bulkhead.settle(ticket, FAILED)


def change_the_bulkhead(world: World) -> None:
    world.bulkhead.update(limit=2)
    world.bulkhead.snapshot()
    world.bulkhead.reset()
    world.bulkhead.update(limit=3)
    assert world.bulkhead.in_flight >= 0


def fail(world: World) -> None:
    world.breaker.settle(world.breaker.admit(world.call), FAILED)


def trip_probe_and_close(world: World) -> None:
    world.breaker.update(consecutive_failures=1, open_for=1e-9)
    fail(world)
    while world.breaker.state is not resilience.BreakerState.CLOSED:
        token = world.breaker.admit(world.call)
        world.breaker.settle(token, resilience.Ending(resilience.EndingKind.OK))


def force(world: World) -> None:
    world.breaker.update(window=5.0)
    world.breaker.isolate()
    world.breaker.snapshot()
    world.breaker.close()
    world.breaker.reset()


def spend(world: World) -> None:
    assert world.budget.withdraw()
    world.budget.refund()
    world.budget.failed()
    assert world.budget.affordable
    assert world.budget.tokens >= 5
    world.budget.reset()


def subscribe_and_recompose(world: World) -> None:
    with world.pipeline.subscribe(lambda event: None, events=[BreakerChanged]):
        world.pipeline.mode = "shadow"
        world.pipeline.mode = "enforce"


REGIONS = [
    wait_and_leave,
    be_granted,
    change_the_bulkhead,
    fail,
    trip_probe_and_close,
    force,
    spend,
    subscribe_and_recompose,
]


@pytest.mark.parametrize("work", REGIONS)
def test_a_stream_that_is_collected_in_a_locked_region_is_settled_after_it(work: Callable[[World], None]) -> None:
    number = 0
    found = True
    while found:
        number += 1
        gc.disable()  # so that the stream is still of the youngest generation
        world = World()
        settled: list[bool] = []
        world.running.add(lambda _, settled=settled: settled.append(holds_any_lock()))  # type: ignore[misc]
        try:
            found = at_instruction(number, world.drop, lambda world=world: work(world))  # type: ignore[misc]
        finally:
            gc.enable()
        if found:
            # An update holds the lock of updates as well; then another thread settles.
            wait_until(lambda settled=settled: bool(settled) and not pending)  # type: ignore[misc]
            assert settled == [False], f"instruction {number} of {work.__name__}"
        world.drop()
        wait_until(lambda world=world: world.bulkhead.in_flight == 0)  # type: ignore[misc]
        assert (world.bulkhead.in_flight, world.bulkhead.queued) == (0, 0), f"instruction {number}"
        assert [world.bulkhead.admit(world.call) for _ in range(3)] == [[], [], []]
    assert number > 10


def test_no_listener_is_called_in_a_locked_region() -> None:
    heard: list[bool] = []
    number = 0
    found = True
    while found:
        number += 1
        world = World()
        with world.pipeline.subscribe(lambda _: heard.append(inside_state()), events=[CallEnded, BreakerChanged]):
            world.breaker.update(consecutive_failures=1)
            found = at_instruction(number, world.drop, lambda world=world: spend(world))  # type: ignore[misc]
            world.drop()
    assert number > 10
    assert set(heard) == {False}
