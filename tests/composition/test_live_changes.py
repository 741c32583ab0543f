"""`update` and `reset` of every policy while calls run: all or none, the state kept, calls in flight not disturbed."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable
from contextlib import suppress
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
from resilience.testing import virtual_time
from tests.support.functions import down
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
