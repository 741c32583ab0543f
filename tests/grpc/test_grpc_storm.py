"""Hundreds of calls through a bad minute: whatever the server does, and whoever cancels, nothing is lost or doubled."""

import asyncio
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

import resilience.grpc
from resilience import Bulkhead, CircuitBreaker, Pipeline, ResilienceError, Retry, Timeout, backoff
from tests.grpc.servers import OPTIONS, Abort, Seen, Service, hold, serving, stub_of, wait_until
from tests.support.timing import at_most

pytestmark = pytest.mark.slow

CALLS = 200
DEADLINE = 1.0
Code = grpc.StatusCode


class BadServer:
    """Answers at random, and remembers which of the deliveries of a request permitted another one."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.good = False
        self.deliveries: defaultdict[bytes, list[str]] = defaultdict(list)
        self.lock = threading.Lock()

    def __call__(self, seen: Seen) -> Any:
        with self.lock:
            did = "ok" if self.good else self.random.choice(list(DEEDS))
            self.deliveries[seen.request].append(did)
        answer = DEEDS[did]
        return answer if answer is not None else seen.request

    def doubled(self) -> list[tuple[bytes, list[str]]]:
        """The requests of methods that are not idempotent that were delivered again without having been asked for."""
        return [
            (request, deeds)
            for request, deeds in self.deliveries.items()
            if request.startswith(b"Put") and any("pushback" not in deed for deed in deeds[:-1])
        ]


def stall(context: Any, seconds: float = 2.0) -> bytes:
    hold(context, seconds)
    return b"late"


def slow(context: Any) -> bytes:
    hold(context, 0.05)
    return b"slow"


DEEDS: dict[str, Any] = {
    "ok": None,
    "ok again": None,
    "slow": slow,
    "slower": lambda context: stall(context, 0.15),
    "stalls": stall,
    "unavailable": Abort(Code.UNAVAILABLE),
    "pushback": Abort(Code.UNAVAILABLE, pushback="10"),
    "exhausted": Abort(Code.RESOURCE_EXHAUSTED),
    "exhausted, pushback": Abort(Code.RESOURCE_EXHAUSTED, pushback="0"),
    "forbidden": Abort(Code.UNAVAILABLE, pushback="-1"),
    "aborted": Abort(Code.ABORTED),
    "unknown": Abort(Code.UNKNOWN),
    "not found": Abort(Code.NOT_FOUND),
}


@contextmanager
def bad_minute(seed: int) -> Iterator[tuple[Service, BadServer]]:
    """A server that answers at random, and is stopped and started again and again."""
    bad = BadServer(seed)
    done = threading.Event()

    def restart() -> None:
        while not done.wait(0.4):
            service.stop()
            done.wait(0.05)
            service.start()

    with serving(bad) as service:
        thread = threading.Thread(target=restart)
        thread.start()
        try:
            yield service, bad
        finally:
            done.set()
            thread.join()


def make_pipeline() -> tuple[Pipeline[Any], Bulkhead]:
    bulkhead = Bulkhead(8, queue=CALLS, max_wait=0.5)
    breaker = CircuitBreaker(open_for=0.05, max_open_for=0.1, consecutive_failures=None, failure_rate=0.9)
    wait = backoff.full_jitter(0.01, cap=0.05)
    return Pipeline(Timeout(5), Retry(4, wait=wait, budget=None), bulkhead, breaker, Timeout(0.2)), bulkhead


def acceptable(error: BaseException) -> bool:
    cancelled = (asyncio.CancelledError, grpc.FutureCancelledError)
    return isinstance(error, cancelled) or (isinstance(error, grpc.RpcError) and not isinstance(error, AssertionError))


def requests() -> list[tuple[str, bytes]]:
    return [
        (method, f"{method} {number}".encode()) for number in range(CALLS) for method in [("Get", "Put")[number % 2]]
    ]


def sync_channel(service: Service, pipeline: Pipeline[Any]) -> dict[str, Any]:
    channel = resilience.grpc.insecure_channel(service.target, pipeline, idempotent="*/Get", options=OPTIONS)
    return {method: stub_of(channel, method) for method in ("Get", "Put")}


def plain(stub: Any, request: bytes) -> Any:
    return stub(request, timeout=DEADLINE)


def with_call(stub: Any, request: bytes) -> Any:
    return stub.with_call(request, timeout=DEADLINE)[0]


def future(stub: Any, request: bytes) -> Any:
    return stub.future(request, timeout=DEADLINE).result(DEADLINE + 5)


def judge_afterwards(bad: BadServer, bulkhead: Bulkhead, again: Callable[[], Any]) -> None:
    assert wait_until(lambda: bulkhead.in_flight == 0)
    assert bulkhead.queued == 0
    assert bad.doubled() == []
    bad.good = True
    until = time.monotonic() + 5.0
    while True:
        try:
            assert again() == b"good"
            break
        except (grpc.RpcError, ResilienceError):  # the breaker is open for a moment, or the server is starting
            assert time.monotonic() < until
            time.sleep(0.02)
    assert bulkhead.in_flight == 0


@pytest.mark.parametrize("way", [plain, with_call, future])
def test_threads_come_through_a_bad_minute(way: Callable[..., Any]) -> None:
    pipeline, bulkhead = make_pipeline()
    took: list[float] = []
    odd: list[BaseException] = []

    def call(stubs: dict[str, Any], method: str, request: bytes) -> None:
        started = time.monotonic()
        try:
            way(stubs[method], request)
        except BaseException as error:
            if not acceptable(error):
                odd.append(error)
        took.append(time.monotonic() - started)

    with bad_minute(7) as (service, bad):
        stubs = sync_channel(service, pipeline)
        with ThreadPoolExecutor(8) as pool:
            for method, request in requests():
                pool.submit(call, stubs, method, request)
        assert odd == []
        assert len(took) == CALLS
        assert max(took) <= at_most(DEADLINE)
        judge_afterwards(bad, bulkhead, lambda: stubs["Put"](b"good", timeout=DEADLINE))
    assert len({deed for deeds in bad.deliveries.values() for deed in deeds}) == len(DEEDS)


def test_futures_are_cancelled_at_any_moment() -> None:
    pipeline, bulkhead = make_pipeline()
    chance = random.Random(11)
    called_back: list[Any] = []

    with bad_minute(11) as (service, bad):
        stubs = sync_channel(service, pipeline)
        running: list[tuple[float, Any]] = []
        for method, request in requests():
            one = stubs[method].future(request, timeout=DEADLINE)
            one.add_done_callback(called_back.append)
            running.append((time.monotonic() + chance.random() * 0.06, one))
            time.sleep(chance.random() * 0.01)
            for due in [entry for entry in running if entry[0] <= time.monotonic()]:
                running.remove(due)
                due[1].cancel()
        for _, one in running:
            one.cancel()
            assert one.done()
        assert wait_until(lambda: len(called_back) == CALLS)
        assert sum(one.cancelled() for one in called_back) >= CALLS // 8
        assert all(acceptable(one.exception() or grpc.RpcError()) for one in called_back if not one.cancelled())
        judge_afterwards(bad, bulkhead, lambda: stubs["Put"].future(b"good", timeout=DEADLINE).result())


async def aio_minute(service: Service, bad: BadServer, cancel: random.Random | None) -> None:
    pipeline, bulkhead = make_pipeline()
    took: list[float] = []
    ended: list[str] = []
    gate = asyncio.Semaphore(8)

    async with resilience.grpc.aio.insecure_channel(
        service.target, pipeline, idempotent="*/Get", options=OPTIONS
    ) as channel:
        stubs: dict[str, Any] = {name: stub_of(channel, name) for name in ("Get", "Put")}

        async def call(method: str, request: bytes) -> None:
            async with gate:
                started = time.monotonic()
                rpc = stubs[method](request, timeout=DEADLINE)
                if cancel is not None and cancel.random() < 0.5:
                    asyncio.get_running_loop().call_later(cancel.random() * 0.05, rpc.cancel)
                try:
                    await rpc
                    ended.append("ok")
                except BaseException as error:
                    ended.append(type(error).__name__ if acceptable(error) else f"odd: {error!r}")
                finally:
                    took.append(time.monotonic() - started)

        tasks = [asyncio.create_task(call(method, request)) for method, request in requests()]
        if cancel is not None:
            for task in tasks[::3]:
                asyncio.get_running_loop().call_later(cancel.random() * 1.0, task.cancel)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert max(took) <= at_most(DEADLINE)
        assert [how for how in ended if how.startswith("odd")] == []
        assert cancel is not None or ended.count("CancelledError") == 0 < len(ended) == CALLS
        assert ended.count("CancelledError") >= (0 if cancel is None else CALLS // 8)
        assert wait_until(lambda: bulkhead.in_flight == 0)
        assert bad.doubled() == []
        bad.good = True
        until = time.monotonic() + 5.0
        while True:
            try:
                assert await stubs["Put"](b"good", timeout=DEADLINE) == b"good"
                break
            except grpc.RpcError:
                assert time.monotonic() < until
                await asyncio.sleep(0.02)
        assert (bulkhead.in_flight, bulkhead.queued) == (0, 0)


def test_aio_comes_through_a_bad_minute() -> None:
    with bad_minute(13) as (service, bad):
        asyncio.run(aio_minute(service, bad, None))


def test_aio_calls_and_tasks_are_cancelled_at_any_moment() -> None:
    with bad_minute(17) as (service, bad):
        asyncio.run(aio_minute(service, bad, random.Random(17)))
