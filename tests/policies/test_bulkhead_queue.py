"""The queue of a bulkhead: its order across threads, asyncio and trio, and the longest wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial

import anyio
import anyio.lowlevel
import pytest
import trio

from resilience import BulkheadFullError, DeadlineExceededError, Pipeline
from resilience._policies.bulkhead import Bulkhead
from resilience.testing import Recorder, virtual_time
from tests.policies.helpers import LONG, PATIENCE, admitted, idle, in_thread, joined, reasons
from tests.support.policies import Hurry
from tests.support.threads import wait_until


def test_the_queue_is_served_in_order_across_threads_asyncio_and_trio() -> None:
    bulkhead = Bulkhead(1, queue=20, max_wait=LONG)
    pipeline = Pipeline(bulkhead)
    served: list[int] = []
    release = threading.Event()

    async def note(number: int) -> None:
        await anyio.lowlevel.checkpoint()
        served.append(number)

    def has_queued(calls: int) -> bool:
        return bulkhead.queued == calls

    ways: list[Callable[[int], object]] = [
        lambda number: pipeline.call(served.append, number),
        lambda number: asyncio.run(pipeline(note)(number)),
        lambda number: trio.run(pipeline(note), number),
    ]
    threads = [in_thread(lambda: pipeline.call(release.wait, PATIENCE))]
    wait_until(lambda: bulkhead.in_flight == 1)
    for number in range(9):
        threads.append(in_thread(partial(ways[number % 3], number)))
        wait_until(partial(has_queued, number + 1))
    release.set()
    joined(*threads)

    assert served == list(range(9))
    assert idle(bulkhead)
    assert bulkhead.peak == 1


def test_a_thread_waits_no_longer_than_max_wait() -> None:
    bulkhead = Bulkhead(1, queue=1, max_wait=0.2)
    pipeline = Pipeline(bulkhead, name="bulkhead-in-vain")
    with virtual_time() as clock, Recorder(pipeline) as recorder:
        admitted(bulkhead)
        with pytest.raises(BulkheadFullError, match=r"the longest wait for one, 0\.2 s, is over") as caught:
            pipeline.call(int)
        assert clock.elapsed == pytest.approx(0.2)

    assert (caught.value.reason, caught.value.policy) == ("queue_timeout", "bulkhead")
    assert reasons(recorder) == ["queue_timeout"]
    assert (bulkhead.in_flight, bulkhead.queued) == (1, 0)


@pytest.mark.parametrize(("seconds", "error"), [(0.1, DeadlineExceededError), (0.3, BulkheadFullError)])
def test_what_runs_out_first_is_named(seconds: float, error: type[Exception]) -> None:
    bulkhead = Bulkhead(1, queue=1, max_wait=0.2)
    admitted(bulkhead)
    with virtual_time() as clock, pytest.raises(error) as caught:
        Pipeline(Hurry(seconds), bulkhead).call(int)

    assert getattr(caught.value, "unprocessed", False)
    assert clock.elapsed == pytest.approx(min(seconds, 0.2))
    assert (bulkhead.in_flight, bulkhead.queued) == (1, 0)
