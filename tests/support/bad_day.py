"""Clients of one server on a bad day, simulated in virtual time with real pipelines.

The server has 30 workers, each of which takes Exp(0.1 s) for a request: 300 requests a second. Requests wait in one
FIFO queue of at most 10,000; one that finds it full is refused at once. The server does not learn that a client has
given up, and does the work all the same. During a fall, a fifth of the workers take requests.

Calls come as a Poisson process, whatever has become of the earlier ones, and each belongs to a client drawn at random.
A client is a process: it has a pipeline of its own. An attempt has a timeout of 1 s in all of them, also in bare calls
and naive retries, as in the simulations from which the defaults of the library come. Only `patient` calls have 3 s.

Runs with the same seed have the same calls, by the same clients, and are the same in each process.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import random
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from docs.plots.fixed_time import fixed_time
from resilience import DeadlineExceededError, Pipeline, RejectedError, Retry, Timeout, backoff, standard
from resilience._util.clock import clock
from resilience.logs import logger
from resilience.testing import VirtualLoop, seeded

WORKERS = 30
SERVICE = 0.1
ROOM = 10_000
RATE = 210.0
REMAINING = 0.2
"""The share of the capacity that remains in a fall."""
BEFORE = 10
"""Seconds before a fall: as long as the window of a circuit breaker."""
GOOD = 0.95
"""A second is good if this share of the calls that begin in it succeed."""

Client = Callable[[str], Pipeline[Any]]
"""Makes the pipeline of a client, given its name."""


def bare(name: str, timeout: float = 1.0) -> Pipeline[Any]:
    """Return what makes one attempt, with a timeout."""
    return Pipeline(Timeout(timeout), name=name)


def patient(name: str) -> Pipeline[Any]:
    """Return what makes one attempt, with a timeout of 3 s, as the whole call has in the standard pipeline."""
    return bare(name, 3.0)


def naive(name: str) -> Pipeline[Any]:
    """Return what retries three times at once, each attempt with a timeout of 1 s, and without a budget."""
    return Pipeline(Retry(4, wait=backoff.none(), budget=None), Timeout(1.0), name=name)


def guarded(name: str) -> Pipeline[Any]:
    """Return the standard pipeline, with the same timeout of each attempt."""
    return standard(name, timeout=3.0, attempt_timeout=1.0)


class SimulationLoop(VirtualLoop):
    """A virtual loop that looks neither for I/O nor at threads, since a simulation has none."""

    def __init__(self) -> None:
        super().__init__()
        selector: Any = self._jumping
        selector.select = _jump


def _jump(timeout: float | None = None) -> list[Any]:
    if timeout is None:
        raise RuntimeError("every task waits, and there is no timer")
    if timeout > 0.0:
        virtual: Any = clock.time
        virtual.jump(virtual.monotonic() + timeout)
    return []


@dataclass
class Outcome:
    """What became of the calls of one run."""

    end_of_fall: int
    calls: list[int]
    """For each second, the calls that began in it."""
    good: list[int]
    """How many of those have succeeded."""
    attempts: list[int]
    """For each second, the requests that the server got."""

    def recovery(self) -> float:
        """Return the seconds from the end of the fall to that of the last second that is not good."""
        bad = [at + 1.0 for at, calls in enumerate(self.calls) if self.good[at] < GOOD * calls]
        return max(0.0, bad[-1] - self.end_of_fall) if bad else 0.0

    @property
    def lost(self) -> int:
        """The calls that have failed."""
        return sum(self.calls) - sum(self.good)

    @property
    def success(self) -> float:
        """The share of calls that have succeeded."""
        return sum(self.good) / sum(self.calls)

    def attempts_per_call(self, since: int = 0) -> float:
        """Return the requests for each call, from this second on."""
        return sum(self.attempts[since:]) / sum(self.calls[since:])


class Server:
    """Workers who take requests from a FIFO queue."""

    def __init__(self, loop: asyncio.AbstractEventLoop, chance: random.Random) -> None:
        self.loop = loop
        self.chance = chance
        self.workers = WORKERS
        self.busy = 0
        self.queue: deque[asyncio.Future[None]] = deque()
        self.requests = 0

    async def answer(self) -> None:
        """Answer one request."""
        self.requests += 1
        if len(self.queue) >= ROOM:
            raise ConnectionRefusedError
        future = self.loop.create_future()
        if self.busy < self.workers:
            self._begin(future)
        else:
            self.queue.append(future)
        await future

    def staff(self, workers: int) -> None:
        """Set how many workers take requests; those at work finish what they have."""
        self.workers = workers
        self._take()

    def _begin(self, future: asyncio.Future[None]) -> None:
        self.busy += 1
        self.loop.call_later(self.chance.expovariate(1 / SERVICE), self._end, future)

    def _end(self, future: asyncio.Future[None]) -> None:
        self.busy -= 1
        if not future.done():
            future.set_result(None)
        self._take()

    def _take(self) -> None:
        while self.queue and self.busy < self.workers:
            self._begin(self.queue.popleft())


class FlakyServer:
    """Any number of requests at once, of which a share fails at random; each way takes Exp(10 ms)."""

    def __init__(self, chance: random.Random, error_rate: float) -> None:
        self.chance = chance
        self.error_rate = error_rate
        self.requests = 0

    async def answer(self) -> None:
        """Answer one request, or fail."""
        self.requests += 1
        await asyncio.sleep(self.chance.expovariate(100.0) + self.chance.expovariate(100.0))
        if self.chance.random() < self.error_rate:
            raise ConnectionResetError


class Load:
    """Calls of clients to a server, from the start of the running loop on."""

    def __init__(self, make: Client, clients: int, rate: float, seconds: int, server: Any, seed: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.start = self.loop.time()
        self.chance = random.Random(f"calls {seed}")
        self.pipelines = [make(f"client-{number}") for number in range(clients)]
        self.rate = rate
        self.seconds = seconds
        self.server = server
        self.calls = [0] * seconds
        self.good = [0] * seconds
        self.attempts: list[int] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.over = self.loop.create_future()

    async def run(self) -> None:
        """Make the calls, and wait until the last one has ended."""
        for second in range(self.seconds):
            self.loop.call_at(self.start + second + 1, self._count)
        self._next(self.start)
        await self.over
        while self.tasks:
            await asyncio.wait(self.tasks)

    def _next(self, now: float) -> None:
        at = now + self.chance.expovariate(self.rate)
        if at < self.start + self.seconds:
            self.loop.call_at(at, self._begin, at)
        else:
            self.loop.call_at(self.start + self.seconds, self.over.set_result, None)

    def _begin(self, now: float) -> None:
        pipeline = self.pipelines[int(self.chance.random() * len(self.pipelines))]
        task = self.loop.create_task(self._call(pipeline, int(now - self.start)))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        self._next(now)

    async def _call(self, pipeline: Pipeline[Any], second: int) -> None:
        self.calls[second] += 1
        try:
            await pipeline.acall(self.server.answer)
        except (ConnectionError, DeadlineExceededError, RejectedError):
            return
        self.good[second] += 1

    def _count(self) -> None:
        self.attempts.append(self.server.requests - sum(self.attempts))


@contextmanager
def quick() -> Generator[None]:
    """Log nothing, and do not collect garbage in between: a simulation leaves little, and has much that lives."""
    level, collects = logger.level, gc.isenabled()
    logger.setLevel(logging.CRITICAL)
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
        logger.setLevel(level)


def _simulate(main: Callable[[], Coroutine[Any, Any, Outcome]], seed: int) -> Outcome:
    with fixed_time(), seeded(seed), quick(), asyncio.Runner(loop_factory=SimulationLoop) as runner:
        return runner.run(main())


@functools.cache
def fall(make: Client, seconds: int, seed: int, *, clients: int = 30, after: int = 40) -> Outcome:
    """Have the capacity fall for some seconds.

    Args:
        make: makes the pipeline of a client.
        seconds: how long it falls, after BEFORE.
        seed: that of the calls, the server, and the jitter. The calls of two pipelines are the same.
        clients: how many share the load.
        after: how long calls go on after that.
    """

    async def main() -> Outcome:
        loop = asyncio.get_running_loop()
        server = Server(loop, random.Random(f"server {seed}"))
        load = Load(make, clients, RATE, BEFORE + seconds + after, server, seed)
        loop.call_at(load.start + BEFORE, server.staff, round(REMAINING * WORKERS))
        loop.call_at(load.start + BEFORE + seconds, server.staff, WORKERS)
        await load.run()
        return Outcome(BEFORE + seconds, load.calls, load.good, load.attempts)

    return _simulate(main, seed)


@functools.cache
def errors(make: Client, error_rate: float, seed: int) -> Outcome:
    """Have 100 clients make 10 calls a second each, for 10 s, to a server with this share of errors."""

    async def main() -> Outcome:
        server = FlakyServer(random.Random(f"server {seed}"), error_rate)
        load = Load(make, 100, 1000.0, 10, server, seed)
        await load.run()
        return Outcome(0, load.calls, load.good, [server.requests])

    return _simulate(main, seed)
