"""`update` and `reset` of every policy while calls run: all or none, the state kept, calls in flight not disturbed."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import anyio
import anyio.lowlevel
import pytest
import tenacity

from resilience import (
    AdaptiveLimit,
    Bulkhead,
    Chaos,
    CircuitBreaker,
    Cooldown,
    DeadlineExceededError,
    Fallback,
    Hedge,
    Partition,
    Pipeline,
    Policy,
    RateLimit,
    RejectedError,
    Retry,
    RetryBudget,
    StaleCache,
    Timeout,
    backoff,
    current_deadline,
    quantile,
)
from resilience.events import RetryGivenUp, RetryScheduled
from resilience.testing import Recorder, VirtualClock, virtual_time
from tests.support.functions import Failing, down
from tests.support.overload import Overloaded, busy, overloaded
from tests.support.threads import together, wait_until

pytestmark = pytest.mark.filterwarnings("ignore::resilience.ResilienceWarning")

BUDGET = RetryBudget(1.0, 1e6)


class Case(NamedTuple):
    """A policy, and changes of it.

    Attributes:
        make: makes it.
        one: settings.
        other: other settings.
        wrong: settings of which the last one is wrong.
    """

    make: Callable[[], Policy[Any]]
    one: dict[str, Any]
    other: dict[str, Any]
    wrong: dict[str, Any]


def changeable(policy: Any) -> Policy[Any]:
    """Return what has the settings: the first limit of several, else the policy."""
    limits: tuple[RateLimit, ...] | None = getattr(policy, "limits", None)
    return policy if limits is None else limits[0]


def good() -> Any:
    """Be another factory."""
    return "good"


CASES = {
    "timeout": Case(
        lambda: Timeout(9), {"seconds": 5, "share": 0.5}, {"seconds": None, "share": 0.1}, {"seconds": 1, "share": 2}
    ),
    "retry": Case(
        lambda: Retry(wait=backoff.none()),
        {"attempts": 2, "wait": backoff.none(), "on": None, "budget": BUDGET},
        {"attempts": 5, "wait": tenacity.wait_fixed(0), "on": ConnectionError, "budget": None},
        {"attempts": 7, "nested": 3},
    ),
    "bulkhead": Case(
        lambda: Bulkhead(3),
        {"limit": 4, "queue": 0},
        {"limit": 2, "queue": 20, "max_wait": 9},
        {"limit": 9, "queue": -1},
    ),
    "adaptive limit": Case(
        lambda: AdaptiveLimit(3),
        {"max_limit": 4, "initial": 3, "queue": 0},
        {"max_limit": 9, "min_limit": 2, "initial": 8, "queue": 20},
        {"queue": 7, "max_limit": 2},
    ),
    "breaker": Case(
        CircuitBreaker,
        {"window": 5.0, "consecutive_failures": None, "failure_rate": 1.0, "on": ConnectionError},
        {"window_calls": 7, "slow_after": 1.0, "open_for": 0.001, "max_open_for": 0.001},
        {"window": 3.0, "min_calls": 0},
    ),
    "rate limit": Case(
        lambda: RateLimit(1e6, burst=100),
        {"rate": 1e5, "burst": 50},
        {"rate": 1e6, "per": 2.0, "burst": 200, "cost": 2.0},
        {"rate": 5, "burst": 0},
    ),
    "all_of": Case(
        lambda: RateLimit.all_of(RateLimit(1e6, burst=100), RateLimit(1e6, burst=100)),
        {"rate": 1e5, "burst": 50},
        {"rate": 1e6, "per": 2.0, "burst": 200, "cost": 2.0},
        {"rate": 5, "burst": 0},
    ),
    "cooldown": Case(
        Cooldown, {"spread": 0.0, "longest": 1.0}, {"spread": 1.0, "max_wait": 0.5}, {"longest": 3, "spread": 2}
    ),
    "partition": Case(
        lambda: Partition(lambda: Bulkhead(3), by=lambda call: call.operation),
        {"max_keys": 1, "idle": 1.0},
        {"max_keys": 9, "idle": 9.0, "by": "target"},
        {"max_keys": 7, "idle": 0},
    ),
    "hedge": Case(
        lambda: Hedge(60.0),
        {"after": 60.0, "max_hedges": 2, "budget": None},
        {"after": quantile(0.5), "max_hedges": 1, "budget": BUDGET},
        {"after": 3.0, "max_hedges": 0},
    ),
    "fallback": Case(
        lambda: Fallback(value=1), {"value": 2}, {"value": 3, "on": ConnectionError}, {"value": 4, "compute": good}
    ),
    "stale cache": Case(
        StaleCache,
        {"max_age": 5.0, "max_entries": 9},
        {"max_age": 9.0, "max_entries": 2},
        {"max_age": 3.0, "max_entries": 0},
    ),
    "chaos": Case(
        lambda: Chaos(0.5, error=ConnectionError, enabled=True),
        {"rate": 0.1, "error": ConnectionError("one")},
        {"rate": 0.9, "error": KeyError, "seed": 7},
        {"rate": 0.2, "error": int},
    ),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@each_case
def test_an_update_with_a_wrong_value_changes_nothing(case: Case) -> None:
    policy = changeable(case.make())
    policy.update(**case.one)
    before, settings = policy.describe(), policy.settings
    del before["mode"]

    for wrong in (case.wrong, {**case.other, "speed": 1}, {**case.other, "mode": "loud"}):
        with pytest.raises((TypeError, ValueError)):
            policy.update(**{"mode": "shadow", **wrong})
        assert policy.settings is settings
        assert policy.describe() == {**before, "mode": "enforce"}


# The state is kept.


def used(policy: Policy[Any], *functions: Callable[[], Any]) -> Policy[Any]:
    """Return a policy through which functions were called."""
    pipeline = Pipeline(policy, failures=busy)
    for function in functions:
        with suppress(Exception):
            pipeline.call(function)
    return policy


def learned(hedge: Hedge) -> Hedge:
    """Return a Hedge that knows how long calls take."""
    pipeline = Pipeline(hedge, budget=None).bind(idempotent=True)
    for _ in range(120):
        pipeline.call(str)
    return hedge


STATES: dict[str, tuple[Callable[[], Policy[Any]], dict[str, Any]]] = {
    "retry": (lambda: used(Retry(2, wait=backoff.none(), budget=RetryBudget(0.5, 5)), down), {"attempts": 9}),
    "bulkhead": (lambda: used(Bulkhead(3), str), {"queue": 5}),
    "adaptive limit": (lambda: used(AdaptiveLimit(10), overloaded), {"max_limit": 50}),
    "closed breaker": (lambda: used(CircuitBreaker(), str, down, str), {"failure_rate": 0.3, "open_for": 9.0}),
    "open breaker": (lambda: used(CircuitBreaker(1.0, 1), down), {"open_for": 90.0, "window": 5.0}),
    "rate limit": (lambda: used(RateLimit(1, burst=5), *[str] * 9), {"max_wait": 3.0}),
    "cooldown": (lambda: used(Cooldown(), overloaded), {"longest": 1.0, "spread": 1.0}),
    "partition": (lambda: used(Partition(lambda: CircuitBreaker(1.0, 1)), down), {"max_keys": 7, "idle": 60.0}),
    "hedge": (lambda: learned(Hedge(quantile(0.5))), {"max_hedges": 3}),
    "stale cache": (lambda: used(StaleCache(), str, int), {"max_age": 9.0, "max_entries": 5}),
}
each_state = pytest.mark.parametrize(("make", "settings"), STATES.values(), ids=STATES)


@pytest.mark.usefixtures("virtual_clock")
@each_state
def test_an_update_keeps_the_state(make: Callable[[], Policy[Any]], settings: dict[str, Any]) -> None:
    policy = make()
    before: dict[str, Any] = policy.snapshot()
    assert before
    for name in settings:
        before.pop(name, None)

    policy.update(**settings)

    after = policy.snapshot()
    assert {name: after[name] for name in before} == before


@pytest.mark.usefixtures("virtual_clock")
@each_state
def test_a_reset_makes_it_as_new(make: Callable[[], Policy[Any]], settings: dict[str, Any]) -> None:
    del settings
    policy = make()
    state = policy.snapshot()
    described = policy.describe()

    policy.reset()

    assert policy.describe() == described
    fresh = policy.snapshot()
    assert fresh != state
    policy.reset()
    assert policy.snapshot() == fresh


# A call in flight ends under the rules that it began with; the next one has the new ones.


class Change(NamedTuple):
    """A policy, an update of it under a call, and how that call and the next one end, after how many seconds."""

    make: Callable[[], Policy[Any]]
    settings: dict[str, Any]
    first: tuple[str, float]
    second: tuple[str, float]
    calls: Callable[[], Callable[[], Any]] = lambda: partial(anyio.sleep, 3)
    holder: float | None = None


def answers_in(seconds: float) -> Callable[[], Any]:
    """Return a function that fails after so many seconds, and then again and again."""

    async def work() -> None:
        await anyio.sleep(seconds)
        raise ConnectionError

    return work


def slow_then_fast() -> Callable[[], Any]:
    """Return a function whose first attempts take long, and whose fourth is fast."""
    numbers = itertools.count(1)

    async def work() -> None:
        await anyio.sleep(9 if next(numbers) % 4 else 0.25)

    return work


IN_FLIGHT = {
    "timeout": Change(lambda: Timeout(5), {"seconds": 1}, ("None", 3.0), ("DeadlineExceededError", 1.0)),
    "timeout of attempts": Change(
        lambda: Pipeline(Retry(2, wait=backoff.none()), Timeout(5, name="attempt")),
        {"seconds": 1},
        ("ConnectionError", 6.0),
        ("DeadlineExceededError", 2.0),
        lambda: answers_in(3),
    ),
    "retry": Change(
        lambda: Retry(3, wait=backoff.fixed(1)),
        {"attempts": 1},
        ("ConnectionError", 8.0),
        ("ConnectionError", 2.0),
        lambda: answers_in(2),
    ),
    "wait of a retry": Change(
        lambda: Retry(3, wait=backoff.fixed(1)),
        {"wait": tenacity.wait_fixed(5)},
        ("ConnectionError", 8.0),
        ("ConnectionError", 16.0),
        lambda: answers_in(2),
    ),
    "bulkhead": Change(
        lambda: Bulkhead(1, queue=5, max_wait=9),
        {"max_wait": 1, "queue": 1},
        ("None", 7.0),
        ("BulkheadFullError", 1.0),
        holder=4.0,
    ),
    "adaptive limit": Change(
        lambda: AdaptiveLimit(1, max_limit=1, queue=5, max_wait=9),
        {"max_wait": 1, "queue": 1},
        ("None", 7.0),
        ("BulkheadFullError", 1.0),
        holder=4.0,
    ),
    "rate limit": Change(
        lambda: RateLimit(1, per=4, max_wait=9), {"max_wait": 1}, ("None", 7.0), ("RateLimitedError", 0.0), holder=0.0
    ),
    "cooldown": Change(
        lambda: Cooldown(spread=0.0), {"max_wait": 1}, ("None", 8.0), ("RateLimitedError", 0.0), holder=-1.0
    ),
    "hedge": Change(
        lambda: Hedge(2.0, max_hedges=1, budget=None),
        {"after": 0.5, "max_hedges": 3},
        ("None", 9.0),
        ("None", 1.75),
        slow_then_fast,
    ),
    "chaos": Change(
        lambda: Chaos(1.0, latency=5.0, enabled=True), {"latency": 2.0, "result": 7}, ("None", 8.0), ("7", 2.0)
    ),
}


@pytest.mark.parametrize("change", IN_FLIGHT.values(), ids=IN_FLIGHT)
def test_a_call_in_flight_ends_under_the_rules_that_it_began_with(change: Change) -> None:
    policy = change.make()
    pipeline: Pipeline[Any] = Pipeline(policy, failures=busy, budget=None)
    changed: Any = policy["attempt"] if isinstance(policy, Pipeline) else policy
    ended: list[tuple[str, float]] = []
    work = change.calls()

    async def call(function: Callable[[], Any]) -> None:
        began = anyio.current_time()
        try:
            outcome = str(await pipeline.bind(idempotent=True).acall(function))
        except Exception as error:
            outcome = type(error).__name__
        ended.append((outcome, round(anyio.current_time() - began, 2)))

    async def hold() -> None:
        if change.holder is not None:
            work = overloaded if change.holder < 0 else partial(anyio.sleep, change.holder)
            with suppress(Overloaded):
                await pipeline.acall(work)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(hold)
            await anyio.lowlevel.checkpoint()
            group.start_soon(call, work)
            await anyio.sleep(1)
            changed.update(**change.settings)
        async with anyio.create_task_group() as group:
            group.start_soon(hold)
            await anyio.lowlevel.checkpoint()
            await call(change.calls())

    with virtual_time():
        asyncio.run(main())

    assert ended == [change.first, change.second]


def test_plain_calls_and_blocks_are_retried_by_the_rules_that_they_began_with(virtual_clock: VirtualClock) -> None:
    retry = Retry(3, wait=backoff.fixed(1), budget=None)
    pipeline = Pipeline(retry)
    attempts: list[int] = []

    def work() -> None:
        attempts.append(1)
        retry.update(attempts=1, on=KeyError)
        raise ConnectionError

    def plainly() -> None:
        pipeline.call(work)

    for run in (plainly, partial(in_a_block, retry, work)):
        retry.update(attempts=3, on=None)
        attempts.clear()
        with Recorder(events=[RetryScheduled, RetryGivenUp]) as recorder, pytest.raises(ConnectionError):
            run()
        assert len(attempts) == 3
        assert [event.max_attempts for event in recorder.of(RetryScheduled)] == [3, 3]
        assert [event.reason for event in recorder.of(RetryGivenUp)] == ["attempts"]
    attempts.clear()
    with pytest.raises(ConnectionError):
        pipeline.call(work)
    assert len(attempts) == 1


def in_a_block(retry: Retry, work: Callable[[], None]) -> None:
    """Call a function in a block that is retried."""
    for attempt in retry:
        with attempt:
            work()


def test_a_call_pays_and_is_paid_by_the_budget_that_it_began_with(virtual_clock: VirtualClock) -> None:
    old, new = RetryBudget(1.0, 10, initial=5), RetryBudget(1.0, 10, initial=5)
    retry = Retry(3, wait=backoff.none(), budget=old)
    failing = Failing(1)

    def work() -> str:
        retry.update(budget=new)
        return failing()

    assert Pipeline(retry).call(work) == "fine"
    assert (old.tokens, new.tokens) == (5, 5)
    assert old.withdraw()
    assert (old.tokens, new.tokens) == (4, 5)


# All or none: whoever decides meanwhile sees the old settings or the new ones.


def chosen(policy: Any, observe: Callable[[Any], object], one: dict[str, Any], other: dict[str, Any]) -> set[object]:
    """Return what threads see of a policy while it is updated to and fro."""
    over = threading.Event()
    seen: set[object] = set()

    def look() -> None:
        while not over.is_set():
            seen.add(observe(policy))

    def update() -> None:
        try:
            for _ in range(1500):
                policy.update(**other)
                policy.update(**one)
        finally:
            over.set()

    policy.update(**one)
    assert together(look, look, look, update) == []
    return seen


@pytest.mark.slow
@pytest.mark.usefixtures("frequent_switches")
class TestAtomic:
    def test_the_deadline_of_a_timeout(self) -> None:
        with virtual_time() as clock:
            until = clock.monotonic() + 100
            call: Any = SimpleNamespace(deadline=until)
            one, other = {"seconds": None, "share": 0.5}, {"seconds": 30.0, "share": None}
            seen = chosen(
                Timeout(1), lambda timeout: round(timeout.deadline(call, until - 100) - until + 100, 3), one, other
            )

        assert seen <= {50.0, 30.0}

    def test_the_budget_of_a_retry(self) -> None:
        info: Any = SimpleNamespace(budget=RetryBudget())
        own = RetryBudget()
        seen = chosen(
            Retry(), lambda retry: retry.on_success(info), {"budget": own, "nested": True}, {"budget": info.budget}
        )

        assert seen <= {own.deposit, info.budget.deposit}


def test_a_fault_is_that_of_one_set_of_settings() -> None:
    chaos = Chaos(1.0, error=KeyError, enabled=True)

    def rate(call: object) -> float:
        chaos.update(error=None, result=7, rate=1.0)
        return 1.0

    chaos.update(rate=rate)
    pipeline = Pipeline(chaos)

    with pytest.raises(KeyError):
        pipeline.call(str)
    assert pipeline.call(str) == 7  # type: ignore[comparison-overlap]


def is_bounded() -> bool:
    """Return whether there is a deadline."""
    return current_deadline() is not None


class Changing(Timeout):
    """Is updated while a chain is composed of it, right after it was asked for its seconds."""

    armed = False

    @property
    def seconds(self) -> float | None:
        seconds = super().seconds
        if self.armed:
            self.armed = False
            self.update(seconds=None, share=0.5)
        return seconds


def test_a_call_for_which_a_chain_is_composed_during_an_update_has_a_deadline() -> None:
    timeout = Changing(1)
    pipeline: Pipeline[Any] = Pipeline(timeout, Retry())
    timeout.armed = True

    assert pipeline.call(is_bounded)
    assert not pipeline.call(is_bounded)  # there is nothing of which it could be a share


@pytest.mark.parametrize("make", [Retry, Hedge])
def test_a_policy_may_have_a_budget_for_each_key_and_resets_it(make: Callable[..., Policy[Any]]) -> None:
    budgets = Partition(lambda: RetryBudget(capacity=3))
    policy = make(budget=budgets)
    budgets.of("a").withdraw()

    policy.reset()

    assert budgets.of("a").tokens == 3


# Under load.


@pytest.mark.slow
@pytest.mark.usefixtures("frequent_switches")
@each_case
def test_updates_and_resets_under_threads_and_a_loop(case: Case) -> None:
    policy: Any = case.make()
    pipeline: Pipeline[Any] = Pipeline(policy, failures=busy, budget=None)
    guarded = pipeline.bind(idempotent=True)
    over = threading.Event()
    expected = (RejectedError, DeadlineExceededError, ConnectionError, Overloaded, KeyError)
    ended = itertools.count()

    def work(number: int) -> int:
        return number if number % 4 else down()

    async def work_async(number: int) -> int:
        await anyio.lowlevel.checkpoint()
        return work(number)

    def calls() -> None:
        for number in range(150):
            with suppress(*expected):
                guarded.call(work, number)
            next(ended)

    async def in_a_loop() -> None:
        async def one(number: int) -> None:
            with suppress(*expected), anyio.move_on_after(0.0 if number % 7 == 0 else 60.0):
                await guarded.acall(work_async, number)
            next(ended)

        async with anyio.create_task_group() as group:
            for number in range(200):
                group.start_soon(one, number)

    def change() -> None:
        for number in itertools.count():
            changeable(policy).update(**(case.one, case.other)[number % 2])
            with suppress(TypeError, ValueError):
                changeable(policy).update(**case.wrong)
            if number % 5 == 0:
                policy.reset()
            if over.wait(0.0005):
                return

    changer = threading.Thread(target=change, daemon=True)
    changer.start()
    try:
        errors = together(*[calls] * 8, lambda: asyncio.run(in_a_loop()))
    finally:
        over.set()
        changer.join()

    assert errors == []
    assert next(ended) == 8 * 150 + 200
    one: Any = policy.overflow if isinstance(policy, Partition) else policy
    held = [getattr(one, name) for name in ("in_flight", "queued") if hasattr(one, name)]
    wait_until(lambda: pipeline.snapshot()["in_flight"] == 0)
    assert not any(held)
    changeable(policy).update(**case.one)
    policy.reset()
    assert isinstance(guarded.call(str) if not isinstance(policy, Chaos) else "", str)
