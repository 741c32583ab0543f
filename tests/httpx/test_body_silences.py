"""`first` and `idle` of a Timeout: the first chunk of a body, and the silences in it, over every client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
import trio

from resilience import Bulkhead, CircuitBreaker, DeadlineExceededError, Pipeline, Retry, Timeout, backoff
from resilience.events import CallEnded, TimedOut
from resilience.httpx import attach
from resilience.testing import FaultyServer, Recorder, VirtualClock, virtual_time
from tests.httpx.helpers import WAYS, Script, both_modules

EVENTS = {"content-type": "text/event-stream"}


class Pauses(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that pauses for so many seconds before each chunk."""

    def __init__(self, clock: VirtualClock, *seconds: float) -> None:
        self.clock = clock
        self.seconds = seconds
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        for seconds in self.seconds:
            self.clock.advance(seconds)
            yield b"x"

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for seconds in self.seconds:
            await self.library.sleep(seconds)
            yield b"x"

    library: Any = asyncio

    def close(self) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        self.closed += 1


class Reading:
    """Reads a body in one of three ways, and keeps what came of it."""

    def __init__(self, way: str) -> None:
        self.way = way
        self.clock: VirtualClock
        self.body: Pauses
        self.got = b""
        self.error: BaseException | None = None

    def __call__(
        self, pipeline: Pipeline[Any], *pauses: float, headers: dict[str, str] | None = None, head: float = 0.0,
        between: Callable[[], object] = lambda: None, settle: Any = "body",
    ) -> Reading:  # fmt: skip
        """Read the body, and do something after each chunk."""
        body = self.body = Pauses(self.clock, *pauses)
        if self.way == "trio":
            body.library = trio

        def respond() -> httpx.Response:
            self.clock.advance(head)
            return httpx.Response(200, headers=headers, stream=body)

        async def main() -> None:
            client = attach(httpx.AsyncClient(transport=Script(respond)), pipeline, settle=settle)
            try:
                async with client.stream("GET", "http://quotes.test") as response:
                    async for chunk in response.aiter_raw():
                        self.got += chunk
                        between()
            except httpx.TransportError as error:
                self.error = error

        if self.way == "asyncio":
            asyncio.run(main())
        elif self.way == "trio":
            trio.run(main, clock=self.clock.trio())
        else:
            client = attach(httpx.Client(transport=Script(respond)), pipeline, settle=settle)
            try:
                with client.stream("GET", "http://quotes.test") as response:
                    for chunk in response.iter_raw():
                        self.got += chunk
                        between()
            except httpx.TransportError as error:
                self.error = error
        return self


@pytest.fixture(params=WAYS)
def reading(request: pytest.FixtureRequest) -> Iterator[Reading]:
    made = Reading(request.param)
    with virtual_time() as made.clock:
        yield made


def test_a_long_silence_is_cut_and_scored(reading: Reading) -> None:
    bulkhead, breaker = Bulkhead(1), CircuitBreaker()
    pipeline = Pipeline(bulkhead, breaker, Timeout(None, idle=1))

    with Recorder(pipeline) as recorder:
        read = reading(pipeline, 0.9, 0.9, 1.5, 0.1)

    assert isinstance(read.error, DeadlineExceededError)
    assert isinstance(read.error, httpx.TimeoutException)
    assert str(read.error).startswith("the limit on silences of timeout (1 s) passed while the body was read, ")
    # A chunk that was late cannot be cut in plain code: it is the last one.
    assert read.got == (b"xxx" if read.way == "sync" else b"xx")
    assert read.body.closed >= 1
    assert (bulkhead.in_flight, breaker.snapshot()["failures"]) == (0, 1)
    assert [event.outcome for event in recorder.of(CallEnded)] == ["timed_out"]
    assert [(event.policy, event.timeout) for event in recorder.of(TimedOut)] == [("timeout", 1)]


def test_short_silences_are_not_cut(reading: Reading) -> None:
    read = reading(Pipeline(Timeout(None, idle=1, first=2)), 0.9, 0.9, 0.9, 0.9)

    assert (read.got, read.error) == (b"xxxx", None)


def test_a_silence_after_the_head_is_one(reading: Reading) -> None:
    assert isinstance(reading(Pipeline(Timeout(None, idle=1)), 1.5).error, DeadlineExceededError)


