"""100 requests at random through a server that misbehaves: no place in the pool and no permit is lost."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import anyio
import pytest
import trio

from tests.httpx.helpers import both_modules
from tests.httpx.server import Server, at_random
from tests.httpx.storm import SLOTS, Storm
from tests.support.loops import LOOPS, run_trio

REQUESTS = 100
pytestmark = [
    pytest.mark.slow,
    # httpx itself leaves the generator of a request's body to the garbage collector, and trio warns of that.
    pytest.mark.filterwarnings(
        "ignore:Exception ignored (in|while finalizing generator).? <async_generator object ByteStream"
    ),
]


everywhere = pytest.mark.parametrize("run", LOOPS)


def attempt(client: Any, number: int, arguments: dict[str, Any]) -> object:
    """Make a request: most are read whole, some in chunks, some are closed unread."""
    if number % 5:
        return client.request(**arguments).status_code
    with client.stream(**arguments) as response:
        if number % 10:
            return sum(map(len, response.iter_raw())) and response.status_code
        return response.status_code


async def attempt_async(client: Any, number: int, arguments: dict[str, Any]) -> object:
    if number % 5:
        return (await client.request(**arguments)).status_code
    async with client.stream(**arguments) as response:
        if number % 10:
            async for _ in response.aiter_raw():
                pass
        return response.status_code


def together(client: Any) -> list[int]:
    """Four requests that the server answers only when all four are there."""
    with ThreadPoolExecutor(SLOTS) as pool:
        found = [pool.submit(client.get, "/all_at_once") for _ in range(SLOTS)]
        return [one.result().status_code for one in found]


async def together_async(client: Any) -> list[int]:
    codes: list[int] = []

    async def one() -> None:
        codes.append((await client.get("/all_at_once")).status_code)

    async with anyio.create_task_group() as group:
        for _ in range(SLOTS):
            group.start_soon(one)
    return codes


@both_modules
def test_threads(module: ModuleType) -> None:
    with Server(at_random(1)) as server:
        storm = Storm(server, module)
        with storm.client("Client") as client:

            def work(number: int) -> None:
                arguments = storm.request(number, random.Random(number))
                started = time.monotonic()
                try:
                    outcome: object = attempt(client, number, arguments)
                except (module.TransportError, module.StreamError) as error:
                    outcome = error
                storm.note(outcome, started)

            with ThreadPoolExecutor(8) as pool:
                list(pool.map(work, range(REQUESTS)))
            storm.check()
            assert sum(storm.ended.values()) == REQUESTS
            assert together(client) == [200] * SLOTS


async def one(storm: Storm, client: Any, module: ModuleType, number: int) -> None:
    """Make one request, and note how it ended."""
    arguments = storm.request(number, random.Random(number))
    started = time.monotonic()
    try:
        outcome: object = await attempt_async(client, number, arguments)
    except module.TransportError as error:
        outcome = error
    storm.note(outcome, started)


@both_modules
@everywhere
def test_tasks(module: ModuleType, run: Callable[..., None]) -> None:
    async def main() -> None:
        with Server(at_random(2)) as server:
            storm = Storm(server, module)
            async with storm.client("AsyncClient") as client:
                numbers = iter(range(REQUESTS))

                async def work() -> None:
                    for number in numbers:
                        await one(storm, client, module, number)

                async with anyio.create_task_group() as group:
                    for _ in range(8):
                        group.start_soon(work)
                storm.check()
                assert sum(storm.ended.values()) == REQUESTS
                assert await together_async(client) == [200] * SLOTS

    run(main)


WORDS = ("good", "good", "big", "chunked", "busy", "busy_cut", "reset", "close", "stall", "cut", "drip")


@both_modules
@everywhere
def test_cancelled_tasks(module: ModuleType, run: Callable[..., None]) -> None:
    """Cancelled one by one, in the way of the loop: on asyncio by `Task.cancel`, which goes through shields."""

    async def main() -> None:
        chance = random.Random(3)
        with Server(at_random(3, WORDS)) as server:
            storm = Storm(server, module)
            async with storm.client("AsyncClient") as client:

                async def work(number: int) -> None:
                    await one(storm, client, module, number)

                cancelled = await (on_scopes if run is run_trio else on_tasks)(work, chance)
                print("cancelled", cancelled)
                assert cancelled > REQUESTS / 4
                storm.check()
                assert await together_async(client) == [200] * SLOTS

    run(main)


async def pause(chance: random.Random) -> None:
    """Mostly a few milliseconds, often one turn of the loop only."""
    await anyio.sleep(chance.random() * 0.004 if chance.random() < 0.6 else 0)


async def on_tasks(work: Callable[[int], Any], chance: random.Random) -> int:
    tasks: list[asyncio.Task[Any]] = []
    for number in range(REQUESTS):
        tasks.append(asyncio.create_task(work(number)))
        await pause(chance)
        if chance.random() < 0.9:
            task = chance.choice(tasks[-8:])
            task.cancel()
            if chance.random() < 0.3:  # and again, while it cleans up
                await asyncio.sleep(0)
                task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert [one for one in ended if isinstance(one, Exception)] == []
    return sum(isinstance(one, asyncio.CancelledError) for one in ended)


async def on_scopes(work: Callable[[int], Any], chance: random.Random) -> int:
    scopes: list[trio.CancelScope] = []

    async def scoped(number: int) -> None:
        with scopes[number]:
            await work(number)

    async with trio.open_nursery() as nursery:
        for number in range(REQUESTS):
            scopes.append(trio.CancelScope())
            nursery.start_soon(scoped, number)
            await pause(chance)
            if chance.random() < 0.9:
                chance.choice(scopes[-8:]).cancel()
    return sum(scope.cancelled_caught for scope in scopes)
