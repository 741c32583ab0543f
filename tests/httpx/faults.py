"""What comes of each fault of a server: the rows of the table in docs/httpx-faults.md, and how they are found.

`python -m tests.httpx.faults` prints the table.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import trio

from resilience import Bulkhead, CircuitBreaker, DeadlineExceededError, Pipeline, Retry, Timeout, backoff
from resilience._util.clock import clock
from resilience.httpx import attach
from resilience.testing import FaultyServer

PAGE: Final = Path(__file__).parents[2] / "docs" / "httpx-faults.md"
TOTAL: Final = 2.0
"""The deadline of a call, in seconds."""
ATTEMPT: Final = 0.3
"""The timeout of an attempt, in seconds."""
SLACK: Final = 0.4
DATE: Final = "header=Date: Fri, 27 Nov 2026 12:00:00 GMT"
FAULTS: Final = {
    "a port that refuses": "refused",
    "a port that accepts, and is silent": "silent",
    "accepted, and closed at once": "closed-at-once",
    "the request was read, then reset": "/reset",
    "the request was read, then closed": "/close",
    "no answer": "/stall",
    "half a status line": "/half-status",
    "half a header": "/half-headers",
    "a head, and no body": "/headers-stall",
    "a head that drips": "/head-drip?interval=0.02",
    "103 without end": "/hints-forever?interval=0.02",
    "103, then 200": "/early-hints",
    "a short body": "/short-body",
    "a short body, then reset": "/short-body-reset",
    "a chunk that is cut": "/chunk-cut",
    "a bad chunk": "/chunk-bad",
    "a body that drips": "/drip?interval=0.05&size=1000",
    "a 503 whose body drips": "/drip-503?interval=0.05&size=1000",
    "bad gzip": "/bad-gzip",
    "bytes beyond Content-Length": "/long-body",
    "503 before the request was read": "/early-503",
    "a redirect to itself": "/redirect-loop",
    "500": "/500",
    "502": "/502",
    "503": "/503",
    "504": "/504",
    "503, Retry-After in the past": f"/503?{DATE}&retry-after=Fri, 01 Jan 2021 00:00:00 GMT",
    "503, Retry-After: garbage": "/503?retry-after=soon",
    "503, Retry-After: -1": "/503?retry-after=-1",
    "503, Retry-After: 1, 7": "/503?retry-after=1, 7",
    "503, Retry-After: 1000000000": "/503?retry-after=1000000000",
    "503, Retry-After of 400 digits": "/503?retry-after=" + "9" * 400,
    "503, x-should-retry: false": "/503?header=x-should-retry: false",
    "404, x-should-retry: true": "/404?header=x-should-retry: true",
    "404": "/404",
    "408": "/408",
    "409": "/409",
    "425": "/425",
    "429": "/429",
    "429, Retry-After far ahead": f"/429?{DATE}&retry-after=Sat, 01 Jan 2124 00:00:00 GMT",
    "429, retry-after-ms: 10": "/429?header=retry-after-ms: 10",
    "429, RateLimit with nothing left": '/429?header=RateLimit: "default";r=0;t=90',
    "521": "/521",
    "529": "/529",
    "kept alive, then closed": "/keepalive-close?delay=0",
    "kept alive, then reset": "/keepalive-reset?delay=0",
    "kept alive, then 408": "/408-idle?delay=0",
    "once reset, then well": "/fail-then-ok?failures=1&fault=reset",
    "once 503, then well": "/fail-then-ok?failures=1&fault=503",
    "once 429, then well": "/fail-then-ok?failures=1&fault=429",
    "HTTP/2: REFUSED_STREAM": "h2/refuse-stream?failures=9",
    "HTTP/2: RST_STREAM": "h2/reset-stream?failures=9",
    "HTTP/2: GOAWAY, then well": "h2/goaway",
    "HTTP/2: no answer": "h2/stall",
}
"""The faults by their description: a path of FaultyServer."""
RESENT: Final = frozenset(
    {
        "a port that refuses",
        "429",
        "429, retry-after-ms: 10",
        "521",
        "529",
        "a redirect to itself",
        "once 429, then well",
        "HTTP/2: REFUSED_STREAM",
        "HTTP/2: GOAWAY, then well",
    }
)
"""The faults after which even a POST may be sent again, since it was certainly not processed."""
METHODS: Final = ("GET", "POST")


@dataclass(frozen=True)
class Found:
    """What came of one call.

    Attributes:
        outcome: the status, or the error, and the number of attempts if there were several.
        seconds: how long it took.
        received: how often the server has received the request.
        in_flight: the permits that are still held.
        next_status: the status of the next request through the same pool, which has one connection.
    """

    outcome: str
    seconds: float
    received: int
    in_flight: int
    next_status: int


class Servers:
    """The servers that misbehave, for as long as a block lasts."""

    def __enter__(self) -> Servers:
        self.server = FaultyServer().__enter__()
        return self

    def __exit__(self, *details: Any) -> None:
        self.server.__exit__(None, None, None)

    def call(self, fault: str, method: str, way: str, module: Any = httpx) -> Found:
        """Make a call that meets a fault, and another one after it."""
        server = self.server
        server.clear()
        is_http2 = fault.startswith("h2/")
        base = server.http2_url if is_http2 else server.url
        ports = {
            "refused": server.refused_url,
            "silent": server.silent_url,
            "reset-at-once": server.accept_reset_url,
            "closed-at-once": server.accept_close_url,
        }
        url = ports.get(fault) or base + fault.removeprefix("h2")
        bulkhead = Bulkhead(1)
        pipeline: Pipeline[Any] = Pipeline(
            Timeout(TOTAL), Retry(2, wait=backoff.none()), bulkhead, CircuitBreaker(), Timeout(ATTEMPT)
        )
        settings: dict[str, Any] = {
            "limits": module.Limits(max_connections=1),
            "timeout": 10.0,
            "http1": not is_http2,
            "http2": is_http2,
            "follow_redirects": True,
        }
        attempts: list[object] = []
        pipeline.subscribe(attempts.append, events=_attempts())
        started = clock.monotonic()
        seconds: list[float] = []
        in_flight: list[int] = []

        def outcome(ask: Callable[[], Any]) -> str:
            try:
                return str(ask().status_code)
            except module.HTTPError as error:
                return _name(error)
            finally:
                seconds.append(clock.monotonic() - started)

        async def aoutcome(asking: Awaitable[Any]) -> str:
            try:
                return str((await asking).status_code)
            except module.HTTPError as error:
                return _name(error)
            finally:
                seconds.append(clock.monotonic() - started)

        after = f"{base}/ok"

        async def main() -> tuple[str, int]:
            async with attach(module.AsyncClient(**settings), pipeline) as client:
                found = await aoutcome(client.request(method, url))
                made.append(len(attempts))
                in_flight.append(bulkhead.in_flight)
                return found, (await client.get(after)).status_code

        made: list[int] = []
        if way == "sync":
            with attach(module.Client(**settings), pipeline) as client:
                found = outcome(lambda: client.request(method, url))
                made.append(len(attempts))
                in_flight.append(bulkhead.in_flight)
                following = client.get(after).status_code
        else:
            found, following = asyncio.run(main()) if way == "asyncio" else trio.run(main)
        received = sum(one.path != "/ok" for one in server.requests)
        return Found(_counted(found, made[0]), seconds[0], received, in_flight[0], following)


def _attempts() -> list[Any]:
    from resilience.events import AttemptEnded

    return [AttemptEnded]


def _name(error: Exception) -> str:
    return "DeadlineExceededError" if isinstance(error, DeadlineExceededError) else type(error).__name__


def _counted(outcome: str, attempts: int) -> str:
    return outcome if attempts == 1 else f"{outcome}, {attempts} attempts"


def documented() -> dict[str, tuple[str, str]]:
    """Return the outcomes of GET and POST for each fault in the page."""
    rows = [line.strip("| \n").split(" | ") for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")]
    return {row[0].strip(): (row[1].strip(), row[2].strip()) for row in rows if row[0].strip() in FAULTS}


def table() -> str:
    """Return the table of what comes of each fault, as a plain client sees it."""
    lines = ["| the server | GET | POST |", "|---|---|---|"]
    with Servers() as servers:
        for name, fault in FAULTS.items():
            cells = [servers.call(fault, method, "sync").outcome for method in METHODS]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
