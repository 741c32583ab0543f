"""Hedging does for a fan-out what Dean and Barroso published: "The Tail at Scale", CACM 56(2), 2013.

A request reads 1,000 keys in parallel, and takes as long as the slowest. One key answers within 10 ms with probability
0.98, and has a long tail. With another attempt after 10 ms, the 99.9th percentile of the whole request falls from about
1,900 ms to about 75 ms, at about 2 % more load.
"""

from __future__ import annotations

import asyncio
import functools
import math
import random

import pytest

from resilience import Hedge, Pipeline
from resilience.testing import virtual_time

pytestmark = pytest.mark.no_cover  # simulations, which take three times as long with it

KEYS = 1000
DELAY = 0.010
TAIL = [(2e-2, 0.010), (1e-3, 0.069), (1e-6, 1.800)]
"""The probability that a key takes longer than so many seconds. Between and beyond, it is linear on log-log scales."""
FAN_OUTS = 1500


def quantile_of_key(beyond: float) -> float:
    """Return the seconds that a key exceeds with this probability, at most 0.02."""
    first, second = TAIL[:2] if beyond > TAIL[1][0] else TAIL[1:]
    slope = math.log(second[1] / first[1]) / math.log(second[0] / first[0])
    return float(first[1] * (beyond / first[0]) ** slope)


def slow(chance: random.Random) -> float:
    """Return the time of a key, given that it takes longer than the delay."""
    return quantile_of_key(TAIL[0][0] * (1.0 - chance.random()))


def anything(chance: random.Random) -> float:
    """Return the time of a key. What is below the delay is as good as the delay."""
    return slow(chance) if chance.random() < TAIL[0][0] else DELAY


def percentile(times: list[float]) -> float:
    """Return the 99.9th percentile."""
    return sorted(times)[math.ceil(0.999 * len(times)) - 1]


def unhedged() -> float:
    """Return the 99.9th percentile of a request without hedging: the greatest of 1,000 times is drawn by formula."""
    chance = random.Random(1)
    return percentile([quantile_of_key(-math.expm1(math.log(1.0 - chance.random()) / KEYS)) for _ in range(100_000)])


@functools.cache
def hedged(slow_everywhere: float) -> tuple[float, float]:
    """Return the 99.9th percentile of a request with hedging, and the share of keys that were read twice.

    Args:
        slow_everywhere: the share of the slow keys that take as long on the other replica, too.
    """
    chance = random.Random(2)
    reads = 0
    times: list[float] = []

    async def read() -> None:
        nonlocal reads
        reads += 1
        if not drawn:
            drawn.append(slow(chance))
        elif chance.random() < slow_everywhere:
            drawn.append(drawn[0])
        else:
            drawn.append(anything(chance))
        await asyncio.sleep(drawn[-1])

    drawn: list[float] = []
    guarded = Pipeline(Hedge(DELAY, budget=None)).bind(idempotent=True)(read)

    async def main() -> None:
        for _ in range(FAN_OUTS):
            longest = DELAY
            for _ in range(sum(chance.random() < TAIL[0][0] for _ in range(KEYS))):
                drawn.clear()
                begun = clock.monotonic()
                await guarded()
                longest = max(longest, clock.monotonic() - begun)
            times.append(longest)

    with virtual_time() as clock:
        asyncio.run(main())
    return percentile(times), reads / 2 / FAN_OUTS / KEYS


@pytest.mark.slow
def test_a_second_attempt_after_10_ms_cuts_the_tail_at_two_percent_more_load() -> None:
    before = unhedged()
    after, more = hedged(0.0)

    assert before == pytest.approx(1.9, rel=0.15)
    assert after == pytest.approx(0.075, rel=0.2)
    assert more == pytest.approx(0.02, rel=0.05)


@pytest.mark.slow
def test_it_helps_less_where_a_tenth_of_the_slow_keys_are_slow_on_every_replica() -> None:
    after, _ = hedged(0.1)

    assert 5 * hedged(0.0)[0] < after < unhedged() / 2
