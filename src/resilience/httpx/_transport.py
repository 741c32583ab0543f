"""The transports that pass every request through a pipeline, and `attach`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from resilience._call.caller import Caller
from resilience._call.entry import aexecute, execute
from resilience._util.clock import FOREVER, clock
from resilience.errors import BadResult, DeadlineExceededError, RejectedError
from resilience.httpx._base import BaseResilientTransport
from resilience.httpx._body import AsyncBody, Body, is_alone
from resilience.httpx._call import HttpCall
from resilience.httpx._deadline import DeadlineTrace, SendTrace, Upload
from resilience.httpx._discard import arelease_responses, release_responses
from resilience.httpx._modules import MODULES, httpx_module_of, is_a, load_httpx_module
from resilience.httpx._pool_repair import PoolSlot, repair

if TYPE_CHECKING:
    from httpx import AsyncBaseTransport, BaseTransport
else:
    try:
        _module = load_httpx_module("httpx").module
    except ImportError:  # only the fork is installed
        _module = load_httpx_module("httpx2").module
    BaseTransport, AsyncBaseTransport = _module.BaseTransport, _module.AsyncBaseTransport

C = TypeVar("C")


class ResilientTransport(BaseResilientTransport, BaseTransport):
    """A transport that passes every request through a pipeline, for plain clients.

    Args:
        pipeline: the pipeline, or a single policy; also a bound one.
        transport: what sends the requests; None: an `HTTPTransport()` of httpx or httpx2, as the client is.

    Raises:
        TypeError: `pipeline` is no pipeline, or `transport` no transport for plain clients.
    """

    def __init__(self, pipeline: Caller[Any], transport: BaseTransport | None = None) -> None:
        super().__init__(pipeline, transport, "HTTPTransport", "handle_request")

    def handle_request(self, request: Any) -> Any:
        """Send a request, as often as the pipeline says.

        Raises:
            RejectedError: also an `httpx.TransportError`; nothing was sent.
            DeadlineExceededError: also an `httpx.TimeoutException`.
            TypeError: the request is of httpx2 and the transport of httpx, or the other way round.
        """
        if type(request) is not self._speaks:
            self._speak(request)
        call = HttpCall(self._options, self._attempt, request, release_responses, self._closings)
        response: Any = None
        try:
            response = _checked(execute(self._entry, call))
        except (RejectedError, DeadlineExceededError) as error:
            problem = httpx_module_of(request).translated(error, request)
        else:
            return response
        finally:
            call.over()
            call.close_all(but=response)
        try:
            raise problem
        finally:
            del problem  # its traceback holds this frame

    def _attempt(self, call: HttpCall) -> Any:
        started = clock.monotonic()
        request, timeouts = self._outgoing(call)
        if call.deadline != FOREVER:
            dialect = httpx_module_of(request)
            request.extensions["trace"] = DeadlineTrace(timeouts, dialect, request.extensions.get("trace"))
            request.stream = dialect.derived(Upload, "SyncByteStream")(request.stream, timeouts, dialect)
        try:
            response = self._transport.handle_request(request)
        except BaseException as error:
            self._learn(error, call)
            if self._pool is not None:
                repair(self._pool)
            raise
        bad, deferred = self._receive(response, call, timeouts)
        if not response.is_closed:
            body = httpx_module_of(response).derived(Body, "SyncByteStream")
            response.stream = body(response.stream, call, timeouts, started, deferred)
        if bad:
            raise BadResult(response)
        return response

    def close(self) -> None:
        """Close the transport that sends the requests."""
        self._closings += 1
        self._transport.close()

    def __enter__(self) -> ResilientTransport:
        self._transport.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self._closings += 1
        self._transport.__exit__(exc_type, exc_value, traceback)


class AsyncResilientTransport(BaseResilientTransport, AsyncBaseTransport):
    """A transport that passes every request through a pipeline, for async clients: asyncio or trio.

    Args:
        pipeline: the pipeline, or a single policy; also a bound one.
        transport: what sends the requests; None: an `AsyncHTTPTransport()` of httpx or httpx2, as the client is.

    Raises:
        TypeError: `pipeline` is no pipeline, or `transport` no transport for async clients.
    """

    def __init__(self, pipeline: Caller[Any], transport: AsyncBaseTransport | None = None) -> None:
        super().__init__(pipeline, transport, "AsyncHTTPTransport", "handle_async_request")

    def _send_by(self, transport: Any) -> None:
        super()._send_by(transport)
        self._pooled = is_a(transport, "AsyncHTTPTransport")

    async def handle_async_request(self, request: Any) -> Any:
        """Send a request, as often as the pipeline says.

        Raises:
            RejectedError: also an `httpx.TransportError`; nothing was sent.
            DeadlineExceededError: also an `httpx.TimeoutException`.
            TypeError: the request is of httpx2 and the transport of httpx, or the other way round.
        """
        if type(request) is not self._speaks:
            self._speak(request)
        call = HttpCall(self._options, self._attempt, request, arelease_responses, self._closings)
        response: Any = None
        try:
            response = _checked(await aexecute(self._entry, call))
        except (RejectedError, DeadlineExceededError) as error:
            problem = httpx_module_of(request).translated(error, request)
        except GeneratorExit:
            call.opened.clear()  # a dropped coroutine cannot wait for anything
            raise
        else:
            return response
        finally:
            call.over()
            if call.opened:
                await self._close_all(call, response)
        try:
            raise problem
        finally:
            del problem  # its traceback holds this frame

    async def _attempt(self, call: HttpCall) -> Any:
        started = clock.monotonic()
        request, timeouts = self._outgoing(call)
        place = None if self._pool is None else PoolSlot(self._pool)
        following: SendTrace | None = None
        if self._own and call.deadline != FOREVER:
            following = request.extensions["trace"] = SendTrace(call)
        try:
            response: Any = await self._transport.handle_async_request(request)
        except BaseException as error:
            self._learn(error, call)
            if following is not None and not following.sending and not isinstance(error, Exception):
                call.learn(unsent=True)  # cut while it was connecting
            if place is not None:
                await place.repair(error)
            raise
        bad, deferred = self._receive(response, call, timeouts)
        if not response.is_closed:
            body = httpx_module_of(response).derived(AsyncBody, "AsyncByteStream")
            alone = self._pooled and is_alone(response)
            response.stream = body(response.stream, call, timeouts, started, deferred, alone, place)
        if bad:
            raise BadResult(response)
        return response

    async def _close_all(self, call: HttpCall, but: Any = None) -> None:
        for response in call.taken():
            if response is not but:
                await _discard(response)

    async def aclose(self) -> None:
        """Close the transport that sends the requests."""
        self._closings += 1
        await self._transport.aclose()

    async def __aenter__(self) -> AsyncResilientTransport:
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self._closings += 1
        await self._transport.__aexit__(exc_type, exc_value, traceback)


async def _discard(response: Any) -> None:
    """Close a response that nobody wants; how its connection fares is nobody's business."""
    with contextlib.suppress(Exception):
        await response.aclose()


