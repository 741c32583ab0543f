"""Runs tests of `grpc.aio` against a server, and looks whether anything is left over at the end."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

from tests.grpc.streaming import Shop


async def no_more_than(before: set[Any]) -> set[Any]:
    """Wait until no other tasks are there than before; returns those that are left after a while."""
    for _ in range(200):
        left = asyncio.all_tasks() - before
        if not left:
            break
        await asyncio.sleep(0.01)
    return asyncio.all_tasks() - before


def run_clean(make: Callable[[str], Any], server: Shop, body: Callable[[Any], Awaitable[Any]]) -> Any:
    """Run a coroutine function with a channel to a server, and close that.

    Fails if a task is left, or if the loop was told of an error.
    """
    told: list[Any] = []

    async def main() -> Any:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
        before = asyncio.all_tasks()
        channel = make(server.target)
        try:
            async with asyncio.timeout(20.0):
                result = await body(channel)
        finally:
            await channel.close()
        left = await no_more_than(before)
        assert not left
        return result

    result = asyncio.run(main())
    gc.collect()
    assert told == [], [str(one) for one in told]
    return result


async def seen(server: Shop, number: int = 1) -> None:
    """Wait until a server has seen that many RPCs."""
    await asyncio.to_thread(server.seen, number)


async def was_cancelled(server: Shop, number: int = 1) -> bool:
    """Wait for the end of an RPC, and return whether the server saw that it was cancelled."""
    return await asyncio.to_thread(server.was_cancelled, number)


def requests_of(arity: str) -> Any:
    """Return the request, or the iterator of requests, of an arity."""
    return b"x" if arity.startswith("unary") else iter([b"x"])


async def use(call: Any, arity: str) -> list[bytes]:
    """Read the responses of a call."""
    return [response async for response in call] if arity.endswith("stream") else [await call]
