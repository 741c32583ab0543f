"""What type checkers see. mypy and pyright read this file; the assertions also run."""

# pyright: reportMissingTypeArgument=true

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Iterator
from typing import Any, Generic, TypeVar, assert_type

import pytest

from resilience import (
    HTTP_FAILURES,
    AdaptiveLimit,
    Allowlist,
    Bulkhead,
    Call,
    CircuitBreaker,
    CombinedRateLimit,
    Cooldown,
    Ending,
    Fallback,
    Gate,
    Hedge,
    Mode,
    Partition,
    Pipeline,
    RateLimit,
    Reservation,
    Retry,
    RetryBudget,
    StaleCache,
    Substitute,
    Ticket,
    Timeout,
    set_mode,
    status_failures,
)
from resilience.events import CallEnded, Event, RetryScheduled
from resilience.testing import Recorder

T = TypeVar("T")
plain = Pipeline(Retry(), name="typed")


class Default(Substitute[None]):
    def replace(self, call: Call, ending: Ending) -> None:
        return None


softened = Pipeline(Default(), Retry(), name="softened")
nested = Pipeline(softened, Bulkhead(1), name="typed-nested")


async def compute_async(error: Exception) -> int:
    return len(str(error))


valued = Pipeline(Fallback(value=None), Retry(), Hedge(), name="typed-valued")
computed = Pipeline(Retry(), Fallback(lambda error: str(error)), name="typed-computed")
awaited = Pipeline(Fallback(compute_async), StaleCache(), Retry(), name="typed-awaited")


@valued
def fetch_valued(symbol: str) -> float:
    return len(symbol)


@computed.bind(idempotent=True)
async def fetch_computed(symbol: str) -> float:
    return len(symbol)


@awaited
async def fetch_awaited(symbol: str) -> float:
    return len(symbol)


@Pipeline(valued, Bulkhead(1), name="typed-valued-nested")
def fetch_valued_nested(symbol: str) -> float:
    return len(symbol)


def test_the_type_of_a_fallback_is_part_of_the_result() -> None:
    assert_type(fetch_valued("a"), float | None)
    assert_type(fetch_valued_nested("a"), float | None)
    assert_type(asyncio.run(fetch_computed("a")), float | str)
    assert_type(asyncio.run(fetch_awaited("a")), float | int)
    assert_type(valued.call(len, "a"), int | None)


@plain
def fetch(symbol: str, *, depth: int = 1) -> float:
    return len(symbol) * depth


@plain
async def fetch_async(symbol: str) -> float:
    return len(symbol)


@softened
def fetch_soft(symbol: str) -> float:
    return len(symbol)


@softened
async def fetch_soft_async(symbol: str) -> float:
    return len(symbol)


@Retry()
def alone(symbol: str) -> float:
    return len(symbol)


@plain.bind(idempotent=False)
def bound(symbol: str) -> float:
    return len(symbol)


@nested
def fetch_nested(symbol: str) -> float:
    return len(symbol)


def built() -> Pipeline:
    """Return a pipeline, for those who do not care what its substitutes return."""
    return Pipeline(Retry(), CircuitBreaker(), name="typed-built")


def guarded_by(pipeline: Pipeline) -> float:
    return pipeline.call(fetch, "a")


class Client(Generic[T]):
    def __init__(self, value: T) -> None:
        self.value = value

    @plain
    def get(self, times: int) -> list[T]:
        return [self.value] * times

    @plain
    async def aget(self) -> T:
        return self.value

    @classmethod
    @plain
    def make(cls, name: str) -> str:
        return f"{cls.__name__} {name}"

    @staticmethod
    @plain
    def ping(times: int) -> int:
        return times


def test_functions_keep_their_types() -> None:
    assert_type(fetch("a", depth=2), float)
    assert_type(alone("a"), float)
    assert_type(bound("a"), float)
    assert_type(plain.call(fetch, "a", depth=2), float)


