"""Results that nobody gets are closed if they are generators or responses, and left alone otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

import pytest

from resilience._call.unused import aclose_quietly, close_quietly


class Response:
    status_code = 200

    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


class AsyncResponse:
    status_code = 200

    def __init__(self) -> None:
        self.closed = 0

    async def aclose(self) -> None:
        self.closed += 1


class Connection:
    """Something that others may use, too."""

    closed = 0

    def close(self) -> None:
        self.closed += 1


class Broken(Response):
    def close(self) -> None:
        raise OSError


class BrokenToLookAt:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


def test_a_response_is_closed() -> None:
    plain, other, awaited = Response(), Response(), AsyncResponse()

    close_quietly(plain)
    asyncio.run(aclose_quietly(other))
    asyncio.run(aclose_quietly(awaited))

    assert (plain.closed, other.closed, awaited.closed) == (1, 1, 1)


def test_a_generator_is_closed() -> None:
    ended: list[str] = []

    def items() -> Generator[int]:
        try:
            yield 1
        finally:
            ended.append("plain")

    async def aitems() -> AsyncGenerator[int]:
        try:
            yield 1
        finally:
            ended.append("async")

    async def main() -> None:
        generator = aitems()
        await anext(generator)
        await aclose_quietly(generator)

    plain = items()
    next(plain)
    close_quietly(plain)
    asyncio.run(main())

    assert ended == ["plain", "async"]


@pytest.mark.parametrize("make", [lambda: None, str, Broken, BrokenToLookAt])
def test_anything_else_is_left_alone_and_errors_are_ignored(make: Callable[[], object]) -> None:
    result = make()

    close_quietly(result)
    asyncio.run(aclose_quietly(result))


def test_an_object_that_may_be_shared_is_not_closed() -> None:
    connection = Connection()

    close_quietly(connection)
    asyncio.run(aclose_quietly(connection))

    assert connection.closed == 0
