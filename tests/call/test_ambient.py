"""Tests of the ambient deadline: it holds as long as what has set it, in all contexts that have inherited it."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import anyio.to_thread
import pytest
import trio

from resilience import (
    DeadlineExceededError,
    Pipeline,
    Retry,
    Timeout,
    backoff,
    carry,
    deadline_after,
    detached,
    remaining,
)
from resilience._call.ambient import NOTHING, Ambient, ambient, ambient_deadline
from resilience._util.clock import FOREVER
from resilience.testing import VirtualClock, virtual_time
from tests.support.functions import Failing
from tests.support.loops import Run, each_loop


async def sleeps(seconds: float) -> str:
    await anyio.sleep(seconds)
    return "done"


class TestAmbient:
    def test_the_innermost_that_is_not_void_holds(self) -> None:
        outer = Ambient.make(9.0, NOTHING)
        inner = Ambient.make(5.0, outer)

        assert inner.holding() is inner
        inner.at = FOREVER
        assert inner.holding() is outer
        outer.at = FOREVER
        assert inner.holding().at == FOREVER

    def test_the_innermost_that_is_live_is_what_a_new_one_is_inside_of(self) -> None:
        outer = Ambient.make(9.0, NOTHING)
        middle = Ambient.make(FOREVER, outer)
        inner = Ambient.make(FOREVER, middle)

        assert list(inner.around()) == [inner, middle, outer]
        middle.live = False
        assert list(inner.around()) == [inner, outer]
        assert middle.innermost() is outer
        assert Ambient.make(FOREVER, middle.innermost()).outer is outer
        outer.live = False
        assert Ambient.make(FOREVER, middle.innermost()).outer is None

    def test_followers_are_called_once_when_it_becomes_void(self) -> None:
        called: list[str] = []
        deadline = Ambient.make(5.0, NOTHING)
        deadline.follow("a", lambda: called.append("a"))
        deadline.follow("b", lambda: called.append("b"))
        deadline.unfollow("b")
        deadline.unfollow("c")
        assert called == []

        deadline.at = FOREVER
        deadline.release()
        deadline.release()
        assert called == ["a"]
        deadline.follow("late", lambda: called.append("late"))
        assert called == ["a", "late"]

    def test_calls_one_after_another_keep_none_of_the_earlier_ones(self) -> None:
        def run() -> Ambient:
            for _ in range(10):
                Pipeline(Timeout(5)).call(str)
            return ambient.get()

        left = contextvars.copy_context().run(run)

        assert (left.at, left.live, left.outer) == (FOREVER, False, None)


@each_loop
def test_a_background_task_outlives_the_deadline_of_the_call_that_started_it(run: Run) -> None:
    """Such as the refresher of a client, which it starts with the first call."""
    refreshed: list[str] = []
    refresh = Pipeline(Timeout(1))

    async def refresher() -> None:
        for _ in range(3):
            refreshed.append(await refresh.acall(sleeps, 0.1))
            await anyio.sleep(0.3)

    async def main() -> None:
        async with anyio.create_task_group() as group:

            async def start() -> None:
                group.start_soon(refresher)

            await Pipeline(Timeout(0.2)).acall(start)

    run(main)

    assert refreshed == ["done"] * 3


@each_loop
def test_a_call_that_it_has_begun_by_then_is_not_cut(run: Run) -> None:
    results: list[str] = []

    async def background() -> None:
        results.append(await Pipeline(Timeout(5)).acall(sleeps, 1))
        results.append(await Pipeline().acall(sleeps, 1))

    async def main() -> None:
        async with anyio.create_task_group() as group:

            async def start() -> None:
                group.start_soon(background)
                await anyio.sleep(0.1)

            await Pipeline(Timeout(0.2)).acall(start)

    run(main)

    assert results == ["done", "done"]


@each_loop
def test_its_retries_go_on_too(run: Run) -> None:
    results: list[str] = []
    flaky = Failing(4)

    async def fetch() -> str:
        flaky()
        return "fetched"

    async def background() -> None:
        results.append(await Pipeline(Retry(9, wait=backoff.fixed(0.1))).acall(fetch))

    async def main() -> None:
        async with anyio.create_task_group() as group:

            async def start() -> None:
                group.start_soon(background)
                await anyio.sleep(0.05)

            await Pipeline(Timeout(0.2)).acall(start)

    run(main)

    assert results == ["fetched"]


@each_loop
def test_the_deadline_around_that_call_holds_again(run: Run) -> None:
    ended: list[float] = []

    async def background(clock: Any) -> None:
        with pytest.raises(DeadlineExceededError):
            await Pipeline(Timeout(5)).acall(sleeps, 3)
        ended.append(clock())

    async def main() -> None:
        begin = anyio.current_time()

        async def outer() -> None:
            async with anyio.create_task_group() as group:

                async def start() -> None:
                    group.start_soon(background, lambda: anyio.current_time() - begin)
                    await anyio.sleep(0.1)

                await Pipeline(Timeout(0.2)).acall(start)

        await Pipeline(Timeout(1)).acall(outer)

    run(main)

    assert ended == [pytest.approx(1.0, abs=0.01)]


@each_loop
def test_while_that_call_runs_the_task_obeys(run: Run) -> None:
    left: list[float | None] = []

    async def background() -> None:
        left.append(remaining())
        with pytest.raises(DeadlineExceededError):
            await Pipeline(Timeout(5)).acall(sleeps, 3)
        left.append(remaining())

    async def main() -> None:
        async with anyio.create_task_group() as group:

            async def start() -> None:
                group.start_soon(background)
                await anyio.sleep(9)

            with pytest.raises(DeadlineExceededError):
                await Pipeline(Timeout(0.2)).acall(start)

    run(main)

    assert left[0] == pytest.approx(0.2, abs=0.01)
    assert left[1] in (0.0, None)  # both calls end at once, in any order


def test_so_does_a_callback_of_the_loop() -> None:
    seen: list[float | None] = []

    async def schedule() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: seen.append(remaining()))
        loop.call_later(0.2, lambda: seen.append(remaining()))
        await asyncio.sleep(0.05)

    async def main() -> None:
        await Pipeline(Timeout(0.1)).acall(schedule)
        await asyncio.sleep(0.3)

    with virtual_time():
        asyncio.run(main())

    assert seen == [pytest.approx(0.1, abs=0.01), None]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.slow
def test_a_thread_obeys_as_long_as_the_call_runs(backend: str) -> None:
    seen: list[float | None] = []
    ended = threading.Event()
    threads: list[threading.Thread] = []

    def in_thread() -> None:
        seen.append(remaining())
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(after,))
        threads.append(thread)
        thread.start()

    def after() -> None:
        ended.wait(60)
        seen.append(remaining())

    async def work() -> None:
        await anyio.to_thread.run_sync(in_thread)

    async def main() -> None:
        await Pipeline(Timeout(30)).acall(work)
        ended.set()

    anyio.run(main, backend=backend)
    threads[0].join(60)

    assert seen[0] is not None
    assert seen[0] <= 30
    assert seen[1] is None


def test_a_late_value_of_a_thread_is_not_late_once_the_deadline_is_void(virtual_clock: VirtualClock) -> None:
    ended, may_go = threading.Event(), threading.Event()
    results: list[str] = []

    def slow() -> str:
        may_go.set()
        ended.wait(60)
        return "value"

    def background() -> None:
        results.append(Pipeline(Timeout(99), name="background").call(slow))

    def start() -> threading.Thread:
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(background,))
        thread.start()
        may_go.wait(60)
        return thread

    thread = Pipeline(Timeout(1)).call(start)
    virtual_clock.advance(2)
    ended.set()
    thread.join(60)

    assert results == ["value"]


@each_loop
def test_who_is_detached_never_obeyed(run: Run) -> None:
    results: list[object] = []

    async def background() -> None:
        results.append(remaining())
        results.append(await Pipeline().acall(sleeps, 1))

    async def main() -> None:
        async with anyio.create_task_group() as group:

            async def start() -> None:
                with detached():
                    assert remaining() is None or ambient_deadline() == FOREVER
                    group.start_soon(background)
                assert ambient_deadline() < FOREVER
                await anyio.sleep(9)

            with pytest.raises(DeadlineExceededError):
                await Pipeline(Timeout(0.2)).acall(start)

    run(main)

    assert results == [None, "done"]


def test_detached_leaves_a_block_and_comes_back() -> None:
    with deadline_after(5):
        with detached():
            assert remaining() is None
        assert remaining() is not None


def test_a_block_has_ended_for_tasks_that_it_has_started() -> None:
    with deadline_after(5):
        context = contextvars.copy_context()
        assert context.run(remaining) is not None

    assert context.run(remaining) is None


def test_what_is_carried_is_void_once_the_call_has_ended() -> None:
    def start() -> Callable[[], float | None]:
        return carry(lambda: remaining())

    with ThreadPoolExecutor(1) as pool:
        carried = Pipeline(Timeout(5)).call(start)
        assert pool.submit(carried).result() is None
        within = Pipeline(Timeout(5)).call(lambda: pool.submit(carry(lambda: remaining())).result())
        assert within is not None
        assert pool.submit(remaining).result() is None  # the pool's thread has not kept it


def test_in_trio_a_scope_whose_run_has_ended_is_left_alone() -> None:
    outer = Ambient.make(1e9, NOTHING)

    async def main() -> None:
        ambient.set(outer)
        await Pipeline(Timeout(1e12)).acall(hold)

    async def hold() -> None:
        followers.update(outer.followers or {})

    followers: dict[object, Callable[[], object]] = {}
    trio.run(main)

    assert len(followers) == 1
    for follower in followers.values():
        follower()
