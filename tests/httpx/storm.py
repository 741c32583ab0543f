"""What the storms have in common: the pipeline, the requests, and what must hold afterwards."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from resilience import Bulkhead, Pipeline, Retry, Timeout, backoff
from resilience.httpx import attach
from tests.httpx.server import Server
from tests.support.timing import Stalls, at_most

WHOLE = 0.6
ATTEMPT = 0.25
SLOTS = 4
PATIENCE = 60.0


@dataclass
class Storm:
    """Requests at random through a pool of four."""

    server: Server
    module: ModuleType
    bulkhead: Bulkhead = field(default_factory=lambda: Bulkhead(16, queue=64, max_wait=WHOLE))
    ended: Counter[str] = field(default_factory=Counter[str])
    late: list[float] = field(default_factory=list[float])
    posts: list[str] = field(default_factory=list[str])
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.stalls = Stalls()
        self.pipeline: Pipeline[Any] = Pipeline(
            Timeout(WHOLE),
            Retry(3, wait=backoff.full_jitter(0.01, cap=0.05), budget=None),
            self.bulkhead,
            Timeout(ATTEMPT),
        )

    def client(self, kind: str) -> Any:
        limits = self.module.Limits(max_connections=SLOTS)
        return attach(getattr(self.module, kind)(limits=limits, timeout=5.0, base_url=self.server.url), self.pipeline)

    def request(self, number: int, chance: random.Random) -> dict[str, Any]:
        """The arguments of a request: every third is a POST with an identity of its own."""
        name = f"{number}-{chance.random()}"
        if number % 3:
            return {"method": "GET", "url": "/", "headers": {"x-id": f"get-{name}"}}
        self.posts.append(f"post-{name}")
        return {"method": "POST", "url": "/", "headers": {"x-id": f"post-{name}"}, "content": b"order"}

    def note(self, outcome: object, started: float) -> None:
        elapsed = time.monotonic() - started
        with self.lock:
            self.ended[type(outcome).__name__ if isinstance(outcome, Exception) else str(outcome)] += 1
            if elapsed > at_most(WHOLE):
                self.late.append(elapsed)

    def check(self) -> None:
        """What must hold; then let those that test the pool take their time."""
        print(dict(self.ended), dict(self.server.answered))
        self.stalls.stop()
        assert [seconds for seconds in self.late if seconds > at_most(WHOLE) + self.stalls.worst] == []
        assert [name for name in self.posts if self.server.seen[name] > 1] == []
        assert self.bulkhead.snapshot()["in_flight"] == self.bulkhead.queued == 0
        assert self.pipeline.snapshot()["in_flight"] == 0
        self.pipeline["timeout"].update(seconds=PATIENCE)
        self.pipeline["timeout_2"].update(seconds=PATIENCE / 2)
