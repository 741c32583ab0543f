"""What proves that nothing was sent, so that even a POST may be repeated: httpx's own transports, and nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, MutableMapping
from typing import Any

import aiohttp
import httpcore
import httpx
import pytest
import trio

from resilience import Allowlist, Failure, Pipeline, Retry, Timeout, backoff
from resilience._outcome.network_errors import NETWORK_ERRORS
from resilience.httpx import attach
from resilience.httpx._failures import unsent
from resilience.testing import FaultyServer
from tests.httpx.helpers import WAYS, Ask, Pool, Script, both_modules, everywhere, retrying
from tests.httpx.http2_server import Http2Server
from tests.httpx.server import Server

NOWHERE = "http://127.0.0.1:9"


UNSENT = ["ConnectError", "ConnectTimeout", "ProxyError", "PoolTimeout"]


def post(way: str, pipeline: Pipeline[Any], transport: Any) -> int | str:
    """The status, or the name of the error."""
    try:
        return Ask(way)(pipeline, transport, "POST", content=b"order").status_code
    except httpx.TransportError as error:
        return type(error).__name__


@everywhere
@pytest.mark.parametrize("name", UNSENT)
def test_transports_of_httpx_are_believed(way: str, name: str) -> None:
    pool = Pool(getattr(httpcore, name)("no connection"), getattr(httpcore, name)("none again"), 200)

    assert post(way, retrying(), pool.below(way)) == 200
    assert len(pool.requests) == 3


@everywhere
@pytest.mark.parametrize("failures", [None, NETWORK_ERRORS])
@pytest.mark.parametrize("error", [*(getattr(httpx, name)("?") for name in UNSENT), ConnectionRefusedError()])
def test_other_transports_are_not(way: str, failures: Allowlist | None, error: Exception) -> None:
    script = Script(error, 200)

    with pytest.raises(type(error)):
        Ask(way)(retrying(failures=failures), script, "POST", content=b"order")

    assert len(script.requests) == 1


@everywhere
def test_what_is_idempotent_is_repeated_all_the_same(way: str) -> None:
    assert Ask(way)(retrying(), Script(httpx.ConnectError("?"), 200), "PUT").status_code == 200


@everywhere
def test_whoever_knows_better_lists_an_error_of_their_own(way: str) -> None:
    class NotSent(httpx.TransportError):
        pass

    failures = Allowlist(NotSent, when=lambda error: Failure(unprocessed=True))

    assert post(way, retrying(failures=failures), Script(NotSent(""), 200)) == 200


def test_in_a_thread_of_its_own() -> None:
    pool = Pool(httpcore.ConnectError("refused"), 200)
    pipeline: Pipeline[Any] = Pipeline(Retry(3, wait=backoff.none()), Timeout(5, thread=True))

    assert post("sync", pipeline, pool.below("sync")) == 200
    assert post("sync", pipeline, Script(httpx.ConnectError("refused"), 200)) == "ConnectError"


def test_an_application_behind_an_asgi_transport_that_cannot_reach_its_own_dependency() -> None:
    delivered: list[str] = []

    async def app(scope: MutableMapping[str, Any], receive: object, send: object) -> None:
        delivered.append(scope["method"])
        async with httpx.AsyncClient() as client:
            await client.post(NOWHERE)

    async def main() -> None:
        transport: Any = httpx.ASGITransport(app=app)
        async with attach(httpx.AsyncClient(transport=transport), retrying()) as client:
            with pytest.raises(httpx.ConnectError):
                await client.post("http://orders.test/")

    asyncio.run(main())

    assert delivered == ["POST"]


def test_an_application_behind_a_wsgi_transport_that_cannot_reach_its_own_dependency() -> None:
    delivered: list[str] = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        delivered.append(environ["REQUEST_METHOD"])
        httpx.post(NOWHERE)
        return []

    transport: Any = httpx.WSGITransport(app=app)
    with attach(httpx.Client(transport=transport), retrying()) as client, pytest.raises(httpx.ConnectError):
        client.post("http://orders.test/")

    assert delivered == ["POST"]


class OnAiohttp(httpx.AsyncBaseTransport):
    """As httpx-aiohttp has it: whatever aiohttp calls a connection error is a ConnectTimeout."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            async with aiohttp.ClientSession() as session:
                url, body = str(request.url), await request.aread()
                async with session.request(request.method, url, data=body, headers={"x-id": "order"}) as response:
                    return httpx.Response(response.status, content=await response.read())
        except aiohttp.ClientConnectionError as error:
            raise httpx.ConnectTimeout(str(error)) from error


