"""The load: the same calls from both clients, at a fixed rate, whatever comes back."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from docs.examples.bad_minute.clients import GrpcClients, HttpClients
from docs.examples.bad_minute.ledger import Call, Ledger
from docs.examples.bad_minute.script import (
    ATTEMPT_TIMEOUT,
    ATTEMPTS,
    CALL_TIMEOUT,
    GUARDED,
    NAIVE,
    RATE,
    SAFE_SHARE,
    SCRIPT,
    Phase,
)

INTERVAL = 1.0 / RATE
THREADS = int(RATE * (CALL_TIMEOUT + ATTEMPTS * ATTEMPT_TIMEOUT))  # more than can be busy at that rate


@dataclass
class Stage:
    """Where the show is at the moment."""

    phase: Phase = SCRIPT[0]
    over: bool = False
    began: float = field(default_factory=time.monotonic)

    def seconds(self) -> float:
        """Return how long the show has been running."""
        return time.monotonic() - self.began


@dataclass(frozen=True)
class Order:
    """A call that is to be made, by whom, and when."""

    client: str
    safe: bool
    due: float

    def wait(self) -> float:
        """Return the seconds until it is due."""
        return max(0.0, self.due - time.monotonic())

    def begin(self, ledger: Ledger, stage: Stage) -> Call:
        """Open the call's page in the ledger."""
        return ledger.new_call(self.client, stage.phase, safe=self.safe, due=self.due)


def orders(seed: int) -> Iterator[Order]:
    """Yield calls for ever: what one client asks for, the other asks for half an interval later."""
    chance = random.Random(seed)
    due = time.monotonic()
    while True:
        safe = chance.random() < SAFE_SHARE
        yield Order(GUARDED, safe, due)
        yield Order(NAIVE, safe, due + INTERVAL / 2)
        due += INTERVAL


async def load_http(clients: HttpClients, ledger: Ledger, stage: Stage) -> None:
    """Make calls until the show is over, each in a task of its own."""
    ways = {GUARDED: clients.guarded, NAIVE: clients.naive}

    async def make(order: Order) -> None:
        await ways[order.client](order.begin(ledger, stage))

    async with asyncio.TaskGroup() as tasks:
        for order in orders(seed=3):
            await asyncio.sleep(order.wait())
            if stage.over:
                break
            tasks.create_task(make(order))


def load_grpc(clients: GrpcClients, ledger: Ledger, stage: Stage) -> None:
    """Make calls until the show is over, each on a thread."""
    ways = {GUARDED: clients.guarded, NAIVE: clients.naive}

    def make(order: Order) -> None:
        ways[order.client](order.begin(ledger, stage))

    with ThreadPoolExecutor(THREADS) as guarded, ThreadPoolExecutor(THREADS) as naive:
        threads = {GUARDED: guarded, NAIVE: naive}
        made = []
        for order in orders(seed=4):
            time.sleep(order.wait())
            if stage.over:
                break
            made.append(threads[order.client].submit(make, order))
        for one in made:
            one.result()
