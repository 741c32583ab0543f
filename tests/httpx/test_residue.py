"""A failed response gives its connection back before the wait for the next attempt, and is whole if none follows."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import httpcore
import httpx
import pytest

from resilience import CircuitBreaker, Pipeline, Retry, Timeout, backoff
from resilience._util.clock import clock
from resilience.httpx import AsyncResilientTransport, ResilientTransport, attach
from resilience.testing import virtual_time
from tests.httpx.helpers import Ask, Pool, Script, Stream
from tests.httpx.server import Server

NOW = backoff.none()
WAYS = ["sync", "asyncio", "trio"]
everywhere = pytest.mark.parametrize("way", WAYS)
LARGE = {"content-length": "70000"}


class Timed(Stream):
    """Knows when it was closed."""

    when: float | None = None

    def close(self) -> None:
        super().close()
        self.when = clock.monotonic()

    async def aclose(self) -> None:
        self.close()


@pytest.mark.parametrize("headers", [{}, {"content-length": "4"}, LARGE])
def test_before_the_wait(headers: dict[str, str]) -> None:
    body = Timed(b"busy")

    with virtual_time() as clock:
        begun = clock.monotonic()
        script = Script(httpx.Response(503, stream=body, headers=headers), 200)
        assert Ask("sync")(Pipeline(Retry(2, wait=backoff.fixed(60))), script).status_code == 200

    assert (body.when, clock.elapsed) == (begun, 60)


def refused(*more: Any) -> Pipeline[Any]:
    """Decides on another attempt, which does not get past the breaker."""
    return Pipeline(Retry(3, wait=NOW), CircuitBreaker(consecutive_failures=1), *more)


@everywhere
@pytest.mark.parametrize("coding", ["identity", "gzip", "deflate", "gzip, deflate"])
def test_a_body_that_was_discarded_for_nothing_is_empty_and_says_so(way: str, coding: str) -> None:
    body = Stream(b"x" * 70_000)
    headers = {**LARGE, "x-request-id": "7", "content-encoding": coding}

    response = Ask(way)(refused(), Script(httpx.Response(503, stream=body, headers=headers)))

    assert (response.status_code, response.content, response.headers["x-request-id"]) == (503, b"", "7")
    assert response.extensions["resilience_body"] == "discarded"
    assert (body.read, body.closed) == (0, 1)


@everywhere
def test_a_body_that_broke_while_it_was_discarded_is_empty(way: str) -> None:
    body = Stream(b"ten", httpx.ReadError("cut"))

    response = Ask(way)(refused(), Script(httpx.Response(503, stream=body)))

    assert (response.content, response.extensions["resilience_body"], body.closed) == (b"", "discarded", 1)


@everywhere
def test_a_response_that_was_read_says_nothing_of_it(way: str) -> None:
    response = Ask(way)(refused(), Script(httpx.Response(503, stream=Stream(b"busy"))))

    assert response.content == b"busy"
    assert "resilience_body" not in response.extensions


@everywhere
def test_the_answer_to_head_is_never_large(way: str) -> None:
    body = Stream()

    response = Ask(way)(refused(), Script(httpx.Response(503, stream=body, headers=LARGE)), "HEAD")

    assert (response.content, body.closed) == (b"", 1)
    assert "resilience_body" not in response.extensions


@pytest.mark.parametrize("deadline", [0.1, 100.0])
def test_reading_is_bounded_by_the_deadline(deadline: float) -> None:
    with virtual_time() as clock:
        body = Stream(*[b"x"] * 100, before=lambda: clock.advance(0.02))
        script = Script(httpx.Response(503, stream=body))
        Ask("sync")(Pipeline(Timeout(deadline), Retry(2, wait=NOW)), script)
        assert clock.elapsed == pytest.approx(min(deadline, 0.2), abs=0.03)

    assert body.closed >= 1


def test_without_a_retry_nothing_is_read() -> None:
    body = Stream(b"busy")
    client = attach(httpx.Client(transport=Script(httpx.Response(503, stream=body))), Pipeline(CircuitBreaker()))

    with client.stream("GET", "http://quotes.test") as response:
        assert body.read == 0
        assert response.read() == b"busy"


def test_with_http2_a_plain_client_does_not_read() -> None:
    """A timeout of ours would break the connection for all others on it."""

    class Body:
        closed = 0

        def __iter__(self) -> Iterator[bytes]:
            pytest.fail("read")

        def close(self) -> None:
            self.closed += 1

    body = Body()
    pool = Pool(httpcore.Response(503, content=body, extensions={"http_version": b"HTTP/2"}), 200)

    assert Ask("sync")(Pipeline(Retry(2, wait=NOW)), pool.below("sync")).status_code == 200
    assert body.closed == 1


def test_a_body_that_is_replaced_by_a_thread_left_behind_is_closed() -> None:
    """What that thread has opened may not have been wrapped yet."""
    from resilience.httpx._call import HttpCall
    from resilience.httpx._discard import release_responses
    from resilience.httpx._failures import HTTP_FAILURES

    body = Stream(b"busy")
    call = HttpCall(
        Pipeline().call_options(HTTP_FAILURES), lambda _: None, httpx.Request("GET", "http://q.test"), release_responses
    )
    call.opened.append(httpx.Response(503, stream=body))

    release_responses(call)

    assert (body.read, body.closed, call.opened) == (0, 1, [])


def test_a_thread_left_behind_may_take_a_response_out_at_any_time() -> None:
    from resilience.httpx._call import HttpCall
    from resilience.httpx._discard import release_responses
    from resilience.httpx._failures import HTTP_FAILURES

    class Taken(list[Any]):
        """Seems to have something, and has not."""

        def __bool__(self) -> bool:
            return True

        def __iter__(self) -> Iterator[Any]:
            return iter([httpx.Response(503)])

    call = HttpCall(
        Pipeline().call_options(HTTP_FAILURES), lambda _: None, httpx.Request("GET", "http://q.test"), release_responses
    )
    call.opened = Taken()

    release_responses(call)
    call.close_all()

    assert list.__len__(call.opened) == 0


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_cancelled_while_it_is_read(backend: str) -> None:
    class Stalling(Stream):
        def __init__(self) -> None:
            super().__init__()
            self.begun = anyio.Event()

        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"busy"
            self.begun.set()
            await anyio.Event().wait()

    async def main() -> int:
        body = Stalling()
        client = attach(httpx.AsyncClient(transport=Script(httpx.Response(503, stream=body))), Pipeline(Retry(2)))
        async with anyio.create_task_group() as group:
            group.start_soon(client.get, "http://quotes.test")
            await body.begun.wait()
            group.cancel_scope.cancel()
        return body.closed

    assert anyio.run(main, backend=backend) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("policies", [(CircuitBreaker(),), (Retry(1),), (Retry(2, wait=NOW),)])
def test_a_pause_in_the_body_of_the_last_response_is_waited_for(policies: tuple[Any, ...], method: str) -> None:
    async def main() -> int:
        async with attach(httpx.AsyncClient(), Pipeline(*policies)) as client:
            return len((await client.request(method, f"{server.url}/busy_pausing")).content)

    with Server() as server:
        with attach(httpx.Client(), Pipeline(*policies)) as client:
            assert len(client.request(method, f"{server.url}/busy_pausing").content) == 20
        assert anyio.run(main, backend="asyncio") == anyio.run(main, backend="trio") == 20


def first(word: str) -> Callable[[str], str]:
    """Answer the first request to `/first` with a word."""
    words = iter([word])
    return lambda path: next(words, "good") if path == "/first" else "good"


LIMITS: dict[str, Any] = {"limits": httpx.Limits(max_connections=1), "timeout": httpx.Timeout(5, pool=1.2)}


@pytest.mark.slow
@pytest.mark.parametrize("word", ["busy_chunked", "busy_big", "busy_dripping"])
def test_a_retry_that_waits_keeps_no_connection(word: str) -> None:
    pipeline: Pipeline[Any] = Pipeline(Retry(2, wait=backoff.fixed(1.5)))
    scheduled = threading.Event()
    pipeline.subscribe(lambda event: scheduled.set())

    with Server(first(word)) as server, attach(httpx.Client(**LIMITS), pipeline) as client:
        thread = threading.Thread(target=client.get, args=(f"{server.url}/first",))
        thread.start()
        assert scheduled.wait(5)
        assert client.get(f"{server.url}/good").status_code == 200
        thread.join(10)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("word", ["busy_chunked", "busy_big", "busy_dripping"])
def test_a_retry_that_waits_keeps_no_connection_async(word: str, backend: str) -> None:
    async def main() -> None:
        pipeline: Pipeline[Any] = Pipeline(Timeout(3), Retry(2, wait=backoff.fixed(1.5)), Timeout(2))
        scheduled = anyio.Event()
        pipeline.subscribe(lambda event: scheduled.set())
        async with attach(httpx.AsyncClient(**LIMITS), pipeline) as client, anyio.create_task_group() as group:
            group.start_soon(client.get, f"{server.url}/first")
            await scheduled.wait()
            assert (await client.get(f"{server.url}/good")).status_code == 200
            group.cancel_scope.cancel()

    with Server(first(word)) as server:
        anyio.run(main, backend=backend)


@pytest.mark.slow
def test_small_failures_keep_their_connection() -> None:
    answers = iter(["busy", "busy_chunked", "good"] * 2)

    async def main() -> int:
        async with attach(httpx.AsyncClient(), Pipeline(Retry(3, wait=NOW))) as client:
            return (await client.get(server.url)).status_code

    with Server(lambda path: next(answers)) as server:
        with attach(httpx.Client(), Pipeline(Retry(3, wait=NOW))) as client:
            assert client.get(server.url).status_code == 200
        assert asyncio.run(main()) == 200

    assert server.connections == 2


@pytest.mark.slow
def test_a_response_is_readable_after_a_guard_further_in_refused_the_retry() -> None:
    def pipelines() -> tuple[Pipeline[Any], Pipeline[Any]]:
        return Pipeline(Retry(3, wait=NOW)), Pipeline(CircuitBreaker(consecutive_failures=1))

    async def main() -> bytes:
        outer, inner = pipelines()
        transport = AsyncResilientTransport(outer, AsyncResilientTransport(inner, httpx.AsyncHTTPTransport()))
        async with httpx.AsyncClient(transport=transport) as client:
            return (await client.get(f"{server.url}/busy_chunked")).content

    with Server() as server:
        outer, inner = pipelines()
        transport = ResilientTransport(outer, ResilientTransport(inner, httpx.HTTPTransport()))
        with httpx.Client(transport=transport) as client:
            assert client.get(f"{server.url}/busy_chunked").content == b"busy"
        assert asyncio.run(main()) == b"busy"
