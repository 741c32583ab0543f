"""The workers of a service, as arithmetic, and the record of what arrived and what was done."""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from resilience._demo.script import BIN, DAY, Arm, Phase


@dataclass(frozen=True)
class Verdict:
    """What becomes of a request.

    Attributes:
        wait: the seconds until its work is done, its time in the queue included.
        refused: whether it is refused at once, so that no work is done.
        reset: whether the connection is reset when the work is done.
        life: the number of the life of the service that it belongs to.
    """

    wait: float
    refused: bool = False
    reset: bool = False
    life: int = 0


class Share:
    """The part of a service that serves one arm: its workers, its queue, and what it saw."""

    def __init__(self) -> None:
        self._free_at: list[float] = []
        self._starts: deque[float] = deque()
        self.times = Counter[int]()
        """How often each call arrived, by its number."""
        self.phases = Counter[str]()
        """What arrived in each phase: requests, and while the service was dead, connections."""
        self.bins = Counter[int]()
        """The same for each half second."""
        self.orders = Counter[int]()
        """How often each order was carried out, by its number."""

    def enter(self, phase: Phase) -> None:
        """Begin a phase: work that was taken on before is still to be done first, unless the service dies."""
        if not phase.alive:
            self._free_at = []
            self._starts.clear()
        latest = heapq.nlargest(phase.workers, self._free_at)
        self._free_at = sorted([*latest, *[0.0] * (phase.workers - len(latest))])

    def take(self, now: float, seconds: float, queue: int) -> float | None:
        """Give a request to the next free worker; returns the seconds until it is done, None if the queue is full."""
        while self._starts and self._starts[0] <= now:
            self._starts.popleft()
        if self._free_at[0] > now and len(self._starts) >= queue:
            return None
        begin = max(now, self._free_at[0])
        heapq.heapreplace(self._free_at, begin + seconds)
        if begin > now:
            self._starts.append(begin)
        return begin + seconds - now


class Workers:
    """Decides what becomes of each request, and counts.

    Args:
        name: the name of the service.
        seed: of the random numbers. A call takes as long and meets the same resets in each arm: its numbers come from
            its own number, and how often it has arrived.
        now: the clock.
    """

    def __init__(self, name: str, seed: int, now: Callable[[], float]) -> None:
        self._key = f"{name} {seed}"
        self._now = now
        self._began = now()
        self._life = 0
        self._shares = {arm: Share() for arm in Arm}
        self._phase = DAY[0]
        self.enter(DAY[0])

    def begin(self) -> None:
        """Take this moment for the start of the load."""
        self._began = self._now()

    def enter(self, phase: Phase) -> None:
        """Begin a phase."""
        self._phase = phase
        if not phase.alive:
            self._life += 1
        for share in self._shares.values():
            share.enter(phase)

    def arrive(self, arm: Arm, call: int) -> Verdict:
        """Count a request, and decide what becomes of it."""
        phase, share = self._phase, self._shares[arm]
        self.count(arm)
        share.times[call] += 1
        chance = random.Random(f"{self._key} {call} {share.times[call]}")
        wait = share.take(self._now(), chance.uniform(*phase.work), phase.queue)
        if wait is None:
            return Verdict(0.0, refused=True, life=self._life)
        return Verdict(wait, reset=chance.random() < phase.resets, life=self._life)

    def count(self, arm: Arm) -> None:
        """Count a request, or a connection to a dead service."""
        share = self._shares[arm]
        share.phases[self._phase.name] += 1
        share.bins[int((self._now() - self._began) / BIN)] += 1

    def finish(self, arm: Arm, call: int, verdict: Verdict, *, order: bool) -> bool:
        """Carry out the work of a request; False: the service died meanwhile, and nothing was done."""
        if verdict.life != self._life:
            return False
        if order:
            self._shares[arm].orders[call] += 1
        return True

    def report(self) -> dict[str, Any]:
        """Return what was seen and done, by arm, as JSON can have it."""
        return {
            str(arm): {
                "phases": dict(share.phases),
                "bins": {str(at): number for at, number in share.bins.items()},
                "orders": sum(share.orders.values()),
                "doubled": sum(times > 1 for times in share.orders.values()),
            }
            for arm, share in self._shares.items()
        }
