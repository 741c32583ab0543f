"""The three modes of every policy: shadow reports and lets through; off is as if the policy were not there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import anyio
import pytest

from resilience import (
    AdaptiveLimit,
    Allowlist,
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
    RejectedError,
    Retry,
    RetryBudget,
    StaleCache,
    Timeout,
    backoff,
    deadline_after,
    set_mode,
)
from resilience.events import (
    BreakerChanged,
    CallEnded,
    CooldownStarted,
    Event,
    FallbackUsed,
    FaultInjected,
    HedgeEnded,
    HedgeResult,
    HedgeStarted,
    Queued,
    Rejected,
    RetryScheduled,
    TimedOut,
    TimeoutScope,
)
from resilience.testing import Recorder, VirtualClock, virtual_time
from tests.support.functions import Failing, down
from tests.support.overload import Overloaded, busy, overloaded

# Policies are combined that make no sense together, and pipelines of one name may still be alive.
pytestmark = pytest.mark.filterwarnings("ignore::resilience.ResilienceWarning")

LONG = 1e6


# What each policy does: scripts that return what the caller sees.


def within(pipeline: Pipeline[Any]) -> object:
    """Make a call inside a call."""
    return pipeline.call(lambda: pipeline.call(str, "inner"))


def beside(pipeline: Pipeline[Any]) -> object:
    """Make a call while another one is in flight, and let that one end if this one waits."""

    ended: list[float] = []

    async def call(seconds: float) -> None:
        await pipeline.acall(anyio.sleep, seconds)
        ended.append(round(anyio.current_time(), 3))

    async def main() -> list[float]:
        began = round(anyio.current_time(), 3)
        async with anyio.create_task_group() as group:
            group.start_soon(call, 3)
            await anyio.sleep(1)
            await call(0)
        return [at - began for at in ended]

    return asyncio.run(main())


def thrice(pipeline: Pipeline[Any]) -> object:
    """Make three calls one after the other."""
    return [pipeline.call(str, number) for number in range(3)]


def slowly(pipeline: Pipeline[Any]) -> object:
    """Make a call of two seconds; say how often the function was called."""
    calls: list[int] = []

    async def work() -> str:
        calls.append(1)
        await anyio.sleep(2)
        return "slow"

    async def main() -> str:
        result: str = await pipeline.bind(idempotent=True).acall(work)
        return result

    return asyncio.run(main()), len(calls)


def flaky(pipeline: Pipeline[Any]) -> object:
    """Make a call whose second attempt would succeed."""
    return pipeline.call(Failing(1))


def after_a_failure(pipeline: Pipeline[Any]) -> object:
    """Make a call after one that has failed."""
    with suppress(ConnectionError):
        pipeline.call(down)
    return pipeline.call(str, "recovered")


def after_an_overload(pipeline: Pipeline[Any]) -> object:
    """Make a call after one to which the server has said that all shall pause."""
    with suppress(Overloaded):
        pipeline.call(overloaded)
    return pipeline.call(str, "next")


def good_then_bad(pipeline: Pipeline[Any]) -> object:
    """Make a call of a function that fails the second time."""
    calls: list[int] = []

    def work() -> str:
        calls.append(1)
        return "good" if len(calls) == 1 else down()

    return [pipeline.call(work), pipeline.call(work)]


class Case(NamedTuple):
    """A policy, a script in which it acts, and what it says in shadow mode."""

    make: Callable[[], Policy[Any]]
    script: Callable[[Pipeline[Any]], object]
    events: tuple[type[Event], ...]


CASES = {
    "timeout": Case(lambda: Timeout(1), slowly, (TimedOut,)),
    "retry": Case(lambda: Retry(wait=backoff.fixed(1)), flaky, (RetryScheduled,)),
    "bulkhead": Case(lambda: Bulkhead(1), within, (Rejected,)),
    "bulkhead with a queue": Case(lambda: Bulkhead(1, queue=5, max_wait=9), beside, (Queued,)),
    "adaptive limit": Case(lambda: AdaptiveLimit(1, max_limit=1), within, (Rejected,)),
    "adaptive limit with a queue": Case(lambda: AdaptiveLimit(1, queue=5, max_wait=9), beside, (Queued,)),
    "breaker": Case(
        lambda: CircuitBreaker(consecutive_failures=1, min_calls=1), after_a_failure, (BreakerChanged, Rejected)
    ),
    "rate limit": Case(lambda: RateLimit(1, max_wait=0), thrice, (Rejected,) * 2),
    "rate limit with a queue": Case(lambda: RateLimit(1, max_wait=9), thrice, (Queued,) * 2),
    "all_of": Case(lambda: RateLimit.all_of(RateLimit(1, max_wait=0), RateLimit(9)), thrice, (Rejected,) * 2),
    "all_of with a queue": Case(lambda: RateLimit.all_of(RateLimit(1, max_wait=9)), thrice, (Queued,) * 2),
    "cooldown": Case(lambda: Cooldown(max_wait=0), after_an_overload, (CooldownStarted, Rejected)),
    "cooldown with a queue": Case(lambda: Cooldown(), after_an_overload, (CooldownStarted, Queued)),
    "partition": Case(lambda: Partition(lambda: Bulkhead(1)), within, (Rejected,)),
    "partition with queues": Case(lambda: Partition(lambda: Bulkhead(1, queue=5, max_wait=9)), beside, (Queued,)),
    "partition of rate limits": Case(lambda: Partition(lambda: RateLimit(1, max_wait=9)), thrice, (Queued,) * 2),
    "hedge": Case(lambda: Hedge(1.0), slowly, (HedgeStarted,)),
    "fallback": Case(lambda: Fallback(value="instead"), flaky, (FallbackUsed,)),
    "stale cache": Case(lambda: StaleCache(), good_then_bad, (FallbackUsed,)),
    "chaos": Case(lambda: Chaos(1.0, error=KeyError, enabled=True), thrice, (FaultInjected,) * 3),
}


def by_policy(policy: Policy[Any], mode: Mode) -> Pipeline[Any]:
    policy.mode = mode
    return Pipeline(policy, failures=busy)


def by_pipeline(policy: Policy[Any], mode: Mode) -> Pipeline[Any]:
    return Pipeline(policy, failures=busy, mode=mode)


def by_process(policy: Policy[Any], mode: Mode) -> Pipeline[Any]:
    set_mode(mode)
    return Pipeline(policy, failures=busy)


def by_inner_pipeline(policy: Policy[Any], mode: Mode) -> Pipeline[Any]:
    return Pipeline(by_pipeline(policy, mode), failures=busy)


WAYS = {"policy": by_policy, "pipeline": by_pipeline, "process": by_process, "inner pipeline": by_inner_pipeline}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def seen(pipeline: Pipeline[Any], script: Callable[[Pipeline[Any]], object]) -> tuple[object, list[Event]]:
    """Return what the caller sees of a script, the time included, and the events but those of calls."""
    with virtual_time() as clock, Recorder() as recorder:
        try:
            found: object = script(pipeline)
        except Exception as error:
            found = type(error)
        # A pause is noticed to be over whenever somebody asks.
        return (found, round(clock.elapsed, 6)), [one for one in recorder.events if hasattr(one, "mode")]


@each_case
def test_enforced_it_acts(case: Case) -> None:
    bare, _ = seen(Pipeline(failures=busy), case.script)
    enforced, events = seen(Pipeline(case.make(), failures=busy), case.script)

    assert enforced != bare
    assert {getattr(event, "mode", None) for event in events} <= {Mode.ENFORCE}
    assert not any(isinstance(event, Queued) for event in events)


@pytest.mark.usefixtures("process_mode")
@each_way
@each_case
def test_in_shadow_it_lets_through_and_says_what_it_would_have_done(
    case: Case, way: Callable[[Policy[Any], Mode], Pipeline[Any]]
) -> None:
    bare, _ = seen(Pipeline(failures=busy), case.script)
    shadowed, events = seen(way(case.make(), Mode.SHADOW), case.script)

    assert shadowed == bare
    assert [type(event) for event in events] == list(case.events)
    assert [getattr(event, "mode", None) for event in events] == [Mode.SHADOW] * len(events)


@pytest.mark.usefixtures("process_mode")
@each_way
@each_case
def test_off_it_is_not_there(case: Case, way: Callable[[Policy[Any], Mode], Pipeline[Any]]) -> None:
    bare, _ = seen(Pipeline(failures=busy), case.script)
    with virtual_time():  # it stands still
        policy = case.make()
        before = policy.snapshot()
        pipeline = way(policy, Mode.OFF)
        found = seen(pipeline, case.script)

        assert found == (bare, [])
        assert policy.snapshot() == before


# Off: the chain is that of a pipeline without the policy, so it costs nothing and changes no judgement.


def drivers_of(step: Any) -> list[Any]:
    """Return the code of the closures of a chain, outermost first."""
    code = step.__code__
    free = [cell.cell_contents for cell in step.__closure__ or ()]
    inner = [one for one in free if getattr(one, "__module__", "").startswith(("resilience._d", "resilience._r"))]
    return [code, *(found for one in inner if hasattr(one, "__code__") for found in drivers_of(one))]


def chains(*policies: Policy[Any], **settings: Any) -> list[list[Any]]:
    """Return the chains of a pipeline of these policies, around a bulkhead, around a timeout, and inside of both."""
    found = []
    for parts in ((*policies, Bulkhead(9)), (*policies, Timeout(9)), (Bulkhead(9), Timeout(9), *policies)):
        pipeline: Pipeline[Any] = Pipeline(*parts, **settings)
        with virtual_time(), suppress(Exception):
            pipeline.call(str)
        with virtual_time(), suppress(Exception):
            asyncio.run(pipeline.acall(str))
        engine: Any = vars(pipeline)["_engine"]
        found += [drivers_of(engine.chain), drivers_of(engine.achain)]
    return found


RESULTS = Allowlist.of_results(lambda result: bool(result == "bad"))
OFF: dict[str, Callable[[], Policy[Any]]] = {
    **{name: case.make for name, case in CASES.items()},
    "timeout with a share": lambda: Timeout(None, share=0.5),
    "timeout with a thread": lambda: Timeout(1, thread=True),
    "retry of results": lambda: Retry(on=RESULTS),
    "fallback for results": lambda: Fallback(value=1, on=RESULTS),
}


@pytest.mark.parametrize("make", OFF.values(), ids=OFF)
def test_off_the_chain_is_built_without_it(make: Callable[[], Policy[Any]]) -> None:
    policy = make()
    assert chains(policy) != chains()
    policy.mode = "off"

    assert chains(policy) == chains()


def test_a_pipeline_that_is_off_has_the_chain_of_an_empty_one() -> None:
    def chain(pipeline: Pipeline[Any]) -> list[Any]:
        pipeline.call(str)
        return drivers_of(vars(pipeline)["_engine"].chain)

    policies = [case.make() for case in CASES.values()]

    assert chain(Pipeline(*policies, mode="off")) == chain(Pipeline())


def test_the_bad_results_of_a_policy_that_is_off_are_good_ones() -> None:
    cache, breaker = StaleCache(), CircuitBreaker()
    pipeline = Pipeline(cache, Retry(on=RESULTS, wait=backoff.none(), mode="off"), breaker)
    with Recorder(pipeline, events=[CallEnded]) as recorder:
        assert pipeline.call(str, "bad") == "bad"

    assert [str(event.outcome) for event in recorder.of(CallEnded)] == ["ok"]
    assert cache.snapshot() == {"entries": 1}
    assert (breaker.snapshot()["calls"], breaker.snapshot()["failures"]) == (1, 0)


@pytest.mark.parametrize("retry", [Retry(mode="off"), Pipeline(Retry(), mode="off"), Pipeline(Retry(mode="off"))])
def test_a_timeout_inside_a_retry_that_is_off_bounds_the_call(retry: Policy[Any], virtual_clock: VirtualClock) -> None:
    pipeline = Pipeline(retry, Timeout(1))
    with Recorder(pipeline, events=[TimedOut]) as recorder:
        pipeline.call(virtual_clock.advance, 2)

    assert [event.scope for event in recorder.of(TimedOut)] == [TimeoutScope.CALL]


def test_a_timeout_that_is_off_does_not_say_how_long_attempts_should_take() -> None:
    scored: list[int] = []
    for timeouts in ([], [Timeout(100, mode="off")], [Pipeline(Timeout(100), mode="off")]):
        breaker = CircuitBreaker(slow_after=1)
        pipeline = Pipeline(*timeouts, breaker)
        with virtual_time() as clock:
            with suppress(TimeoutError), deadline_after(2):
                pipeline.call(clock.advance, 3)
            scored.append(breaker.snapshot()["failures"])

    assert scored == [1, 1, 1]


# Shadow: what a policy decides is what it would decide enforced.


async def two_seconds() -> str:
    """Answer after two seconds."""
    await anyio.sleep(2)
    return "slow"


class TestShadowHedge:
    def reported(self, *inside: Policy[Any], budget: RetryBudget | None = None, call: Any = two_seconds) -> list[Event]:
        """Return what a Hedge after 1 s reports of a call."""
        pipeline: Pipeline[Any] = Pipeline(Hedge(1.0, mode="shadow"), *inside, budget=budget)
        with virtual_time(), Recorder(pipeline, events=[HedgeStarted, HedgeEnded]) as recorder, suppress(Exception):
            asyncio.run(pipeline.bind(idempotent=True).acall(call))
        return recorder.events

    def test_it_asks_the_budget_and_does_not_pay(self) -> None:
        rich, poor = RetryBudget(capacity=5, initial=2), RetryBudget(capacity=5, initial=0)

        (started,) = self.reported(budget=rich)
        (refused,) = self.reported(budget=poor)

        assert isinstance(started, HedgeStarted)
        assert (started.attempt, started.after, started.mode) == (2, 1.0, Mode.SHADOW)
        assert isinstance(refused, HedgeEnded)
        assert (refused.result, refused.attempts, refused.mode) == (HedgeResult.REFUSED, 1, Mode.SHADOW)
        assert [rich.tokens, poor.tokens] == pytest.approx([2.2, 0.2])  # one success each

    def test_it_asks_a_breaker_inside(self) -> None:
        breaker = CircuitBreaker()

        async def trip() -> str:
            breaker.isolate()
            return await two_seconds()

        (event,) = self.reported(breaker, call=trip)

        assert isinstance(event, HedgeEnded)
        assert event.result is HedgeResult.REFUSED

    @pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.SHADOW])
    def test_it_asks_the_breaker_of_the_key_inside_of_it(self, mode: Mode) -> None:
        breakers = Partition(CircuitBreaker)
        pipeline: Pipeline[Any] = Pipeline(Hedge(1.0, mode=mode), breakers, budget=None)
        started: list[list[str]] = []

        async def trip() -> str:
            breakers.of("sick").isolate()
            return await two_seconds()

        for target in ("sick", "well"):
            with virtual_time(), Recorder(pipeline, events=[HedgeStarted]) as recorder:
                asyncio.run(pipeline.bind(target=target, idempotent=True).acall(trip))
            started.append([str(event.mode) for event in recorder.of(HedgeStarted)])
            breakers.of("sick").reset()

        assert started == [[], [str(mode)]]

    def test_a_failure_would_start_the_next_attempt_at_once(self) -> None:
        (event,) = self.reported(call=down)

        assert isinstance(event, HedgeStarted)
        assert event.after == 0.0

    def test_a_failure_with_a_hint_would_start_it_later(self) -> None:
        pipeline: Pipeline[Any] = Pipeline(Hedge(1.0, mode="shadow"), failures=busy)
        with virtual_time(), Recorder(pipeline, events=[HedgeStarted]) as recorder, suppress(Overloaded):
            pipeline.bind(idempotent=True).call(overloaded)

        assert [event.after for event in recorder.of(HedgeStarted)] == [5.0]

    def test_an_answer_would_end_the_call(self) -> None:
        assert self.reported(call=lambda: "at once") == []
        assert self.reported(call=lambda: int("nobody listed this")) == []


def test_a_shadow_breaker_has_the_state_that_enforce_would_show(virtual_clock: VirtualClock) -> None:
    states: dict[Mode, list[str]] = {}
    for mode in (Mode.ENFORCE, Mode.SHADOW):
        breaker = CircuitBreaker(consecutive_failures=2, min_calls=1, open_for=1, max_open_for=1, mode=mode)
        pipeline = Pipeline(breaker)
        seen = states[mode] = []
        script: list[Callable[..., Any] | None] = [str, down, down, str, None, down, str, None, str, str]
        for function in script:
            if function is None:
                virtual_clock.advance(2)
            else:
                with suppress(ConnectionError, RejectedError):
                    pipeline.call(function)
            seen.append(f"{breaker.state} {breaker.snapshot()['calls']} {breaker.snapshot()['opens']}")

    assert states[Mode.SHADOW] == states[Mode.ENFORCE]
    assert {state.split()[0] for state in states[Mode.SHADOW]} == {"closed", "open", "half_open"}


@pytest.mark.usefixtures("process_mode")
def test_a_change_of_state_has_in_each_pipeline_the_mode_of_that_pipeline() -> None:
    breaker, cooldown = CircuitBreaker(consecutive_failures=1, min_calls=1), Cooldown()
    enforced = Pipeline(cooldown, breaker, name="enforced", failures=busy)
    shadowed = Pipeline(cooldown, breaker, name="shadowed", failures=busy, mode="shadow")
    modes: list[list[tuple[str, str]]] = []
    for process in (Mode.ENFORCE, Mode.SHADOW):
        set_mode(process)
        with Recorder(events=[BreakerChanged, CooldownStarted]) as recorder:
            for function in (overloaded, down):
                with suppress(Overloaded, ConnectionError):
                    shadowed.call(function)
        changes: list[Any] = [*recorder.of(BreakerChanged), *recorder.of(CooldownStarted)]
        modes.append(sorted((event.pipeline, str(event.mode)) for event in changes))
        breaker.reset()
        cooldown.reset()

    assert enforced.mode is Mode.ENFORCE
    assert modes == [
        [("enforced", "enforce"), ("enforced", "enforce"), ("shadowed", "shadow"), ("shadowed", "shadow")],
        [("enforced", "shadow"), ("enforced", "shadow"), ("shadowed", "shadow"), ("shadowed", "shadow")],
    ]
