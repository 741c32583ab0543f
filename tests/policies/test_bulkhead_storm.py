"""No permit of a bulkhead is lost in a storm of calls that are cancelled and time out."""

from __future__ import annotations

import random
import threading

import pytest

from resilience import Bulkhead
from tests.support.storm import ENOUGH, LIMIT, ROOM, Storm


@pytest.mark.slow
def test_a_storm_loses_no_permit() -> None:
    bulkhead = Bulkhead(LIMIT, queue=ROOM, max_wait=0.001)
    storm = Storm(bulkhead)
    storm.rage()
    print(dict(storm.ended))

    assert storm.ended["cancelled"] + storm.ended["queue_timeout"] >= ENOUGH
    assert bulkhead.snapshot() == {"in_flight": 0, "queued": 0, "limit": LIMIT, "peak": LIMIT}
    assert (storm.inside, storm.most) == (0, LIMIT)
    assert storm.pipeline.snapshot()["in_flight"] == 0


@pytest.mark.slow
def test_a_storm_loses_no_permit_while_the_limit_moves() -> None:
    bulkhead = Bulkhead(LIMIT, queue=ROOM, max_wait=0.001)
    storm = Storm(bulkhead)

    def move() -> None:
        chance = random.Random(300)
        pause = threading.Event()
        while not storm.over:
            bulkhead.update(limit=chance.randint(1, LIMIT))
            pause.wait(0.001)

    storm.rage(move)
    print(dict(storm.ended))

    assert (bulkhead.in_flight, bulkhead.queued, storm.inside) == (0, 0, 0)
    assert storm.most <= bulkhead.peak <= LIMIT
    bulkhead.update(limit=LIMIT)
    assert storm.pipeline.call(lambda: bulkhead.in_flight) == 1
