"""A flaky function guarded by a pipeline, sync and async: what happened, as a table. Run by `dev.py demo`."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

from resilience import AttemptEnded, CallEnded, Pipeline, Retry, RetryGivenUp, RetryScheduled, backoff
from resilience.testing import virtual_time

CALLS = 200
FAILURE_RATE = 0.3


def main() -> None:
    """Make the calls and print the table. Waits between attempts pass in virtual time."""
    chance = random.Random(7)
    seen: dict[str, Counter[str]] = {"sync": Counter(), "async": Counter()}
    rows: list[tuple[str, ...]] = []

    def fetch_quote(symbol: str, how: str) -> str:
        seen[how]["calls of the dependency"] += 1
        if chance.random() < FAILURE_RATE:
            raise ConnectionError("the quote service hung up")
        return f"{symbol}: 42"

    async def fetch_quote_async(symbol: str, how: str) -> str:
        return fetch_quote(symbol, how)

    with virtual_time() as clock:
        for how in seen:
            quotes = Pipeline(Retry(3, wait=backoff.full_jitter(0.1)), name=f"quotes-{how}")
            count = seen[how]

            def tally(event: Any, count: Counter[str] = count) -> None:
                count[type(event).__name__] += 1
                if isinstance(event, CallEnded):
                    count[f"call {event.outcome}"] += 1

            before = clock.elapsed
            with quotes.subscribe(tally, events=(AttemptEnded, CallEnded, RetryScheduled, RetryGivenUp)):
                for _ in range(CALLS):
                    try:
                        if how == "sync":
                            quotes.call(fetch_quote, "ACME", how)
                        else:
                            asyncio.run(quotes.acall(fetch_quote_async, "ACME", how))
                    except ConnectionError:
                        count["errors that came out"] += 1
            assert count["AttemptEnded"] == count["calls of the dependency"]
            assert count["call failed"] == count["errors that came out"]
            budget = quotes.snapshot()["budget"]["tokens"]
            rows.append((
                how, str(CALLS), str(count["call ok"]), str(count["calls of the dependency"]),
                str(count["RetryScheduled"]), str(count["RetryGivenUp"]), f"{clock.elapsed - before:.1f} s",
                f"{budget:.1f}",
            ))  # fmt: skip
    head = ("", "calls", "ok", "attempts", "retries", "given up", "waited", "budget left")
    print(f"{CALLS} calls of a function that fails {FAILURE_RATE:.0%} of the time, without a guard and with one:\n")
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in [head, *rows]:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


if __name__ == "__main__":
    main()
