"""What both services have in common: their workers, as arithmetic, and the book of what was seen and done."""

from __future__ import annotations

import heapq
import random
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

from docs.examples.bad_minute.script import CLIENTS, SCRIPT, Phase


@dataclass(frozen=True)
class Verdict:
    """What becomes of a request: refused at once, or done after `wait` seconds, perhaps with its answer lost."""

    wait: float
    busy: bool = False
    reset: bool = False


class Desk:
    """Takes requests, decides what becomes of each, and counts. The services do the waiting and the answering."""

    def __init__(self, seed: int) -> None:
        self._lock = threading.Lock()
        self._chance = random.Random(seed)
        self._arrived = Counter[str]()
        self._done = Counter[str]()
        self.enter(SCRIPT[0])

    def enter(self, phase: Phase) -> None:
        """Begin a phase. Work that was taken on before is still to be done first, unless the service dies."""
        with self._lock:
            self._phase = phase
            if not phase.alive or not hasattr(self, "_free_at"):
                self._free_at: dict[str, list[float]] = {client: [] for client in CLIENTS}
                self._starts: dict[str, deque[float]] = {client: deque() for client in CLIENTS}
            for client, busy in self._free_at.items():
                last = heapq.nlargest(phase.workers, busy)
                self._free_at[client] = sorted([*last, *[0.0] * (phase.workers - len(last))])

    def arrive(self, attempt: str) -> Verdict:
        """Count an attempt, which is called "client-number-number", and say what becomes of it."""
        now = time.monotonic()
        client = attempt.partition("-")[0]
        with self._lock:
            self._arrived[attempt] += 1
            free_at, starts = self._free_at[client], self._starts[client]
            while starts and starts[0] <= now:
                starts.popleft()
            if free_at[0] > now and len(starts) >= self._phase.queue:
                return Verdict(0.0, busy=True)
            begin = max(now, free_at[0])
            end = begin + self._chance.uniform(*self._phase.work)
            heapq.heapreplace(free_at, end)
            if begin > now:
                starts.append(begin)
            return Verdict(end - now, reset=self._chance.random() < self._phase.resets)

    def done(self, attempt: str) -> None:
        """Note that the work of an attempt was done, whatever becomes of the answer."""
        with self._lock:
            self._done[attempt] += 1

    def report(self) -> dict[str, Any]:
        """Return how often each attempt arrived, and how often its work was done."""
        with self._lock:
            return {"arrived": dict(self._arrived), "done": dict(self._done)}
