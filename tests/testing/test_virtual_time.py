"""Virtual time and seeded chance, in threads, asyncio and trio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio

from resilience import Pipeline, RejectedError, Retry, backoff
from resilience._util.clock import clock
from resilience.testing import VirtualLoop, reset, seeded, virtual_loop, virtual_time
from tests.support.functions import down
from tests.support.functions import down as fail
from tests.support.loops import LOOPS
from tests.support.turnstile import Turnstile


@pytest.mark.filterwarnings("ignore:there are two pipelines")
@pytest.mark.parametrize("run", LOOPS)
def test_retry_waits_take_virtual_time_only(run: Callable[[Callable[[], Any]], Any]) -> None:
    attempts: dict[str, int] = {}

    async def fetch(who: str) -> str:
        attempts[who] = attempts.get(who, 0) + 1
        if attempts[who] < 3:
            raise ConnectionError
        order.append(who)
        return who

    order: list[str] = []

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(Pipeline(Retry(3, wait=backoff.fixed(100.0)), name="slow")(fetch), "slow")
            group.start_soon(Pipeline(Retry(3, wait=backoff.fixed(30.0)), name="quick")(fetch), "quick")

    with virtual_time() as clock:
        run(main)

    assert order == ["quick", "slow"]
    assert clock.elapsed == pytest.approx(200.0)


def test_a_virtual_loop_and_a_virtual_trio_clock_take_everything_along() -> None:
    with virtual_time() as clock:
        with asyncio.Runner(loop_factory=virtual_loop) as runner:
            assert isinstance(runner.get_loop(), VirtualLoop)
            runner.run(asyncio.sleep(3600))
        assert clock.elapsed == pytest.approx(3600.0)
        trio.run(trio.sleep, 3600, clock=clock.trio())
        assert clock.elapsed == pytest.approx(7200.0)
        gate = Turnstile()
        gate.take()

        async def main() -> None:
            with pytest.raises(RejectedError):
                await Pipeline(gate).acall(int)

        trio.run(main, clock=clock.trio())
        assert clock.elapsed == pytest.approx(7201.0)


def test_the_clock_is_moved_by_hand() -> None:
    with virtual_time() as clock:
        before = clock.monotonic()
        clock.advance(2.5)
        clock.jump(before)
        assert clock.monotonic() - before == 2.5
        for bad in (-1.0, float("nan"), float("inf")):
            with pytest.raises(ValueError, match="seconds must be a number >= 0"):
                clock.advance(bad)


def test_seeded_jitter_repeats_itself_and_reset_forgets() -> None:
    waits: list[list[float]] = []
    pipeline = Pipeline(Retry(3))
    for _ in range(2):
        with virtual_time() as clock, seeded(7), pytest.raises(ConnectionError):
            pipeline.call(fail)
        waits.append(clock.sleeps)
    assert waits[0] == waits[1]
    assert pipeline.snapshot()["budget"]["tokens"] == 6.0
    reset()
    assert pipeline.snapshot()["budget"]["tokens"] == 10.0


def test_virtual_times_may_overlap() -> None:
    before, chance = clock.time, clock.random
    first, second = virtual_time(), virtual_time()
    one, other = seeded(1), seeded(2)
    virtual = first.__enter__()
    another = second.__enter__()
    one.__enter__()
    other.__enter__()

    first.__exit__(None, None, None)
    one.__exit__(None, None, None)
    assert clock.time is another is not virtual
    second.__exit__(None, None, None)
    other.__exit__(None, None, None)

    assert clock.time is before
    assert clock.random is chance


def test_a_wait_in_a_queue_is_no_sleep() -> None:
    gate = Turnstile(patience=5)
    assert gate.take()

    async def main() -> None:
        with pytest.raises(RejectedError):
            await Pipeline(gate).acall(down)

    with virtual_time() as clock:
        asyncio.run(main())

    assert clock.sleeps == []
    assert clock.elapsed == pytest.approx(5)


def test_a_virtual_loop_outside_virtual_time_waits_for_real() -> None:
    from resilience.testing import virtual_loop

    loop = virtual_loop()
    try:
        turns: list[int] = []

        async def main() -> None:
            loop.call_later(0.05, lambda: None)
            waiter = loop.create_future()
            loop.call_later(0.05, waiter.set_result, None)
            selector: Any = vars(loop)["_selector"]
            select = selector.select

            def counted(timeout: float | None = None) -> Any:
                turns.append(1)
                return select(timeout)

            selector.select = counted
            await waiter

        loop.run_until_complete(main())
    finally:
        loop.close()

    assert len(turns) < 20
