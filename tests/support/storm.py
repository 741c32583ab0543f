"""A storm of calls: threads, asyncio tasks and trio tasks share a bulkhead until 10,000 calls were cut short."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import trio

from resilience import AdaptiveLimit, Bulkhead, Pipeline, RejectedError

ENOUGH = 10_000
OF_EACH = 500
PATIENCE = 120.0
LIMIT = 4
ROOM = 12


class Storm:
    """Calls that end in every way, from everywhere, until there were enough cancellations and timeouts."""

    def __init__(self, bulkhead: Bulkhead | AdaptiveLimit) -> None:
        self.bulkhead = bulkhead
        self.pipeline: Pipeline[Any] = Pipeline(bulkhead)
        self.lock = threading.Lock()
        self.ended: Counter[str] = Counter()
        self.inside = 0
        self.most = 0
        self.errors: list[BaseException] = []

    @property
    def over(self) -> bool:
        cancelled, timed_out = self.ended["cancelled"], self.ended["queue_timeout"]
        return bool(self.errors) or (cancelled + timed_out >= ENOUGH and min(cancelled, timed_out) >= OF_EACH)

    def count(self, ending: str) -> None:
        with self.lock:
            self.ended[ending] += 1

    def come(self) -> None:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)

    def go(self) -> None:
        with self.lock:
            self.inside -= 1

    def thread(self, seed: int) -> None:
        chance = random.Random(seed)
        hold = threading.Event()

        def work() -> None:
            self.come()
            try:
                if chance.random() < 0.3:
                    hold.wait(0.002)
                if chance.random() < 0.2:
                    raise ConnectionError
            finally:
                self.go()

        while not self.over:
            try:
                self.pipeline.call(work)
                self.count("ok")
            except RejectedError as error:
                self.count(str(error.reason))
            except ConnectionError:
                self.count("failed")

    async def work(self, rounds: int) -> None:
        self.come()
        try:
            for _ in range(rounds):
                await anyio.lowlevel.checkpoint()
            if rounds == 3:
                raise ConnectionError
        finally:
            self.go()

    async def call(self, chance: random.Random) -> None:
        try:
            await self.pipeline.acall(self.work, chance.randrange(12))
            self.count("ok")
        except RejectedError as error:
            self.count(str(error.reason))
        except ConnectionError:
            self.count("failed")

    async def asyncio_task(self, seed: int) -> None:
        chance = random.Random(seed)
        while not self.over:
            task = asyncio.create_task(self.call(chance))
            for _ in range(chance.randrange(8)):
                await asyncio.sleep(0)
            if chance.random() < 0.8:
                task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                self.count("cancelled")

    async def trio_task(self, seed: int) -> None:
        chance = random.Random(seed)
        while not self.over:
            async with trio.open_nursery() as nursery:
                scope = trio.CancelScope()

                async def scoped(scope: trio.CancelScope = scope) -> None:
                    with scope:
                        await self.call(chance)
                    if scope.cancelled_caught:
                        self.count("cancelled")

                nursery.start_soon(scoped)
                for _ in range(chance.randrange(8)):
                    await trio.lowlevel.checkpoint()
                if chance.random() < 0.8:
                    scope.cancel()

    async def asyncio_main(self) -> None:
        async with asyncio.TaskGroup() as group:
            for seed in range(8):
                group.create_task(self.asyncio_task(100 + seed))

    async def trio_main(self) -> None:
        async with trio.open_nursery() as nursery:
            for seed in range(8):
                nursery.start_soon(self.trio_task, 200 + seed)

    def guarded(self, run: Callable[[], object]) -> Callable[[], None]:
        def target() -> None:
            try:
                run()
            except BaseException as error:
                self.errors.append(error)

        return target

    def rage(self, *also: Callable[[], object]) -> None:
        runs: list[Callable[[], object]] = [partial(self.thread, seed) for seed in range(4)]
        runs += [lambda: asyncio.run(self.asyncio_main()), lambda: trio.run(self.trio_main), *also]
        threads = [threading.Thread(target=self.guarded(run), daemon=True) for run in runs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        assert self.errors == []
