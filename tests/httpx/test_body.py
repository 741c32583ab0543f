"""The bodies of responses: permits follow them, their failures count, and the deadline of the call bounds them."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from resilience import Bulkhead, BulkheadFullError, CircuitBreaker, DeadlineExceededError, Pipeline, Retry, Timeout
from resilience.events import CallEnded, TimedOut
from resilience.httpx import attach
from resilience.testing import Recorder, virtual_time
from tests.httpx.helpers import Ask, Script, Stream


def streaming(bulkhead: Bulkhead, body: Stream, **settings: Any) -> tuple[httpx.Client, Pipeline[Any]]:
    pipeline: Pipeline[Any] = Pipeline(bulkhead, **settings)
    script = Script(lambda: httpx.Response(200, stream=body))
    return attach(httpx.Client(transport=script), pipeline), pipeline


def test_permits_follow_the_body_until_it_is_read() -> None:
    bulkhead = Bulkhead(1)
    client, pipeline = streaming(bulkhead, Stream(b"a", b"b"))

    with client.stream("GET", "http://quotes.test") as response:
        assert (bulkhead.in_flight, pipeline.snapshot()["in_flight"]) == (1, 1)
        with pytest.raises(BulkheadFullError):
            client.get("http://quotes.test")
        assert response.read() == b"ab"
        assert bulkhead.in_flight == 0

    assert (bulkhead.in_flight, pipeline.snapshot()["in_flight"]) == (0, 0)


def test_permits_come_back_when_the_body_is_closed() -> None:
    bulkhead = Bulkhead(1)
    client, pipeline = streaming(bulkhead, Stream(b"a", b"b"))

    with Recorder(pipeline) as recorder, client.stream("GET", "http://quotes.test") as response:
        assert next(response.iter_raw()) == b"a"
        assert bulkhead.in_flight == 0  # its iterator was dropped, which frees the connection, too
    response.close()

    assert bulkhead.in_flight == 0
    assert [event.outcome for event in recorder.of(CallEnded)] == ["ok"]


def test_a_body_that_fails_is_a_failure() -> None:
    bulkhead, breaker = Bulkhead(1), CircuitBreaker()
    script = Script(lambda: httpx.Response(200, stream=Stream(b"a", httpx.RemoteProtocolError("cut"))))
    client = attach(httpx.Client(transport=script), Pipeline(bulkhead, breaker))

    with pytest.raises(httpx.RemoteProtocolError, match="cut"):
        client.get("http://quotes.test")

    assert (bulkhead.in_flight, breaker.snapshot()["failures"]) == (0, 1)


@pytest.mark.parametrize("listed", ["inside", "outside"])
def test_each_pipeline_judges_a_body_that_fails_by_its_own_list(listed: str) -> None:
    inner_breaker, outer_breaker = CircuitBreaker(), CircuitBreaker()
    lists: dict[str, Any] = {"inside": KeyError, "outside": KeyError, listed: httpx.RemoteProtocolError}
    inner = Pipeline(inner_breaker, failures=lists["inside"])
    outer = Pipeline(outer_breaker, inner, failures=lists["outside"])
    script = Script(lambda: httpx.Response(200, stream=Stream(b"a", httpx.RemoteProtocolError("cut"))))

    with pytest.raises(httpx.RemoteProtocolError, match="cut"):
        attach(httpx.Client(transport=script), outer).get("http://quotes.test")

    counted = inner_breaker.snapshot()["failures"], outer_breaker.snapshot()["failures"]
    assert counted == ((1, 0) if listed == "inside" else (0, 1))


def test_a_body_that_is_dropped_is_abandoned() -> None:
    bulkhead, breaker = Bulkhead(1), CircuitBreaker()
    client = attach(
        httpx.Client(transport=Script(lambda: httpx.Response(200, stream=Stream(b"a")))), Pipeline(bulkhead, breaker)
    )

    response: Any = client.send(client.build_request("GET", "http://quotes.test"), stream=True)
    assert bulkhead.in_flight == 1
    del response
    gc.collect()

    assert (bulkhead.in_flight, breaker.snapshot()["calls"]) == (0, 0)


@pytest.mark.parametrize("end", ["read", "close", "fail", "cancel"])
def test_permits_follow_the_body_of_an_async_client(end: str) -> None:
    bulkhead = Bulkhead(1)
    fault = httpx.ReadError("cut") if end == "fail" else asyncio.CancelledError()
    body = Stream(b"a", *([fault] if end in ("fail", "cancel") else []))

    async def main() -> None:
        client = attach(httpx.AsyncClient(transport=Script(httpx.Response(200, stream=body))), Pipeline(bulkhead))
        async with client.stream("GET", "http://quotes.test") as response:
            assert bulkhead.in_flight == 1
            if end == "close":
                return
            await response.aread()
            assert bulkhead.in_flight == 0

    if end == "fail":
        with pytest.raises(httpx.ReadError):
            asyncio.run(main())
    elif end == "cancel":
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(main())
    else:
        asyncio.run(main())

    assert bulkhead.in_flight == 0


def test_a_body_is_bounded_by_the_whole_call() -> None:
    bulkhead, breaker = Bulkhead(1), CircuitBreaker()
    pipeline = Pipeline(Timeout(2), Retry(), bulkhead, breaker, Timeout(1))

    with virtual_time() as clock, Recorder(pipeline, events=[TimedOut]) as recorder:
        body = Stream(*[b"x"] * 10, before=lambda: clock.advance(0.3))
        script = Script(lambda: httpx.Response(200, stream=body))
        with pytest.raises(DeadlineExceededError) as caught:
            Ask("sync")(pipeline, script)

    assert isinstance(caught.value, httpx.TimeoutException)
    assert str(caught.value) == (
        "the deadline of timeout (2 s) passed while the body was read, 2.1 s of virtual time after GET began"
    )
    assert caught.value.policy == "timeout"
    assert body.closed >= 1
    assert 6 <= body.read <= 7
    assert (bulkhead.in_flight, breaker.snapshot()["failures"]) == (0, 1)
    assert [(event.scope, event.policy) for event in recorder.of(TimedOut)] == [("call", "timeout")]


def test_a_body_is_not_bounded_by_the_attempt() -> None:
    with virtual_time() as clock:
        body = Stream(*[b"x"] * 10, before=lambda: clock.advance(0.3))
        script = Script(lambda: httpx.Response(200, stream=body))
        assert Ask("sync")(Pipeline(Retry(), Timeout(1)), script).text == "x" * 10


@pytest.mark.parametrize("kind", ["asyncio", "trio"])
def test_a_stalling_body_is_cut(kind: str) -> None:
    import anyio
    import trio

    bulkhead = Bulkhead(1)

    class Stalling(Stream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"x"
            await anyio.sleep(1000)

    async def main() -> None:
        script = Script(lambda: httpx.Response(200, stream=Stalling()))
        client = attach(httpx.AsyncClient(transport=script), Pipeline(Timeout(2), bulkhead))
        await client.get("http://quotes.test")

    with virtual_time() as clock, pytest.raises(DeadlineExceededError):
        if kind == "asyncio":
            from resilience.testing import virtual_loop

            with asyncio.Runner(loop_factory=virtual_loop) as runner:
                runner.run(main())
        else:
            trio.run(main, clock=clock.trio())

    assert clock.elapsed == pytest.approx(2)
    assert bulkhead.in_flight == 0
