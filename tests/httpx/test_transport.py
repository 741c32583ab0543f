"""Requests through a pipeline, without sockets: what is retried, what comes out, and which responses are closed."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import httpx2
import pytest

from resilience import Bulkhead, CircuitBreaker, Ending, Pipeline, Retry, Substitute, backoff
from resilience._call.call import Call
from resilience.httpx import HTTP_FAILURES, AsyncResilientTransport, ResilientTransport, attach
from tests.httpx.helpers import NOW, Ask, Script, Stream, failed, retrying
from tests.support.policies import Instead


def test_a_failure_is_retried(ask: Ask) -> None:
    script = Script(503, httpx.ReadError("hung up"), 200)

    assert ask(retrying(), script).status_code == 200

    assert len(script.requests) == 3


def test_an_answer_is_not(ask: Ask) -> None:
    script = Script(404, 200)

    assert ask(retrying(), script).status_code == 404


def test_the_last_response_comes_out(ask: Ask) -> None:
    script = Script(lambda: httpx.Response(503, text="closed today"))

    response = ask(retrying(), script)

    assert (response.status_code, response.text) == (503, "closed today")
    assert len(script.requests) == 3


def test_the_last_response_says_in_its_extensions_why_there_was_no_more(ask: Ask) -> None:
    response = ask(retrying(), Script(503))
    assert "retry gave up after 3 attempts" in response.extensions["resilience"]
    assert "no attempts are left" in response.extensions["resilience"]

    response = ask(retrying(CircuitBreaker(consecutive_failures=1)), Script(503))
    assert response.extensions["resilience"] == "attempt 2 not made: circuit open"

    assert "resilience" not in ask(retrying(), Script(200)).extensions


def test_the_last_exception_comes_out_with_a_note(ask: Ask) -> None:
    with pytest.raises(httpx.ReadError, match="hung up") as caught:
        ask(retrying(), Script(httpx.ReadError("hung up")))

    assert "3 attempts" in caught.value.__notes__[0]
    assert caught.value.request.url.host == "quotes.test"


def test_transports_of_ones_own() -> None:
    script = Script(503, 200, 503, 200)

    with httpx.Client(transport=ResilientTransport(retrying(), script)) as client:
        assert client.get("http://quotes.test").status_code == 200

    async def main() -> int:
        async with httpx.AsyncClient(transport=AsyncResilientTransport(Retry(2, wait=NOW), script)) as client:
            return (await client.get("http://quotes.test")).status_code

    assert asyncio.run(main()) == 200
    assert script.closed == 2


def test_httpx2_works() -> None:
    answers = iter([503, 200, 503, 200])

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(next(answers), text="fine")

    assert attach(httpx2.Client(transport=httpx2.MockTransport(answer)), retrying()).get("http://q.test").text == "fine"

    async def main() -> str:
        client = attach(httpx2.AsyncClient(transport=httpx2.MockTransport(answer)), retrying())
        return (await client.get("http://q.test")).text

    assert asyncio.run(main()) == "fine"


def test_a_response_that_a_fallback_replaces_is_closed(ask: Ask) -> None:
    body = Stream(b"x")
    script = Script(httpx.Response(503, stream=body))

    assert ask(Pipeline(Instead(httpx.Response(200, text="stale"))), script).text == "stale"

    assert body.closed == 1


def test_a_fallback_that_is_no_response_is_told_so(ask: Ask) -> None:
    with pytest.raises(TypeError, match="must return a Response, not <class 'str'>"):
        ask(Pipeline(Instead("stale")), Script(503))


def test_a_response_is_closed_when_something_raises_before_the_next_attempt() -> None:
    class Interrupting(Substitute[Any]):
        def should_handle(self, call: Call, ending: Ending) -> bool:
            raise KeyboardInterrupt

    body = Stream(b"x")

    with pytest.raises(KeyboardInterrupt):
        Ask("sync")(Pipeline(Interrupting()), Script(failed(body)))

    assert body.closed == 1


def test_cancelled_in_the_wait_of_a_retry() -> None:
    body = Stream(b"x")
    bulkhead = Bulkhead(1)

    async def main() -> None:
        client = attach(
            httpx.AsyncClient(transport=Script(failed(body))), Pipeline(Retry(wait=backoff.fixed(9)), bulkhead)
        )
        task = asyncio.create_task(client.get("http://quotes.test"))
        for _ in range(5):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())

    assert (body.closed, bulkhead.in_flight) == (1, 0)


def test_retries_do_not_multiply() -> None:
    script = Script(503)
    client = attach(httpx.Client(transport=script), retrying())

    @Pipeline(Retry(3, wait=NOW), failures=HTTP_FAILURES)
    def fetch() -> httpx.Response:
        return client.get("http://quotes.test").raise_for_status()

    with pytest.raises(httpx.HTTPStatusError):
        fetch()

    assert len(script.requests) == 3
