"""The transports for plain and for async clients, and `attach`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from resilience._call.caller import Caller
from resilience._call.entry import aexecute, execute
from resilience._util.clock import FOREVER, clock
from resilience._util.extras import import_first
from resilience.errors import BadResult, DeadlineExceededError, RejectedError
from resilience.httpx._async_body import AsyncBody, is_alone
from resilience.httpx._base import BaseResilientTransport
from resilience.httpx._body import Body
from resilience.httpx._call import HttpCall
from resilience.httpx._deadline import DeadlineTrace, SendTrace, Upload
from resilience.httpx._discard import arelease_responses, release_responses
from resilience.httpx._modules import MODULES, httpx_module_of, is_a
from resilience.httpx._pool_repair import PoolSlot, repair

if TYPE_CHECKING:
    from httpx import AsyncBaseTransport, BaseTransport
else:
    _module = import_first(*MODULES)
    BaseTransport, AsyncBaseTransport = _module.BaseTransport, _module.AsyncBaseTransport

C = TypeVar("C")


class ResilientTransport(BaseResilientTransport, BaseTransport):
    """A transport for plain clients that passes every request through a pipeline.

    Args:
        pipeline: the pipeline, a single policy, or what `bind` of either returns.
        transport: the inner transport, which sends the requests. None for a new `HTTPTransport()` of httpx or httpx2,
            whichever the client belongs to.

    Raises:
        TypeError: `pipeline` is not a pipeline or policy, or `transport` has no method `handle_request`.
    """

    def __init__(self, pipeline: Caller[Any], transport: BaseTransport | None = None) -> None:
        super().__init__(pipeline, transport, "HTTPTransport", "handle_request")

    def handle_request(self, request: Any) -> Any:
        """Pass a request through the pipeline and return the response.

        Args:
            request: the request; every attempt sends a copy of it.

        Raises:
            RejectedError: the pipeline has rejected the request; nothing was sent. It is also a `TransportError` of
                httpx or httpx2, whichever the request belongs to.
            DeadlineExceededError: a deadline has passed. It is also a `TimeoutException` of httpx or httpx2.
            TypeError: the request and the inner transport are of different modules, httpx and httpx2; or the pipeline
                has returned an object that is not a response, such as the value of a fallback.
            httpx.TransportError: the last attempt has failed; or any other error of the inner transport.
        """
        if type(request) is not self._request_class:
            self._check_module(request)
        call = HttpCall(self._options, self._attempt, request, release_responses, self._times_closed)
        response: Any = None
        try:
            response = _checked(execute(self._entry, call))
        except (RejectedError, DeadlineExceededError) as error:
            problem = httpx_module_of(request).translated(error, request)
        else:
            return response
        finally:
            call.end()
            call.close_all(but=response)
        try:
            raise problem
        finally:
            del problem  # its traceback holds this frame

    def _attempt(self, call: HttpCall) -> Any:
        started = clock.monotonic()
        request, timeouts = self._outgoing(call)
        if call.deadline != FOREVER:
            module = httpx_module_of(request)
            request.extensions["trace"] = DeadlineTrace(timeouts, module, request.extensions.get("trace"))
            request.stream = module.derived(Upload, "SyncByteStream")(request.stream, timeouts, module)
        try:
            response = self._transport.handle_request(request)
        except BaseException as error:
            self._note_unsent(error, call)
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
        """Close the inner transport. Calls that wait for another attempt are rejected."""
        self._times_closed += 1
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
        self._times_closed += 1
        self._transport.__exit__(exc_type, exc_value, traceback)


class AsyncResilientTransport(BaseResilientTransport, AsyncBaseTransport):
    """A transport for async clients, on asyncio or trio, that passes every request through a pipeline.

    Args:
        pipeline: the pipeline, a single policy, or what `bind` of either returns.
        transport: the inner transport, which sends the requests. None for a new `AsyncHTTPTransport()` of httpx or
            httpx2, whichever the client belongs to.

    Raises:
        TypeError: `pipeline` is not a pipeline or policy, or `transport` has no method `handle_async_request`.
    """

    def __init__(self, pipeline: Caller[Any], transport: AsyncBaseTransport | None = None) -> None:
        super().__init__(pipeline, transport, "AsyncHTTPTransport", "handle_async_request")

    def _set_inner(self, transport: Any) -> None:
        super()._set_inner(transport)
        self._inner_is_httpx = is_a(transport, "AsyncHTTPTransport")

    async def handle_async_request(self, request: Any) -> Any:
        """Pass a request through the pipeline and return the response.

        Args:
            request: the request; every attempt sends a copy of it.

        Raises:
            RejectedError: the pipeline has rejected the request; nothing was sent. It is also a `TransportError` of
                httpx or httpx2, whichever the request belongs to.
            DeadlineExceededError: a deadline has passed. It is also a `TimeoutException` of httpx or httpx2.
            TypeError: the request and the inner transport are of different modules, httpx and httpx2; or the pipeline
                has returned an object that is not a response, such as the value of a fallback.
            httpx.TransportError: the last attempt has failed; or any other error of the inner transport.
        """
        if type(request) is not self._request_class:
            self._check_module(request)
        call = HttpCall(self._options, self._attempt, request, arelease_responses, self._times_closed)
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
            call.end()
            if call.opened:
                await self._close_all(call, response)
        try:
            raise problem
        finally:
            del problem  # its traceback holds this frame

    async def _attempt(self, call: HttpCall) -> Any:
        started = clock.monotonic()
        request, timeouts = self._outgoing(call)
        slot = None if self._pool is None else PoolSlot(self._pool)
        trace: SendTrace | None = None
        if self._own and call.deadline != FOREVER:
            trace = request.extensions["trace"] = SendTrace(call)
        try:
            response: Any = await self._transport.handle_async_request(request)
        except BaseException as error:
            self._note_unsent(error, call)
            if trace is not None and not trace.sending and not isinstance(error, Exception):
                call.set_unsent(True)  # cancelled while it was connecting
            if slot is not None:
                await slot.repair(error)
            raise
        bad, deferred = self._receive(response, call, timeouts)
        if not response.is_closed:
            body = httpx_module_of(response).derived(AsyncBody, "AsyncByteStream")
            alone = self._inner_is_httpx and is_alone(response)
            response.stream = body(response.stream, call, timeouts, started, deferred, alone, slot)
        if bad:
            raise BadResult(response)
        return response

    async def _close_all(self, call: HttpCall, but: Any = None) -> None:
        for response in call.pop_opened():
            if response is not but:
                await _discard(response)

    async def aclose(self) -> None:
        """Close the inner transport. Calls that wait for another attempt are rejected."""
        self._times_closed += 1
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
        self._times_closed += 1
        await self._transport.__aexit__(exc_type, exc_value, traceback)


async def _discard(response: Any) -> None:
    """Close a response that is not used, and ignore errors of its connection."""
    with contextlib.suppress(Exception):
        await response.aclose()


def _checked(response: Any) -> Any:
    """Return the result of a pipeline, or raise TypeError if it is not a response, such as the value of a fallback."""
    if not is_a(response, "Response"):
        raise TypeError(f"the pipeline of a client must return a Response, not {type(response)!r}")
    return response


def attach(client: C, pipeline: Caller[Any]) -> C:
    """Pass every request of a client through a pipeline, also through its proxies and other mounts.

    The transports of the client are wrapped in a `ResilientTransport` or an `AsyncResilientTransport`.

    Args:
        client: a `Client` or an `AsyncClient` of httpx or httpx2, or of a subclass.
        pipeline: the pipeline, a single policy, or what `bind` of either returns.

    Returns:
        The same client.

    Raises:
        TypeError: `client` is not such a client, or `pipeline` is not a pipeline or policy.
        ValueError: the client has a pipeline already.
    """
    private: Any = client
    if is_a(client, "Client"):
        make: Callable[[Any], Any] = partial(ResilientTransport, pipeline)
    elif is_a(client, "AsyncClient"):
        make = partial(AsyncResilientTransport, pipeline)
    else:
        raise TypeError(f"client must be a Client or an AsyncClient of {' or '.join(MODULES)}, not {client!r}")
    if any(isinstance(each, BaseResilientTransport) for each in (private._transport, *private._mounts.values())):
        raise ValueError("client is guarded already; two pipelines around it would multiply: put one into the other")
    made: dict[int, Any] = {}

    def wrapped(transport: Any) -> Any:
        if transport is None:  # a mount without a proxy uses the transport of the client
            return None
        if id(transport) not in made:
            made[id(transport)] = make(transport)
        return made[id(transport)]

    private._transport = wrapped(private._transport)
    private._mounts = {pattern: wrapped(transport) for pattern, transport in private._mounts.items()}
    return client
