"""What type checkers see. mypy and pyright read this file; the assertions also run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar, assert_type

from resilience import Call, Ending, Pipeline, Retry, Substitute

T = TypeVar("T")
plain = Pipeline(Retry(), name="typed")


class Default(Substitute[None]):
    def replace(self, call: Call, ending: Ending) -> None:
        return None


softened = Pipeline(Default(), Retry(), name="softened")
nested = Pipeline(softened, Retry(), name="typed-nested")


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
