"""Transports without sockets: a script of answers, and bodies that say how they were treated; the ways to ask them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpcore
import httpx
import httpx2
import pytest
import trio

from resilience import Pipeline, Retry, backoff
from resilience._call.caller import Caller

NOW = backoff.none()
WAYS = ["sync", "asyncio", "trio"]
everywhere = pytest.mark.parametrize("way", WAYS)
both_modules = pytest.mark.parametrize("module", [httpx, httpx2], ids=["httpx", "httpx2"])


def retrying(*more: Any, attempts: int = 3, **settings: Any) -> Pipeline[Any]:
    """A pipeline that repeats without a wait."""
    return Pipeline(Retry(attempts, wait=NOW), *more, **settings)


class Stream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body in chunks; an exception among them is raised. Counts how often it was closed, and what was read."""

    def __init__(self, *chunks: bytes | BaseException, before: Callable[[], object] = lambda: None) -> None:
        self.chunks = chunks
        self.before = before
        self.closed = 0
        self.read = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self.chunks:
            self.before()
            if isinstance(chunk, BaseException):
                raise chunk
            self.read += 1
            yield chunk

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self:
            yield chunk

    def close(self) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        self.closed += 1


def failed(body: Stream, length: int | None = None) -> httpx.Response:
    """A response of status 503 with this body."""
    return httpx.Response(503, stream=body, headers={} if length is None else {"content-length": str(length)})


class Script(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Answers with one of a list after another, the last one again and again; keeps the requests."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.timeouts: list[dict[str, float | None]] = []
        """What each request was sent with."""
        self.bodies: list[bytes] = []
        self.closed = 0

    def _answer(self, request: httpx.Request, body: bytes) -> httpx.Response:
        self.requests.append(request)
        self.timeouts.append(dict(request.extensions.get("timeout", {})))
        self.bodies.append(body)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, int):
            return httpx.Response(answer)
        response: Any = answer() if callable(answer) else answer
        assert isinstance(response, httpx.Response)
        return response

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._answer(request, request.read())

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return self._answer(request, await request.aread())

    def close(self) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        self.closed += 1


class Pool:
    """Stands in for the pool of httpcore below httpx's own transports: raises its errors, or answers with a status."""

    def __init__(self, *answers: int | Exception | httpcore.Response) -> None:
        self.answers = list(answers)
        self.requests: list[httpcore.Request] = []

    def _answer(self, request: httpcore.Request) -> httpcore.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpcore.Response(answer) if isinstance(answer, int) else answer

    def handle_request(self, request: httpcore.Request) -> httpcore.Response:
        return self._answer(request)

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        return self._answer(request)

    def below(self, way: str) -> Any:
        """Return a transport of httpx's own with this pool."""
        made: Any = httpx.HTTPTransport(verify=False) if way == "sync" else httpx.AsyncHTTPTransport(verify=False)
        made._pool = self
        return made


class Ask:
    """Makes one request in one of three ways."""

    def __init__(self, way: str) -> None:
        self.way = way

    def __call__(self, guard: Caller[Any], script: Any, method: str = "GET", **arguments: Any) -> httpx.Response:
        from resilience.httpx import attach

        if self.way == "sync":
            client = attach(httpx.Client(transport=script), guard)
            return client.request(method, "https://user:secret@quotes.test/path?key=secret", **arguments)

        async def main() -> httpx.Response:
            async_client = attach(httpx.AsyncClient(transport=script), guard)
            return await async_client.request(method, "https://user:secret@quotes.test/path?key=secret", **arguments)

        found: httpx.Response = asyncio.run(main()) if self.way == "asyncio" else trio.run(main)
        return found
