"""Modes that change while calls run: a call ends in the mode in which it began, and what it took comes back once."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from resilience import (
    AdaptiveLimit,
    Bulkhead,
    Chaos,
    CircuitBreaker,
    Cooldown,
    Fallback,
    Hedge,
    Mode,
    Partition,
    Pipeline,
    Policy,
    RateLimit,
    Retry,
    StaleCache,
    Timeout,
    backoff,
    set_mode,
)
from resilience._outcome.ending import OK
from resilience.events import RetryScheduled
from resilience.testing import Recorder, VirtualClock, virtual_time
from tests.support.functions import Failing, down
from tests.support.interpreter import run_python
from tests.support.overload import Overloaded, busy, overloaded
from tests.support.policies import Streaming
from tests.support.threads import together, wait_until

pytestmark = pytest.mark.filterwarnings("ignore::resilience.ResilienceWarning")


MODES = tuple(Mode)
GATES: dict[str, Callable[[], Policy[Any]]] = {
    "bulkhead": lambda: Bulkhead(1, queue=5, max_wait=60),
    "adaptive limit": lambda: AdaptiveLimit(1, max_limit=1, queue=5, max_wait=60),
    "partition": lambda: Partition(lambda: Bulkhead(1, queue=5, max_wait=60)),
}
each_gate = pytest.mark.parametrize("make", GATES.values(), ids=GATES)


def held(gate: Any) -> tuple[int, int]:
    """Return how many permits of a gate are in use, and how many calls wait."""
    one: Any = gate.of(None) if isinstance(gate, Partition) else gate
    return one.in_flight, one.queued


@each_gate
@pytest.mark.parametrize("before", MODES)
@pytest.mark.parametrize("during", MODES)
def test_a_permit_comes_back_once_whatever_the_mode_is_meanwhile(
    make: Callable[[], Policy[Any]], before: Mode, during: Mode
) -> None:
    gate = make()
    pipeline: Pipeline[Any] = Pipeline(gate)
    taken: list[tuple[int, int]] = []

    def work(mode: Mode) -> None:
        taken.append(held(gate))
        gate.mode = mode
        if mode is not Mode.ENFORCE:
            pipeline.call(lambda: taken.append(held(gate)))

    for awaited in (False, True):
        gate.mode = before
        if awaited:
            asyncio.run(pipeline.acall(work, during))
        else:
            pipeline.call(work, during)
        assert held(gate) == (0, 0)
    assert taken[0] == (0 if before is Mode.OFF else 1, 0)
    gate.mode = "enforce"
    assert [pipeline.call(held, gate) for _ in range(3)] == [(1, 0)] * 3


@each_gate
@pytest.mark.parametrize("during", [Mode.SHADOW, Mode.OFF])
def test_who_waits_goes_on_waiting_and_who_comes_is_let_through(make: Callable[[], Policy[Any]], during: Mode) -> None:
    gate = make()
    pipeline: Pipeline[Any] = Pipeline(gate)
    ended: list[str] = []

    async def call(name: str, seconds: float) -> None:
        await pipeline.acall(anyio.sleep, seconds)
        ended.append(name)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(call, "first", 10.0)
            await anyio.sleep(1)
            group.start_soon(call, "waits", 1.0)
            await anyio.sleep(1)
            assert held(gate) == (1, 1)
            gate.mode = during
            await call("comes", 1.0)
            assert held(gate) == (1, 1)
            gate.mode = "enforce"
            group.start_soon(call, "waits behind", 0.0)
            await anyio.sleep(1)
            assert held(gate) == (1, 2)

    with virtual_time():
        asyncio.run(main())

    assert ended == ["comes", "first", "waits", "waits behind"]
    assert held(gate) == (0, 0)


TIMED: dict[str, Callable[[], Policy[Any]]] = {
    "rate limit": lambda: RateLimit(1, max_wait=60),
    "all_of": lambda: RateLimit.all_of(RateLimit(1, max_wait=60), RateLimit(50, max_wait=60)),
    "partition": lambda: Partition(lambda: RateLimit(1, max_wait=60)),
    "cooldown": lambda: Cooldown(spread=0.0),
}


@pytest.mark.parametrize("make", TIMED.values(), ids=TIMED)
@pytest.mark.parametrize("during", [Mode.SHADOW, Mode.OFF])
def test_who_waits_for_a_time_waits_for_it_in_every_mode(make: Callable[[], Policy[Any]], during: Mode) -> None:
    gate: Any = make()
    pipeline: Pipeline[Any] = Pipeline(gate, failures=busy)
    ended: list[tuple[str, float]] = []

    async def main() -> None:
        began = anyio.current_time()

        async def call(name: str) -> None:
            await pipeline.acall(anyio.sleep, 0)
            ended.append((name, round(anyio.current_time() - began, 2)))

        with suppress(Overloaded):
            await pipeline.acall(overloaded)
        async with anyio.create_task_group() as group:
            group.start_soon(call, "waits")
            await anyio.sleep(0.5)
            gate.mode = during
            await call("comes")

    with virtual_time():
        asyncio.run(main())

    assert ended == [("comes", 0.5), ("waits", 5.0 if isinstance(gate, Cooldown) else 1.0)]
    assert (gate.of(None) if isinstance(gate, Partition) else gate).queued == 0


@pytest.mark.parametrize("before", MODES)
@pytest.mark.parametrize("during", MODES)
def test_a_stream_holds_what_it_took_until_it_ends_whatever_the_mode_is(before: Mode, during: Mode) -> None:
    bulkhead, breaker, streaming = Bulkhead(2), CircuitBreaker(), Streaming()
    pipeline = Pipeline(bulkhead, breaker, streaming)
    for gate in (bulkhead, breaker):
        gate.mode = before

    pipeline.call(str)
    for gate in (bulkhead, breaker):
        gate.mode = during
    taken = 0 if before is Mode.OFF else 1
    assert (bulkhead.in_flight, breaker.snapshot()["calls"]) == (taken, 0)
    for _ in range(2):
        streaming.left[0].end(OK)

    assert (bulkhead.in_flight, breaker.snapshot()["calls"]) == (0, taken)


@pytest.mark.parametrize("after", MODES)
@pytest.mark.parametrize(("function", "state"), [(str, "closed"), (down, "open"), (int, "half_open")])
def test_a_probe_decides_although_the_mode_changes_under_it(
    virtual_clock: VirtualClock, after: Mode, function: Callable[..., Any], state: str
) -> None:
    breaker = CircuitBreaker(consecutive_failures=1, min_calls=1, open_for=1)
    pipeline = Pipeline(breaker)

    def probe() -> None:
        breaker.mode = after
        if after is not Mode.ENFORCE:
            pipeline.call(str)  # in shadow, enforce would refuse it: the place is taken
        assert breaker.state == "half_open"
        function("no number") if function is int else function()

    with suppress(ConnectionError):
        pipeline.call(down)
    virtual_clock.advance(2)
    with suppress(ConnectionError, ValueError):
        pipeline.call(probe)

    assert breaker.state == state
    if state == "half_open":  # a neutral probe has given its place back
        breaker.mode = "enforce"
        pipeline.call(str)
        assert breaker.state == "closed"


def test_a_limit_that_joins_all_of_under_a_call_is_not_settled_for_it() -> None:
    requests, tokens = RateLimit(100, burst=100), RateLimit(1000, burst=1000, cost=10, actual=lambda result: 500)
    both = RateLimit.all_of(requests, tokens)
    pipeline = Pipeline(both)
    tokens.mode = "off"

    with virtual_time():
        pipeline.call(lambda: setattr(tokens, "mode", "enforce"))
        assert (requests.available, tokens.available) == (99, 1000)
        pipeline.call(lambda: setattr(tokens, "mode", "off"))
        assert (requests.available, tokens.available) == (98, 990)


@pytest.mark.usefixtures("process_mode")
@pytest.mark.parametrize("outer", MODES)
@pytest.mark.parametrize("inner", MODES)
@pytest.mark.parametrize("process", MODES)
def test_of_nested_modes_the_weakest_counts(outer: Mode, inner: Mode, process: Mode) -> None:
    retry = Retry(wait=backoff.none())
    pipeline = Pipeline(Pipeline(retry, mode=inner), mode=outer)
    weakest = max(outer, inner, process, key=MODES.index)
    set_mode(process)
    failing = Failing(1)
    with Recorder(events=[RetryScheduled]) as recorder, suppress(ConnectionError):
        pipeline.call(failing)

    assert failing.calls == (2 if weakest is Mode.ENFORCE else 1)
    assert [event.mode for event in recorder.of(RetryScheduled)] == ([] if weakest is Mode.OFF else [weakest])


class Everything:
    """Every policy, and what is held of them."""

    def __init__(self) -> None:
        self.bulkhead, self.adaptive = Bulkhead(20, queue=40, max_wait=5), AdaptiveLimit(20, queue=40, max_wait=5)
        self.rate, self.cooldown = RateLimit(1e6, burst=1000), Cooldown()
        self.both = RateLimit.all_of(RateLimit(1e6, burst=1000), RateLimit(1e6, burst=1000))
        self.by_key = Partition(lambda: Bulkhead(20, queue=40, max_wait=5), by=lambda call: call.args[0] % 3)
        self.breaker = CircuitBreaker(open_for=0.001, max_open_for=0.001, failure_rate=0.9)
        self.inner: Pipeline[Any] = Pipeline(self.rate, self.both, self.adaptive, self.by_key, self.breaker)
        self.pipeline: Pipeline[Any] = Pipeline(
            Fallback(value="instead"),
            StaleCache(key=lambda call: call.args[0] % 7),
            Timeout(5),
            Retry(3, wait=backoff.none(), budget=None),
            Hedge(0.005, budget=None),
            self.cooldown,
            self.bulkhead,
            self.inner,
            Timeout(2),
            Chaos(0.05, error=ConnectionError, enabled=True),
        )
        self.running: list[None] = []

    def work(self, number: int) -> int:
        self.running.append(None)
        try:
            return number if number % 5 else down()
        finally:
            self.running.pop()

    async def work_async(self, number: int) -> int:
        await anyio.lowlevel.checkpoint()
        return self.work(number)

    def policies(self) -> list[Policy[Any]]:
        """Return what has a mode."""
        return [*self.pipeline.policies, *self.inner.policies, self.pipeline]

    def left(self) -> list[int]:
        """Return what is held; all zero once no call runs."""
        bulkheads: list[Any] = [self.bulkhead, self.adaptive, *self.by_key.policies()]
        queues: list[Any] = [*bulkheads, self.rate, self.both, self.cooldown]
        calls = [one.snapshot()["in_flight"] for one in (self.pipeline, self.inner)]
        return [one.in_flight for one in bulkheads] + [one.queued for one in queues] + calls + [len(self.running)]


@pytest.mark.slow
@pytest.mark.usefixtures("frequent_switches", "process_mode")
def test_all_modes_change_under_threads_and_a_loop_and_nothing_leaks() -> None:
    everything, chance = Everything(), random.Random(7)
    ended, over = itertools.count(), threading.Event()

    def switch() -> None:
        policies = everything.policies()
        while not over.is_set():
            chance.choice(policies).mode = chance.choice(MODES)
            if chance.random() < 0.1:
                set_mode(chance.choice(MODES))
            over.wait(0.001)

    def calls(index: int) -> None:
        guarded = everything.pipeline.bind(idempotent=True)
        for number in range(100):
            with suppress(Exception):
                guarded.call(everything.work, index + number)
            next(ended)

    async def in_a_loop() -> None:
        guarded = everything.pipeline.bind(idempotent=True)

        async def one(number: int) -> None:
            with suppress(Exception), anyio.move_on_after(chance.choice([0.0, 0.001, 60.0])):
                await guarded.acall(everything.work_async, number)
            next(ended)

        async with anyio.create_task_group() as group:
            for number in range(200):
                group.start_soon(one, number)

    switcher = threading.Thread(target=switch, daemon=True)
    switcher.start()
    try:
        errors = together(*[partial(calls, index) for index in range(8)], partial(asyncio.run, in_a_loop()))
    finally:
        over.set()
        switcher.join()

    assert errors == []
    assert next(ended) == 8 * 100 + 200
    wait_until(lambda: not any(everything.left()))  # threads that have lost a race end after their calls


@pytest.mark.slow
@pytest.mark.parametrize(
    ("value", "mode", "told"),
    [
        ("off", "off", ""),
        ("enforce", "enforce", ""),
        ("", "enforce", ""),
        ("OFF", "enforce", "RESILIENCE_MODE is ignored"),
        (" off ", "enforce", "RESILIENCE_MODE is ignored"),
        ("0", "enforce", "RESILIENCE_MODE is ignored"),
    ],
)
def test_the_environment_has_one_of_three_values_or_is_ignored(value: str, mode: str, told: str) -> None:
    code = """
from resilience import Pipeline, Retry, backoff, set_mode
calls = []
def fail():
    calls.append(1)
    raise ConnectionError
def attempts():
    calls.clear()
    try:
        Pipeline(Retry(2, wait=backoff.none())).call(fail)
    except ConnectionError:
        return len(calls)
before = attempts()
set_mode("enforce")
print("enforce" if before == 2 else "off", attempts())
"""
    lines = run_python(code, RESILIENCE_MODE=value)

    assert lines.startswith(f"{mode} 2")
    assert told in lines
    assert ("Warning" in lines) is bool(told)
