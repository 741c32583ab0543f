"""The sections that measure calls: on success, after a failure, refused, on threads, with short and long windows."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from itertools import repeat
from typing import Any

import trio

from benchmarks import ours
from benchmarks.peer_breakers import BREAKERS, WINDOWS
from benchmarks.peer_pipelines import BULKHEADS, HEDGES, LIMITERS, PIPELINES, TIMED_PIPELINES, TIMEOUTS
from benchmarks.peer_retries import RETRIES
from benchmarks.peers import ASYNCIO, SYNC, TRIO, BreakerPeer, Guard, Peer
from benchmarks.rounds import ANSWER, Contender, OnAsyncio, OnThread, OnTrio, Subject

RUNNERS: dict[str, type[OnThread | OnAsyncio | OnTrio]] = {SYNC: OnThread, ASYNCIO: OnAsyncio, TRIO: OnTrio}
THREADS = 8
BARE = "bare call"
CRASHBYTES = "crashbytes-resilience"


def function(runtime: str) -> Any:
    """Make a function that answers; a new one each time, since libraries keep state per function."""

    def answer() -> int:
        return ANSWER

    async def answer_async() -> int:
        return ANSWER

    return answer if runtime == SYNC else answer_async


def flaky(runtime: str) -> Any:
    """Make a function that fails every other time."""
    bad = False

    def answer() -> int:
        nonlocal bad
        bad = not bad
        if bad:
            raise ConnectionError("no answer")
        return ANSWER

    async def answer_async() -> int:
        return answer()

    return answer if runtime == SYNC else answer_async


def broken(runtime: str) -> Any:
    """Make a function that always fails."""

    def fail() -> int:
        raise ConnectionError("no answer")

    async def fail_async() -> int:
        raise ConnectionError("no answer")

    return fail if runtime == SYNC else fail_async


def guarded(name: str, guard: Guard, make: Callable[[], Any], package: str = "", suffix: str = "") -> Contender:
    return Contender(name + suffix, lambda: Subject(guard(make())), package)


def of_peers(peers: tuple[Peer, ...], runtime: str, make: Callable[[], Any], suffix: str = "") -> Iterator[Contender]:
    for peer in peers:
        if runtime in peer.runtimes:
            yield guarded(peer.name, peer.guard, make, peer.package, suffix)


def success(runtime: str) -> Iterator[Contender]:
    """Nothing goes wrong: each policy alone, and the whole pipeline."""

    def make() -> Any:
        return function(runtime)

    yield Contender(BARE, lambda: Subject(make()))
    for name, guard in ours.SUCCESS.items():
        yield guarded(name, guard, make)
    yield from of_peers(RETRIES, runtime, make)
    for peer in BREAKERS:
        if runtime in peer.runtimes:
            yield guarded(peer.name, with_failures(peer, 5), make, peer.package)
    yield from of_peers(BULKHEADS, runtime, make)
    yield from of_peers(LIMITERS, runtime, make)
    if runtime == ASYNCIO:
        yield Contender("asyncio.timeout", lambda: Subject(_asyncio_timeout(make())))
    if runtime == TRIO:
        yield Contender("trio.move_on_after", lambda: Subject(_trio_timeout(make())))
    yield from of_peers(TIMEOUTS, runtime, make)
    yield from of_peers(PIPELINES, runtime, make)
    yield from of_peers(TIMED_PIPELINES, runtime, make)


def hedges(runtime: str) -> Iterator[Contender]:
    """The first attempt of a hedged call wins at once."""

    def make() -> Any:
        return function(runtime)

    for name, guard in ours.HEDGE.items():
        yield guarded(name, guard, make)
    yield from of_peers(HEDGES, runtime, make)


def with_failures(peer: BreakerPeer, failures: int) -> Guard:
    return lambda function: peer.guard(function, failures)


def _asyncio_timeout(function: Any) -> Any:
    async def timed() -> Any:
        async with asyncio.timeout(ours.SECONDS):
            return await function()

    return timed


def _trio_timeout(function: Any) -> Any:
    async def timed() -> Any:
        with trio.move_on_after(ours.SECONDS):
            return await function()

    return timed


def failure(runtime: str) -> Iterator[Contender]:
    """Every call fails once, and is retried at once with success."""

    def make() -> Any:
        return flaky(runtime)

    for name, guard in ours.FAILURE.items():
        yield guarded(name, guard, make)
    yield from of_peers(RETRIES, runtime, make)
    yield from of_peers(PIPELINES, runtime, make)
    for peer in PIPELINES:
        if peer.package == CRASHBYTES and runtime in peer.runtimes:
            yield guarded(peer.name, peer.guard, lambda: function(runtime), peer.package, ", success")


def refused(runtime: str) -> Iterator[Contender]:
    """The breaker is open, and every call is refused."""
    for name, guard in {
        "resilience CircuitBreaker": ours.open_breaker,
        "resilience pipeline": ours.open_pipeline,
    }.items():
        yield Contender(name, partial(_opening, guard, runtime))
    for peer in BREAKERS:
        if runtime in peer.runtimes:
            yield Contender(peer.name, partial(_opening_peer, peer, runtime), peer.package)


def _opening(guard: Guard, runtime: str) -> Subject:
    return Subject(guard(broken(runtime)), ours.refusal())


def _opening_peer(peer: BreakerPeer, runtime: str) -> Subject:
    return Subject(peer.guard(broken(runtime), 1), peer.refusal())


def windows(runtime: str) -> Iterator[Contender]:
    """Short and long windows."""

    def make() -> Any:
        return function(runtime)

    for seconds in (1, 1000):
        yield guarded(f"resilience CircuitBreaker, {seconds:,} s", ours.with_window(seconds), make)
    for seconds in (1, 1000):
        name = f"resilience Retry and CircuitBreaker, {seconds:,} s, failure"
        yield guarded(name, ours.with_window_and_retry(seconds), lambda: flaky(runtime))
    yield from of_peers(WINDOWS, runtime, make)


def crowds(runtime: str) -> Iterator[Contender]:
    """One breaker, used by one thread and by eight."""

    def crowd(guard: Guard, threads: int) -> Callable[[], Subject]:
        return lambda: Subject(guard(function(runtime)), threads=threads)

    for name in ("resilience CircuitBreaker", "resilience pipeline"):
        for threads in (1, THREADS):
            yield Contender(_crowd(name, threads), crowd(ours.SUCCESS[name], threads))
    for peer in BREAKERS:
        if peer.package != "aiobreaker":
            for threads in (1, THREADS):
                yield Contender(_crowd(peer.name, threads), crowd(with_failures(peer, 5), threads), peer.package)


def _crowd(name: str, threads: int) -> str:
    return f"{name}, {threads} thread{'s' if threads > 1 else ''}"


class OnThreads(nullcontext[None]):
    """Plain calls from several threads at once. The time is that of the clock: waiting for one another counts."""

    def slice(self, subject: Subject, calls: int) -> int:
        share = -(-calls // subject.threads)
        start = threading.Barrier(subject.threads + 1)
        errors: list[BaseException] = []

        def work() -> None:
            call = subject.call
            start.wait()
            try:
                for _ in repeat(None, share):
                    call()
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work) for _ in range(subject.threads)]
        for thread in threads:
            thread.start()
        start.wait()
        begun = time.perf_counter_ns()
        for thread in threads:
            thread.join()
        taken = time.perf_counter_ns() - begun
        if errors:
            raise errors[0]
        return taken * calls // (share * subject.threads)

    def results(self, subject: Subject, calls: int) -> list[Any]:
        return OnThread().results(subject, calls)