@pytest.mark.slow
@pytest.mark.parametrize("word", ["reset", "close"])
def test_aiohttp_whose_server_hangs_up_after_it_has_read_the_request(word: str) -> None:
    async def main() -> None:
        async with attach(httpx.AsyncClient(transport=OnAiohttp()), retrying()) as client:
            with pytest.raises(httpx.ConnectTimeout):
                await client.post(f"{server.url}/{word}", content=b"payment")

    with Server() as server:
        asyncio.run(main())

    assert server.seen["order"] == 1


def test_an_error_that_has_a_request_came_out_of_another_client() -> None:
    with pytest.raises(httpx.ConnectError) as caught:
        httpx.get(NOWHERE)

    assert unsent(caught.value, own=True) is False
    assert unsent(httpx.ConnectError("refused"), own=True) is True
    assert unsent(ConnectionRefusedError(), own=True) is False
    assert unsent(httpx.ReadError(""), own=True) is None
    assert unsent(KeyboardInterrupt(), own=True) is None


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@both_modules
def test_a_post_whose_stream_the_server_refuses_is_repeated(way: str, module: Any) -> None:
    pipeline = Pipeline(Retry(3, wait=backoff.none()), budget=None)
    settings: dict[str, Any] = {"http1": False, "http2": True}

    async def main(url: str) -> None:
        async with attach(module.AsyncClient(**settings), pipeline) as client:
            with pytest.raises(module.RemoteProtocolError):
                await client.post(url, content=b"once")

    with Http2Server() as server:
        url = f"{server.url}/refuse"
        if way == "sync":
            with attach(module.Client(**settings), pipeline) as client, pytest.raises(module.RemoteProtocolError):
                client.post(url, content=b"once")
        elif way == "asyncio":
            asyncio.run(main(url))
        else:
            trio.run(main, url)
    assert server.refused == 3


@everywhere
@both_modules
def test_an_error_that_a_mock_raises_in_place_of_httpx_is_believed(
    way: str, module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As pytest-httpx does it: it patches the transports of httpx, and sets the request of the error."""
    sent: list[Any] = []

    def handle(transport: Any, request: Any) -> Any:
        sent.append(request)
        if len(sent) == 1:
            raise module.ConnectError("mocked", request=request)
        return module.Response(200)

    async def ahandle(transport: Any, request: Any) -> Any:
        return handle(transport, request)

    monkeypatch.setattr(module.HTTPTransport, "handle_request", handle)
    monkeypatch.setattr(module.AsyncHTTPTransport, "handle_async_request", ahandle)

    async def main() -> Any:
        async with attach(module.AsyncClient(), retrying()) as client:
            return await client.post("http://quotes.test", content=b"order")

    if way == "sync":
        with attach(module.Client(), retrying()) as client:
            response = client.post("http://quotes.test", content=b"order")
    else:
        response = asyncio.run(main()) if way == "asyncio" else trio.run(main)

    assert response.status_code == 200
    assert len(sent) == 2


@everywhere
@both_modules
@pytest.mark.slow
def test_an_error_from_the_body_of_a_request_that_has_begun_is_not(way: str, module: Any) -> None:
    """It has no request yet either."""
    begun: list[str] = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            begun.append(way)
            yield b"begun"
            raise module.ConnectError("of something else")

    class AsyncBody:
        async def __aiter__(self) -> AsyncIterator[bytes]:
            begun.append(way)
            yield b"begun"
            raise module.ConnectError("of something else")

    async def main(url: str) -> None:
        async with attach(module.AsyncClient(), retrying()) as client:
            await client.post(url, content=AsyncBody())

    with FaultyServer() as server, pytest.raises(module.ConnectError, match="of something else"):
        if way == "sync":
            with attach(module.Client(), retrying()) as client:
                client.post(f"{server.url}/ok", content=Body())
        else:
            asyncio.run(main(f"{server.url}/ok")) if way == "asyncio" else trio.run(main, f"{server.url}/ok")
    assert begun == [way]
