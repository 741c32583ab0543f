"""Failed responses give their connection back before the next attempt: what is read, what is closed, what comes out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import httpcore
import httpx
import pytest

from resilience import CircuitBreaker, Pipeline, Retry, Timeout, backoff
from resilience._call.caller import options_of
from resilience._util.clock import clock
from resilience.httpx import attach
from resilience.testing import virtual_time
from tests.httpx.helpers import NOW, Ask, Pool, Script, Stream, everywhere, failed, retrying

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


def test_a_discarded_response_that_is_small_is_read(ask: Ask) -> None:
    body = Stream(b"small", b"er")

    assert ask(retrying(), Script(failed(body, 7), 200)).status_code == 200

    assert (body.read, body.closed) == (2, 1)


def test_a_discarded_response_of_unknown_length_is_read(ask: Ask) -> None:
    body = Stream(b"small", b"er")

    assert ask(retrying(), Script(failed(body), 200)).status_code == 200

    assert (body.read, body.closed) == (2, 1)


@pytest.mark.parametrize("length", [70_000, 10**30])
def test_a_discarded_response_that_is_known_to_be_large_is_closed(ask: Ask, length: int) -> None:
    body = Stream(b"large")

    assert ask(retrying(), Script(failed(body, length), 200)).status_code == 200

    assert (body.read, body.closed) == (0, 1)


def test_a_body_longer_than_it_says_is_not_read_for_ever(ask: Ask) -> None:
    body = Stream(*[b"x" * 40_000] * 100)

    assert ask(retrying(), Script(failed(body, 5), 200)).status_code == 200

    assert (body.read, body.closed) == (2, 1)


def test_a_slow_body_is_not_waited_for(ask: Ask) -> None:
    with virtual_time() as clock:
        body = Stream(*[b"x"] * 100, before=lambda: clock.advance(0.05))
        script = Script(failed(body, 100), 200)
        assert ask(retrying(), script).status_code == 200

    assert body.read <= 6
    assert body.closed == 1


def test_a_failed_response_that_comes_out_is_whole(ask: Ask) -> None:
    script = Script(
        lambda: failed(Stream(b"large ", b"and ", b"slow")),
    )

    assert ask(retrying(), script).text == "large and slow"


def test_the_error_of_a_failed_response_is_met_by_who_reads_it(ask: Ask) -> None:
    script = Script(lambda: failed(Stream(b"ten", httpx.ReadError("cut")), 10))

    with pytest.raises(httpx.ReadError, match="cut"):
        ask(retrying(), script)

    assert len(script.requests) == 3


def test_when_a_retry_is_refused_further_in_the_last_response_is_whole(ask: Ask) -> None:
    breaker = CircuitBreaker(consecutive_failures=1)
    body = Stream(b"the last ", b"word")
    pipeline = retrying(breaker)

    response = ask(pipeline, Script(failed(body), 200))

    assert (response.status_code, response.text) == (503, "the last word")
    assert body.closed == 1


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


def test_a_body_in_memory_is_kept(ask: Ask) -> None:
    refusing: Pipeline[Any] = Pipeline(Retry(2, wait=NOW), CircuitBreaker(consecutive_failures=1))

    response = ask(refusing, Script(httpx.Response(503, stream=httpx.ByteStream(b"busy"))))

    assert (response.content, response.extensions.get("resilience_body")) == (b"busy", None)


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
        options_of(Pipeline(), HTTP_FAILURES), lambda _: None, httpx.Request("GET", "http://q.test"), release_responses
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
        options_of(Pipeline(), HTTP_FAILURES), lambda _: None, httpx.Request("GET", "http://q.test"), release_responses
    )
    call.opened = Taken()

    release_responses(call)
    assert list(call.pop_others()) == []

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