def test_a_slow_reader_is_no_silence(reading: Reading) -> None:
    read = reading(Pipeline(Timeout(None, idle=1)), 0.5, 0.5, 0.5, between=lambda: reading.clock.advance(5))

    assert (read.got, read.error) == (b"xxx", None)


def test_the_first_chunk_is_bounded_from_the_start_of_the_attempt(reading: Reading) -> None:
    pipeline = Pipeline(Retry(), Timeout(30, first=2))

    assert reading(pipeline, 1.5, 5, 5).error is None
    read = reading(pipeline, 1.5, head=1.0)

    assert str(read.error).startswith("the limit on the first item of timeout (2 s) passed while the body was read, ")


@pytest.mark.parametrize("reading", ["asyncio", "trio"], indirect=True)
def test_a_late_head_is_a_late_first_item_and_repeated(reading: Reading) -> None:
    heads = iter([5.0, 0.5])
    pipeline = Pipeline(Retry(2, wait=backoff.none()), Timeout(None, first=2))

    async def main() -> int:
        library: Any = asyncio if reading.way == "asyncio" else trio

        async def respond(request: httpx.Request) -> httpx.Response:
            await library.sleep(next(heads))
            return httpx.Response(200)

        client = attach(httpx.AsyncClient(transport=httpx.MockTransport(respond)), pipeline)
        return (await client.get("http://quotes.test")).status_code

    assert (asyncio.run(main()) if reading.way == "asyncio" else trio.run(main, clock=reading.clock.trio())) == 200


@pytest.mark.parametrize("settle", ["body", "headers"])
def test_streams_that_settle_at_their_head_are_bounded_too(settle: str, reading: Reading) -> None:
    breaker = CircuitBreaker()
    headers = EVENTS if settle == "body" else {}
    read = reading(Pipeline(breaker, Timeout(0.5, idle=1)), 0.9, 0.9, 3, headers=headers, settle=settle)

    assert isinstance(read.error, DeadlineExceededError)
    assert breaker.snapshot()["failures"] == 0  # the call had ended


def test_the_shortest_of_several_holds(reading: Reading) -> None:
    pipeline = Pipeline(Timeout(None, idle=1, name="outer"), Timeout(None, idle=2, first=9, name="inner"))

    error: Any = reading(pipeline, 0.5, 1.5).error
    assert error.policy == "outer"


def test_the_deadline_of_the_call_still_holds(reading: Reading) -> None:
    error: Any = reading(Pipeline(Timeout(2, name="whole"), Retry(), Timeout(None, idle=1)), *[0.9] * 9).error

    assert error.policy == "whole"


def test_a_shadow_timeout_reports_the_first_chunk_and_one_silence(reading: Reading) -> None:
    pipeline = Pipeline(Timeout(None, first=1, idle=2, mode="shadow"))

    with Recorder(pipeline, events=[TimedOut]) as recorder:
        read = reading(pipeline, 1.5, 3, 1, 3)

    assert (read.got, read.error) == (b"xxxx", None)
    assert [(event.timeout, event.mode) for event in recorder.of(TimedOut)] == [(1, "shadow")]

    with Recorder(pipeline, events=[TimedOut]) as recorder:
        assert reading(pipeline, 0.5, 3, 1, 3).error is None
    assert [(event.timeout, event.mode) for event in recorder.of(TimedOut)] == [(2, "shadow")]


@pytest.mark.slow
@both_modules
@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_falls_silent_in_the_body_is_left_in_time(module: Any, way: str) -> None:
    pipeline = Pipeline(Timeout(30), Retry(), Bulkhead(1), Timeout(5, idle=0.3))

    async def main(url: str) -> None:
        async with attach(module.AsyncClient(timeout=10), pipeline) as client:
            with pytest.raises(DeadlineExceededError, match="limit on silences"):
                await client.get(url)

    with FaultyServer() as server:
        url = f"{server.url}/headers-stall"
        if way == "asyncio":
            asyncio.run(main(url))
        elif way == "trio":
            trio.run(main, url)
        else:
            with attach(module.Client(timeout=10), pipeline) as client, pytest.raises(DeadlineExceededError):
                client.get(url)
    assert pipeline.snapshot()["in_flight"] == 0