def test_methods_keep_their_types() -> None:
    client = Client("a")
    assert_type(client.get(2), list[str])
    assert_type(Client.make("a"), str)
    assert_type(Client.ping(3), int)
    assert Client.make("a") == "Client a"


def test_coroutine_functions_keep_their_types() -> None:
    async def main() -> None:
        assert_type(await fetch_async("a"), float)
        assert_type(await Client(1).aget(), int)
        assert_type(await plain.acall(fetch, "a"), float)
        assert_type(await plain.acall(fetch_async, "a"), float)
        assert_type(await plain.acall(Client(1).aget), int)
        assert_type(await fetch_soft_async("a"), float | None)

    asyncio.run(main())


def test_a_substitute_shows() -> None:
    assert_type(fetch_soft("a"), float | None)
    assert_type(fetch_nested("a"), float | None)
    assert_type(softened.call(fetch, "a"), float | None)


def test_a_pipeline_without_a_type_argument_adds_nothing_to_what_functions_return() -> None:
    assert_type(built().call(fetch, "a"), float)
    assert_type(built()(fetch)("a"), float)
    assert guarded_by(built()) == 1
    assert guarded_by(Pipeline(Timeout(1))) == 1


def test_a_policy_is_found_by_its_type() -> None:
    breaker = assert_type(built().get(CircuitBreaker), CircuitBreaker)
    assert_type(nested.get(Default), Default)

    assert breaker.state == "closed"
    assert isinstance(nested.get(Default), Default)


def test_a_partition_is_typed_by_its_policies() -> None:
    breakers = assert_type(Partition(CircuitBreaker), Partition[CircuitBreaker])
    bulkheads = assert_type(Partition(lambda: Bulkhead(1), by=lambda call: call.args), Partition[Bulkhead])
    budgets = assert_type(Partition(RetryBudget), Partition[RetryBudget])
    pipeline = Pipeline(Retry(budget=budgets), breakers, bulkheads, budget=budgets)

    assert_type(breakers.of("a"), CircuitBreaker)
    assert_type(bulkheads.policies(), list[Bulkhead])
    assert_type(budgets.overflow, RetryBudget)
    assert_type(pipeline.call(fetch, "a"), float)


def test_a_wrong_partition_is_an_error() -> None:
    with pytest.raises(TypeError, match="factory"):
        Partition(Retry)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="budget"):
        Pipeline(budget=Partition(CircuitBreaker))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="budget"):
        Retry(budget=Partition(CircuitBreaker))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="by"):
        Partition(CircuitBreaker, by="host")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_recorded_events_have_their_type() -> None:
    with Recorder() as recorder:
        fetch("a")

    assert_type(recorder.of(RetryScheduled), list[RetryScheduled])
    assert_type(recorder.of(Event), list[Event])
    assert_type(recorder.events, list[Event])
    assert_type(AdaptiveLimit().limit, int)
    assert_type(Pipeline(Cooldown()).get(Cooldown), Cooldown)
    with Cooldown().calling() as cooldown:
        assert_type(cooldown.active, bool)
    with AdaptiveLimit() as limit:
        assert_type(limit, AdaptiveLimit)
    (ended,) = assert_type(recorder.of(CallEnded), list[CallEnded])
    assert assert_type(ended.attempts, int) == 1


def test_rate_limits_and_their_reservations_have_their_types() -> None:
    requests = RateLimit(10, burst=5, cost=lambda call: len(call.args) + 1)
    tokens = RateLimit(1e3, per=60, burst=100, cost=10, actual=lambda answer: answer.total_tokens)
    both = assert_type(RateLimit.all_of(requests, tokens), CombinedRateLimit)
    with assert_type(tokens.reserve(3), Reservation[float]) as reserved:
        reserved.settle(4)
    with both.reserve({tokens: 3}) as several:
        several.settle({tokens: 2.5})
    with requests as entered:
        assert_type(entered, RateLimit)

    @requests
    def ask(question: str) -> int:
        return len(question)

    assert assert_type(ask("why?"), int) == 4


