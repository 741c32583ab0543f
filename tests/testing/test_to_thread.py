"""Functions that asyncio, anyio and trio run on threads in virtual time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from typing import Any, TypeAlias

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest
import trio

from resilience import Pipeline, Retry, Timeout, backoff
from resilience.testing import VirtualClock, virtual_time
from resilience.testing._to_thread import watch_threads
from tests.support.functions import AppError, down, raising
from tests.support.loops import run_asyncio, run_trio, run_uvloop
from tests.support.threads import PATIENCE

Main: TypeAlias = "Callable[[], Awaitable[Any]]"
Run: TypeAlias = "Callable[[VirtualClock, Main], Any]"
ToThread: TypeAlias = "Callable[[Callable[[], Any]], Coroutine[Any, Any, Any]]"


def virtual_asyncio(clock: VirtualClock, main: Main) -> Any:
    return run_asyncio(main)


def plain_asyncio(clock: VirtualClock, main: Main) -> Any:
    async def run() -> Any:
        return await main()

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        return runner.run(run())


def on_uvloop(clock: VirtualClock, main: Main) -> Any:
    return run_uvloop(main)


def virtual_trio(clock: VirtualClock, main: Main) -> Any:
    return trio.run(main, clock=clock.trio())


def plain_trio(clock: VirtualClock, main: Main) -> Any:
    return run_trio(main)


async def asyncio_to_thread(function: Callable[[], Any]) -> Any:
    return await asyncio.to_thread(function)


async def asyncio_executor(function: Callable[[], Any]) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, function)


async def asyncio_pool(function: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return await asyncio.get_running_loop().run_in_executor(pool, function)


async def anyio_to_thread(function: Callable[[], Any]) -> Any:
    return await anyio.to_thread.run_sync(function)


async def trio_to_thread(function: Callable[[], Any]) -> Any:
    return await trio.to_thread.run_sync(function)


VIRTUAL: list[tuple[Run, ToThread]] = [
    (virtual_asyncio, asyncio_to_thread),
    (virtual_asyncio, asyncio_executor),
    (virtual_asyncio, asyncio_pool),
    (virtual_asyncio, anyio_to_thread),
    (virtual_trio, trio_to_thread),
    (virtual_trio, anyio_to_thread),
]
PLAIN: list[tuple[Run, ToThread]] = [
    (plain_asyncio, asyncio_to_thread),
    (plain_asyncio, asyncio_executor),
    (plain_asyncio, anyio_to_thread),
    (on_uvloop, asyncio_to_thread),
    (on_uvloop, anyio_to_thread),
    (plain_trio, trio_to_thread),
    (plain_trio, anyio_to_thread),
]
each_virtual_way = pytest.mark.parametrize(("run", "to_thread"), VIRTUAL)
each_way = pytest.mark.parametrize(("run", "to_thread"), VIRTUAL + PLAIN)


def work() -> str:
    threading.Event().wait(0.1)
    return "done"


@each_way
def test_a_deadline_does_not_pass_while_a_function_works_on_a_thread(run: Run, to_thread: ToThread) -> None:
    pipeline = Pipeline(Timeout(1.0))

    async def main() -> Any:
        return await pipeline.acall(to_thread, work)

    with virtual_time() as clock:
        assert run(clock, main) == "done"

    assert clock.elapsed == 0


@each_way
def test_what_waits_on_a_thread_waits_in_virtual_time(run: Run, to_thread: ToThread) -> None:
    pipeline, inner = Pipeline(Timeout(1000.0)), Pipeline(Retry(3, wait=backoff.fixed(60.0)))

    def fail() -> None:
        with pytest.raises(ConnectionError):
            inner.call(down)

    async def main() -> None:
        await pipeline.acall(to_thread, fail)

    with virtual_time() as clock:
        run(clock, main)

    assert clock.elapsed == pytest.approx(120)


@each_virtual_way
def test_waits_on_threads_and_timers_of_the_loop_end_in_the_order_of_time(run: Run, to_thread: ToThread) -> None:
    inner = Pipeline(Retry(3, wait=backoff.fixed(60.0)))
    seen: list[tuple[str, int]] = []

    def fail() -> None:
        with pytest.raises(ConnectionError):
            inner.call(note)

    def note() -> None:
        seen.append(("attempt", round(clock.elapsed)))
        raise ConnectionError

    async def tick() -> None:
        for _ in range(4):
            await anyio.sleep(40.0)
            seen.append(("tick", round(clock.elapsed)))

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(tick)
            group.start_soon(to_thread, fail)

    with virtual_time() as clock:
        run(clock, main)

    ticks = [("tick", 40), ("tick", 80), ("tick", 120), ("tick", 160)]
    assert [one for one in seen if one[0] == "tick"] == ticks
    assert [at for _, at in seen] == [0, 40, 60, 80, 120, 120, 160]


@each_way
def test_errors_come_back_from_a_thread(run: Run, to_thread: ToThread) -> None:
    async def main() -> None:
        with pytest.raises(AppError, match="mine"):
            await to_thread(raising(AppError("mine")))

    with virtual_time() as clock:
        run(clock, main)


@pytest.mark.parametrize(("run", "to_thread"), [(virtual_asyncio, anyio_to_thread), (virtual_trio, anyio_to_thread)])
def test_a_thread_that_waits_for_what_only_time_brings_does_not_stop_it(run: Run, to_thread: ToThread) -> None:
    def call_back() -> float:
        for _ in range(3):
            anyio.from_thread.run(anyio.sleep, 60.0)
        return clock.elapsed

    async def main() -> Any:
        return await Pipeline(Timeout(1000.0)).acall(to_thread, call_back)

    with virtual_time() as clock:
        clock.patience = 0.05
        assert run(clock, main) == pytest.approx(180)


@pytest.mark.parametrize("run", [virtual_asyncio, virtual_trio])
def test_a_thread_that_nothing_waits_for_any_more_does_not_stop_the_time(run: Run) -> None:
    release = threading.Event()

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(hang)
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        await anyio.sleep(3600)

    async def hang() -> None:
        await anyio.to_thread.run_sync(release.wait, PATIENCE, abandon_on_cancel=True)

    with virtual_time() as clock:
        clock.patience = PATIENCE
        try:
            run(clock, main)
        finally:
            release.set()

    assert clock.elapsed == pytest.approx(3600)


def test_work_in_another_process_takes_no_virtual_time() -> None:
    async def main() -> int:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return await asyncio.get_running_loop().run_in_executor(pool, abs, -7)

    with virtual_time() as clock:
        clock.patience = PATIENCE
        assert asyncio.run(Pipeline(Timeout(1.0)).acall(main)) == 7

    assert clock.elapsed == 0


def functions() -> list[object]:
    return [
        asyncio.BaseEventLoop.run_in_executor,
        asyncio.to_thread,
        asyncio.threads.to_thread,
        anyio.to_thread.run_sync,
        trio.to_thread.run_sync,
    ]


def test_the_functions_are_replaced_in_virtual_time_only() -> None:
    before = functions()
    with virtual_time():
        watched = functions()
        with virtual_time():
            assert functions() == watched
        assert functions() == watched
    assert functions() == before
    assert not set(before) & set(watched)


def test_outside_of_virtual_time_they_work_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(*ways: ToThread) -> list[Any]:
        return [await to_thread(lambda: "done") for to_thread in ways]

    watch_threads(True)
    try:
        assert run_asyncio(lambda: main(asyncio_to_thread, asyncio_executor, anyio_to_thread)) == ["done"] * 3
        assert run_trio(lambda: main(trio_to_thread, anyio_to_thread)) == ["done"] * 2
        with pytest.raises(TypeError, match="func"):
            asyncio.run(asyncio.to_thread())  # type: ignore[call-arg]
    finally:
        watch_threads(False)


def test_a_trio_that_is_imported_later_is_watched_from_its_first_clock_on(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    before = trio.to_thread.run_sync
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "trio.to_thread")
        with virtual_time() as clock:
            assert trio.to_thread.run_sync is before
            patch.undo()
            clock.trio()
            assert trio.to_thread.run_sync is not before
    assert trio.to_thread.run_sync is before
