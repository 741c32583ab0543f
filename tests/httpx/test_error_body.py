"""The JSON body of an error response: its hints are obeyed, and the caller gets it as it was sent."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import requests
import trio

from resilience import HTTP_FAILURES, CircuitBreaker, Cooldown, DeadlineExceededError, Pipeline, Retry, Timeout, backoff
from resilience.errors import RateLimitedError
from resilience.events import RetryScheduled
from resilience.httpx import attach
from resilience.testing import FaultyServer, Recorder, virtual_time
from tests.httpx.helpers import Ask, Script, Stream, both_modules, retrying

PROBLEM = "application/problem+json"
JSON = {"content-type": "application/json"}
RETRY_INFO = {
    "error": {
        "code": 429,
        "status": "RESOURCE_EXHAUSTED",
        "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"}],
    }
}


class Stalling(Stream):
    """A body that stalls after its first byte, in virtual time."""

    def __init__(self, backend: str) -> None:
        super().__init__()
        self.library: Any = asyncio if backend == "asyncio" else trio

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"{"
        await self.library.sleep(3600)


def response(status: int, document: object, headers: dict[str, str] = JSON, encoding: str = "") -> httpx.Response:
    """A response that arrives in pieces, as over a socket."""
    body = json.dumps(document).encode()
    if encoding:
        body = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
        headers = {**headers, "content-encoding": encoding}
    return httpx.Response(status, headers=headers, stream=Stream(body[:5], body[5:]))


@pytest.mark.parametrize("encoding", ["", "gzip", "deflate"])
@pytest.mark.parametrize(
    ("status", "document", "content_type"),
    [
        (503, {"retryAfter": 7}, PROBLEM),
        (503, {"extensions": {"retry_after": "7"}}, PROBLEM + "; charset=utf-8"),
        (429, RETRY_INFO, "application/json; charset=UTF-8"),
    ],
)
def test_a_time_in_the_body_is_waited_for(
    status: int, document: object, content_type: str, encoding: str, ask: Ask
) -> None:
    pipeline = Pipeline(Retry(2, wait=backoff.none()))
    script = Script(response(status, document, {"content-type": content_type}, encoding), 200)

    with virtual_time(), Recorder(pipeline) as recorder:
        assert ask(pipeline, script).status_code == 200

    (event,) = recorder.of(RetryScheduled)
    assert 7 <= event.wait <= 7 * 1.2


@pytest.mark.parametrize(("said", "sent"), [(True, 2), (False, 1)])
def test_whether_to_repeat_is_in_the_body(said: bool, sent: int, ask: Ask) -> None:
    status = 404 if said else 503
    script = Script(response(status, {"retryable": said}, {"content-type": PROBLEM}), 200)

    assert ask(retrying(), script).status_code == (200 if said else 503)

    assert len(script.requests) == sent


def test_a_request_that_is_not_idempotent_is_not_repeated_for_it(ask: Ask) -> None:
    script = Script(response(404, {"retryable": True}), 200)

    assert ask(retrying(), script, "POST").status_code == 404


@pytest.mark.parametrize(
    ("headers", "document", "sent"),
    [({"x-should-retry": "false"}, {"retryable": True}, 1), ({"x-should-retry": "true"}, {"retryable": False}, 2)],
)
def test_headers_take_precedence(headers: dict[str, str], document: object, sent: int, ask: Ask) -> None:
    script = Script(response(503, document, {**JSON, **headers}), 200)

    ask(retrying(), script)

    assert len(script.requests) == sent


def test_a_cooldown_obeys_the_body(ask: Ask) -> None:
    cooldown = Cooldown(max_wait=0.0)
    script = Script(lambda: response(429, RETRY_INFO))

    with virtual_time():
        assert ask(Pipeline(cooldown), script).status_code == 429
        with pytest.raises(RateLimitedError):
            ask(Pipeline(cooldown), script)


@pytest.mark.parametrize("encoding", ["", "gzip", "deflate"])
def test_the_caller_gets_the_body(encoding: str, ask: Ask) -> None:
    script = Script(lambda: response(404, RETRY_INFO, encoding=encoding))

    assert ask(retrying(), script).json() == RETRY_INFO


def test_a_large_body_is_read_by_the_caller_only(ask: Ask) -> None:
    half = b'{"retryable": true, "more": "' + b"x" * 50_000
    stream = Stream(half, half, half, b'"}')
    script = Script(httpx.Response(404, headers=JSON, stream=stream))
    read_when_sent: list[int] = []

    async def main() -> None:
        client = attach(httpx.AsyncClient(transport=script), retrying())
        async with client.stream("GET", "http://quotes.test") as streamed:
            read_when_sent.append(stream.read)
            assert await streamed.aread() == half * 3 + b'"}'

    if ask.way == "sync":
        with attach(httpx.Client(transport=script), retrying()).stream("GET", "http://quotes.test") as streamed:
            read_when_sent.append(stream.read)
            assert streamed.read() == half * 3 + b'"}'
    elif ask.way == "asyncio":
        asyncio.run(main())
    else:
        trio.run(main)

    assert read_when_sent == [2]
    assert stream.closed >= 1


def test_a_large_body_that_is_closed_unread_is_closed(ask: Ask) -> None:
    stream = Stream(*[b"x" * 40_000] * 3)
    script = Script(httpx.Response(503, headers=JSON, stream=stream), 200)

    assert ask(retrying(), script).status_code == 200
    assert stream.closed >= 1


def test_a_body_that_breaks_leaves_the_verdict_to_the_head(ask: Ask) -> None:
    broken = Script(lambda: httpx.Response(503, headers=JSON, stream=Stream(b'{"retrya', httpx.ReadError("cut"))))

    with pytest.raises(httpx.ReadError, match="cut"):
        ask(retrying(), broken)
    assert len(broken.requests) == 3


@pytest.mark.parametrize("headers", [{"content-type": "text/html"}, {**JSON, "content-encoding": "br"}, {}])
def test_other_bodies_are_left_alone(headers: dict[str, str]) -> None:
    stream = Stream(b"{}")
    script = Script(httpx.Response(404, headers=headers, stream=stream))

    with attach(httpx.Client(transport=script), retrying()).stream("GET", "http://quotes.test"):
        assert stream.read == 0


@pytest.mark.parametrize(
    "body", [b"\x1f\x8bgarbage", gzip.compress(b'{"retryable": true}', mtime=0)[:-12]], ids=["garbage", "cut"]
)
def test_garbage_in_a_coding_has_no_hints(body: bytes) -> None:
    headers = {**JSON, "content-encoding": "gzip"}
    script = Script(httpx.Response(404, headers=headers, stream=Stream(body)))

    with attach(httpx.Client(transport=script), retrying()).stream("GET", "http://quotes.test") as streamed:
        assert b"".join(streamed.iter_raw()) == body
    assert len(script.requests) == 1


@pytest.mark.parametrize(
    ("coding", "form"), [("GZIP", zlib.MAX_WBITS | 16), ("Deflate", zlib.MAX_WBITS), ("deflate", -zlib.MAX_WBITS)]
)
def test_codings_in_the_forms_that_httpx_knows_are_read(coding: str, form: int) -> None:
    packing = zlib.compressobj(wbits=form)
    packed = packing.compress(b'{"retryable": true}') + packing.flush()
    headers = {**JSON, "content-encoding": coding}
    script = Script(httpx.Response(404, headers=headers, stream=Stream(packed)), 200)

    assert Ask("sync")(retrying(), script).status_code == 200


def test_a_body_that_unpacks_to_more_than_the_bound_has_no_hints() -> None:
    packed = gzip.compress(b'{"retryable": true}'.ljust(10_000_000))
    assert len(packed) < 65_536
    script = Script(httpx.Response(404, headers={**JSON, "content-encoding": "gzip"}, stream=Stream(packed)))

    attach(httpx.Client(transport=script), retrying()).get("http://quotes.test")

    assert len(script.requests) == 1


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_body_that_stalls_is_cut_with_its_attempt_and_closed(backend: str) -> None:
    stream, breaker = Stalling(backend), CircuitBreaker()
    script = Script(httpx.Response(503, headers=JSON, stream=stream), 200)

    async def main() -> None:
        client = attach(httpx.AsyncClient(transport=script), Pipeline(retry, breaker, Timeout(1)))
        assert (await client.get("http://quotes.test")).status_code == 200

    with virtual_time() as clock:
        retry = Retry(2, wait=backoff.none())
        asyncio.run(main()) if backend == "asyncio" else trio.run(main, clock=clock.trio())

    assert stream.closed >= 1
    assert breaker.snapshot()["failures"] == 1


def test_a_response_that_was_read_before_is_not_read_again() -> None:
    script = Script(httpx.Response(404, json={"retryable": True}), 200)

    assert Ask("sync")(retrying(), script).status_code == 200


def decode(kind: str) -> Any:
    """A response of requests or httpx whose body has been read."""
    if kind == "httpx":
        return httpx.Response(404, json={"retryable": True, "retryAfter": 3})
    answer = requests.Response()
    answer.status_code = 404
    answer.headers["Content-Type"] = "application/json"
    answer._content = b'{"retryable": true, "retryAfter": 3}'
    return answer


@pytest.mark.parametrize("kind", ["httpx", "requests"])
@pytest.mark.parametrize("wrap", [False, True])
def test_a_decorated_function_has_the_hints_of_a_body_that_was_read(kind: str, wrap: bool) -> None:
    answer = decode(kind)
    error: Any = Exception("404")
    error.response = answer

    failure = HTTP_FAILURES.classify(error if wrap else answer)

    assert failure is not None
    assert (failure.retry_after, failure.retryable, failure.counted) == (3.0, True, False)


@pytest.mark.slow
@both_modules
def test_a_response_that_is_dropped_while_it_is_read_gives_its_connection_back(module: Any) -> None:
    with FaultyServer() as server:
        url = f"{server.url}/400?size=500&header=Content-Type: application/json"
        limits = module.Limits(max_connections=1)
        with attach(module.Client(limits=limits, timeout=5.0), retrying()) as client:
            for _ in range(2):
                response = client.send(client.build_request("GET", url), stream=True)
                assert next(response.iter_bytes(100)) == b"x" * 100
                del response


def test_an_error_of_a_deadline_in_the_body_is_that_of_the_attempt() -> None:
    with virtual_time() as clock:

        def late() -> None:
            clock.advance(0.6)
            raise httpx.ReadTimeout("late")

        script = Script(lambda: httpx.Response(400, headers=JSON, stream=Stream(b"{", before=late)), 200)
        with pytest.raises(httpx.TimeoutException) as caught:
            Ask("sync")(Pipeline(Retry(2, wait=backoff.none()), Timeout(0.5)), script, "POST")

    assert isinstance(caught.value, DeadlineExceededError)
    assert len(script.requests) == 1


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_without_a_deadline_a_body_is_waited_for_so_long(backend: str) -> None:
    stream = Stalling(backend)

    async def main() -> None:
        client = attach(
            httpx.AsyncClient(transport=Script(httpx.Response(404, headers=JSON, stream=stream))), Pipeline()
        )
        async with client.stream("GET", "http://quotes.test") as response:
            assert response.status_code == 404
            with pytest.raises(httpx.ReadTimeout, match="did not come within 5 s"):
                await response.aread()

    with virtual_time() as clock:
        asyncio.run(main()) if backend == "asyncio" else trio.run(main, clock=clock.trio())


def test_closing_while_another_task_reads_ends_both() -> None:
    class Endless(Stream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            while not self.closed:
                yield b"x" * 40_000
                await asyncio.sleep(0)

    async def main() -> None:
        client = attach(
            httpx.AsyncClient(transport=Script(httpx.Response(404, headers=JSON, stream=Endless()))), Pipeline()
        )
        async with client.stream("GET", "http://quotes.test") as response:
            reading = asyncio.create_task(response.aread())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await response.aclose()
            await asyncio.wait([reading])

    asyncio.run(main())
