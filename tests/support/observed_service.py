"""A service that has trouble with each of its dependencies, for what watches it.

It calls four dependencies, each through a pipeline: payments, which fail; a search, which is slow; an assistant, whose
quota is too small; and the stock, whose policies are in shadow mode. Nothing is sent anywhere: the dependencies are
coroutines that take their time. In virtual time, runs with the same seed are the same.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from resilience import (
    Allowlist,
    Bulkhead,
    CircuitBreaker,
    Cooldown,
    DeadlineExceededError,
    Failure,
    FailureKind,
    Fallback,
    Hedge,
    Pipeline,
    RateLimit,
    RejectedError,
    Retry,
    Timeout,
    standard,
)
from resilience._util.clock import clock

QUOTA_SECONDS = 60.0
"""Seconds after which the quota of the assistant is renewed."""


@dataclass(frozen=True)
class Conditions:
    """How the dependencies are, up to a moment.

    Attributes:
        until: the seconds since the start at which this ends.
        failing: the share of payments that fail.
        search: the mean duration of a search, in seconds.
        quota: the questions that the assistant answers in QUOTA_SECONDS.
        foreign: whether the SDK of the assistant repeats one request in ten by itself.
    """

    until: float
    failing: float = 0.0
    search: float = 0.02
    quota: int = 1000
    foreign: bool = False


class QuotaError(Exception):
    """A 429 with Retry-After."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after


LIMITED = Allowlist(
    QuotaError, when=lambda error: Failure(FailureKind.OVERLOAD, getattr(error, "retry_after", None), counted=False)
)


class ObservedService:
    """The service.

    Args:
        story: the conditions, one after the other.
        rate: by how much more calls there are than 20 a second.
        name: what the names of its pipelines begin with.
    """

    def __init__(self, story: Sequence[Conditions], rate: float = 1.0, name: str = "shop") -> None:
        self._story = story
        self._rate = rate
        self._chance = random.Random("an observed service")
        self._start = 0.0
        self._quota: tuple[float, int] = (-1.0, 0)
        self._tasks: set[asyncio.Task[Any]] = set()
        self.payments: Pipeline[Any] = standard(f"{name}-payments", timeout=2.0, attempt_timeout=0.5, limit=5)
        self.search: Pipeline[Any] = Pipeline(
            Fallback(value=None),
            Timeout(0.8),
            Hedge(0.1),
            Bulkhead(3, queue=3, max_wait=0.1),
            Timeout(0.4),
            name=f"{name}-search",
        )
        self.assistant: Pipeline[Any] = Pipeline(
            Timeout(40.0),
            RateLimit(4.0, burst=2, max_wait=2.0),
            Retry(2),
            Cooldown(),
            Timeout(5.0),
            failures=LIMITED,
            name=f"{name}-assistant",
        )
        self.stock: Pipeline[Any] = Pipeline(
            Timeout(1.0),
            RateLimit(2.5, max_wait=0.0, mode="shadow"),
            CircuitBreaker(mode="shadow"),
            name=f"{name}-stock",
        )

    @property
    def pipelines(self) -> list[Pipeline[Any]]:
        """Those that are to be measured."""
        return [self.payments, self.search, self.assistant, self.stock]

    def stop(self) -> None:
        """End the story."""
        self._story = ()

    async def run(self) -> None:
        """Make calls, until the story ends."""
        self._start = clock.monotonic()
        callers = [
            self._arrive(6.0, self.payments.bind(operation="pay"), self._pay),
            self._arrive(11.0, self.search.bind(operation="search", idempotent=True), self._search),
            self._arrive(1.5, self.assistant.bind(operation="ask"), self._ask),
            self._arrive(3.0, self.stock.bind(operation="count"), self._count),
        ]
        try:
            await asyncio.gather(*callers)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _now(self) -> Conditions | None:
        elapsed = clock.monotonic() - self._start
        return next((one for one in self._story if elapsed < one.until), None)

    async def _arrive(self, rate: float, pipeline: Any, function: Callable[[Conditions], Awaitable[None]]) -> None:
        """Begin calls at random moments, so many in a second."""
        while (conditions := self._now()) is not None:
            task = asyncio.create_task(self._call(pipeline, function, conditions))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            await asyncio.sleep(self._chance.expovariate(rate * self._rate))

    async def _call(self, pipeline: Any, function: Any, conditions: Conditions) -> None:
        with suppress(ConnectionError, DeadlineExceededError, QuotaError, RejectedError):
            await pipeline.acall(function, conditions)

    async def _take(self, mean: float) -> None:
        await asyncio.sleep(0.3 * mean + self._chance.expovariate(1.0 / (0.7 * mean)))

    async def _pay(self, conditions: Conditions) -> None:
        await self._take(0.03)
        if self._chance.random() < conditions.failing:
            raise ConnectionResetError

    async def _search(self, conditions: Conditions) -> None:
        await self._take(conditions.search)

    async def _count(self, conditions: Conditions) -> None:
        del conditions
        await self._take(0.01)

    async def _ask(self, conditions: Conditions) -> None:
        if conditions.foreign and self._chance.random() < 0.1:
            self.assistant.engine.info.count_foreign_retry()
        await self._take(0.2)
        elapsed = clock.monotonic() - self._start
        window = elapsed // QUOTA_SECONDS
        taken = self._quota[1] if self._quota[0] == window else 0
        if taken >= conditions.quota:
            raise QuotaError((window + 1.0) * QUOTA_SECONDS - elapsed)
        self._quota = window, taken + 1