def _checked(response: Any) -> Any:
    """Refuse what no client can take, such as the value of a fallback that was not made for HTTP."""
    if not is_a(response, "Response"):
        raise TypeError(f"what comes out of the pipeline of a client must be a Response, not {type(response)!r}")
    return response


def attach(client: C, pipeline: Caller[Any]) -> C:
    """Pass every request of a client through a pipeline; its proxies and other mounts included.

    Args:
        client: a `Client` or an `AsyncClient` of httpx or httpx2.
        pipeline: the pipeline, or a single policy; also a bound one.

    Returns:
        The same client.

    Raises:
        TypeError: `client` is no such client, or `pipeline` no pipeline.
        ValueError: the client is guarded already.
    """
    inside: Any = client
    if is_a(client, "Client"):
        make: Callable[[Any], Any] = partial(ResilientTransport, pipeline)
    elif is_a(client, "AsyncClient"):
        make = partial(AsyncResilientTransport, pipeline)
    else:
        raise TypeError(f"client must be a Client or an AsyncClient of {' or '.join(MODULES)}, not {client!r}")
    if any(isinstance(one, BaseResilientTransport) for one in (inside._transport, *inside._mounts.values())):
        raise ValueError("client is guarded already; two pipelines around it would multiply: put one into the other")
    made: dict[int, Any] = {}

    def wrapped(transport: Any) -> Any:
        if transport is None:  # a mount that goes by no proxy: by the client's own transport
            return None
        if id(transport) not in made:
            made[id(transport)] = make(transport)
        return made[id(transport)]

    inside._transport = wrapped(inside._transport)
    inside._mounts = {pattern: wrapped(transport) for pattern, transport in inside._mounts.items()}
    return client