def test_a_mode_is_one_of_three_words_or_a_member() -> None:
    modes = [
        assert_type(Retry(mode="enforce").mode, Mode),
        assert_type(Bulkhead(1, mode="shadow").mode, Mode),
        assert_type(Timeout(1, mode="off").mode, Mode),
        assert_type(CircuitBreaker(mode=Mode.SHADOW).mode, Mode),
        assert_type(Pipeline(Retry(), mode="off").mode, Mode),
        assert_type(Default(mode=Mode.OFF).mode, Mode),
    ]
    assert modes == ["enforce", "shadow", "off", "shadow", "off", "off"]

    retry = Retry()
    retry.mode = "shadow"
    retry.mode = Mode.OFF
    set_mode("enforce")
    set_mode(Mode.ENFORCE)


def test_another_word_is_no_mode() -> None:
    retry = Retry()
    with pytest.raises(ValueError, match="mode"):
        Retry(mode="loud")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="mode"):
        Pipeline(mode="SHADOW")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="mode"):
        Timeout(1, mode=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="mode"):
        retry.mode = "loud"  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValueError, match="mode"):
        set_mode("loud")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert retry.mode == "enforce"


class Counting(Gate[None]):
    """A gate without a queue, whose tokens are nothing."""

    settled = 0

    def admit(self, call: Call) -> None:
        return None

    def settle(self, token: None, ending: Ending) -> None:
        self.settled += 1


class Numbering(Gate[int]):
    """A gate without a queue, with tokens."""

    last = 0

    def admit(self, call: Call) -> int:
        self.last += 1
        return self.last

    def settle(self, token: int, ending: Ending) -> None:
        assert_type(token, int)


class Queued(Gate[Ticket | None]):
    """A gate with a queue."""

    def admit(self, call: Call) -> Ticket | None:
        return None

    def settle(self, token: Ticket | None, ending: Ending) -> None:
        assert_type(token, Ticket | None)


class Wrong(Gate[int]):
    def settle(self, token: str, ending: Ending) -> None:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        ...


def test_a_gate_is_typed_by_its_tokens() -> None:
    counting, numbering = Counting(), Numbering()

    assert_type(Pipeline(counting, numbering, Queued()).call(fetch, "a"), float)

    assert (counting.settled, numbering.last) == (1, 1)


def test_wrong_calls_are_errors() -> None:
    def wrong() -> None:
        fetch(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        fetch("a", deep=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        plain.call(fetch, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        Pipeline("retry")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        Retry(attempts="3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    assert callable(wrong)


def test_signatures_pass_for_callables() -> None:
    function: Callable[[str], float] = alone
    coroutine: Callable[[str], Coroutine[Any, Any, float]] = fetch_async

    assert function("a") == 1
    assert asyncio.run(coroutine("a")) == 1


def test_the_failures_of_http_are_allowlists() -> None:
    assert_type(HTTP_FAILURES, Allowlist)
    assert_type(status_failures(), Allowlist)
    assert_type(HTTP_FAILURES | status_failures([404]) | KeyError, Allowlist)


@plain
def generated(count: int) -> Generator[int, str, float]:
    yield count
    return 0.5


@plain
def iterated(count: int) -> Iterator[int]:
    yield count


@plain
async def generated_async(count: int) -> AsyncGenerator[int, str]:
    yield count


@plain
async def iterated_async(count: int) -> AsyncIterator[int]:
    yield count


def test_generator_functions_keep_their_types() -> None:
    assert_type(generated(1), Generator[int, str, float])
    assert_type(iterated(1), Iterator[int])
    assert_type(generated_async(1), AsyncGenerator[int, str])
    assert_type(iterated_async(1), AsyncIterator[int])
    assert list(generated(1)) == list(iterated(1)) == [1]
