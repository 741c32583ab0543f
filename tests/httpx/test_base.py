"""What both transports check: the pipeline, what sends the requests, and that the client is still open."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import httpx
import httpx2
import pytest

from resilience import Bulkhead, Pipeline, RejectedError, Retry
from resilience.httpx import AsyncResilientTransport, ResilientTransport, attach
from tests.httpx.helpers import NOW, Script, Stream, failed


def test_a_pipeline_is_wanted() -> None:
    wrong: Any = "pipeline"
    with pytest.raises(TypeError, match="pipeline must be"):
        attach(httpx.Client(), wrong)
    with pytest.raises(TypeError, match="pipeline must be"):
        AsyncResilientTransport(wrong)


@pytest.mark.parametrize("wrong", [httpx.Client(), httpx.AsyncHTTPTransport(), "transport", 7])
def test_a_transport_for_plain_clients_is_wanted(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"transport must be one that has handle_request, not "):
        ResilientTransport(Pipeline(), wrong)


@pytest.mark.parametrize("wrong", [httpx.AsyncClient(), httpx.HTTPTransport(), "transport", 7])
def test_a_transport_for_async_clients_is_wanted(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"transport must be one that has handle_async_request, not "):
        AsyncResilientTransport(Pipeline(), wrong)


def test_the_default_transports() -> None:
    plain: Any = ResilientTransport(Pipeline())
    awaited: Any = AsyncResilientTransport(Pipeline())

    assert isinstance(plain._transport, httpx.HTTPTransport)
    assert isinstance(awaited._transport, httpx.AsyncHTTPTransport)


def test_the_default_transports_of_a_client_of_httpx2() -> None:
    plain: Any = ResilientTransport(Pipeline(Retry(1)))
    awaited: Any = AsyncResilientTransport(Pipeline(Retry(1)))

    async def main() -> None:
        async with httpx2.AsyncClient(transport=awaited) as client:
            with pytest.raises(httpx2.ConnectError):
                await client.get("http://127.0.0.1:9")

    with httpx2.Client(transport=plain) as client, pytest.raises(httpx2.ConnectError):
        client.get("http://127.0.0.1:9")
    asyncio.run(main())

    assert isinstance(plain._transport, httpx2.HTTPTransport)
    assert isinstance(awaited._transport, httpx2.AsyncHTTPTransport)


def test_a_transport_of_the_other_module_is_refused() -> None:
    used: Any = ResilientTransport(Pipeline())
    with httpx.Client(transport=used) as client, pytest.raises(httpx.ConnectError):
        client.get("http://127.0.0.1:9")
    given: Any = ResilientTransport(Pipeline(), httpx.HTTPTransport(verify=False))

    for transport in (used, given):
        with pytest.raises(TypeError, match="sends by httpx, and the client is one of httpx2"):
            httpx2.Client(transport=transport).get("http://127.0.0.1:9")


@pytest.mark.parametrize("leave", [False, True])
def test_a_client_that_was_closed_during_the_wait_of_a_retry_sends_no_more(leave: bool) -> None:
    script = Script(lambda: failed(Stream(b"busy")))
    client: httpx.Client

    def wait(state: object) -> float:
        client.__exit__() if leave else client.close()
        return 0.0

    client = attach(httpx.Client(transport=script), Pipeline(Retry(3, wait=wait)))
    with client if leave else contextlib.nullcontext():
        assert client.get("http://quotes.test").text == "busy"

    assert len(script.requests) == 1
    with ResilientTransport(Pipeline(), script) as again:  # a transport may be used by several clients
        assert again.handle_request(httpx.Request("GET", "http://quotes.test")).status_code == 503
        again.close()
        assert again.handle_request(httpx.Request("GET", "http://quotes.test")).status_code == 503


@pytest.mark.parametrize("leave", [False, True])
def test_an_async_client_that_was_closed_during_the_wait_of_a_retry_sends_no_more(leave: bool) -> None:
    script = Script(httpx.ReadError("hung up"))
    bulkhead = Bulkhead(1, queue=1)

    async def main() -> None:
        client = attach(httpx.AsyncClient(transport=script), Pipeline(Retry(3, wait=NOW), bulkhead))
        async with bulkhead:
            task = asyncio.create_task(client.get("http://quotes.test"))
            for _ in range(5):
                await asyncio.sleep(0)
            assert bulkhead.queued == 1
            await (client.__aexit__() if leave else client.aclose())
        with pytest.raises(RejectedError, match="client was closed"):
            await task

    asyncio.run(main())

    assert script.requests == []
