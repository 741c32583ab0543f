"""The transports for plain and for async clients.

The order of `_attempt`: the request gets what the attempt adds; the network of the pool notes the steps on the Timeouts
of the attempt; a response is noted as opened, its error body read, judged, and its body wrapped. After an exception,
what the Timeouts have noted says whether anything was sent (`HttpCall.unsent`, None if only the type of the failure can
tell), and whether the attempt still waited for a connection (`HttpCall.queued`). Then what httpcore has left behind is
released: connections with half a write (`close_broken`), those that the pool has lost (`repair`), and those that it
never had (`close_unowned`). Streams of HTTP/2 that were left are reset before the next attempt
(`release_left_streams`).
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from resilience._call.entry import aexecute, execute
from resilience._call.retry_marks import NOTE
from resilience._call.running_call import UNPHASED
from resilience._util.clock import FOREVER, clock
from resilience._util.extras import import_first
from resilience.errors import BadResult, DeadlineExceededError, RejectedError
from resilience.httpx._arrived import atake_body, take_body
from resilience.httpx._async_body import AsyncBody, is_alone
from resilience.httpx._async_network import AsyncObservingBackend, aclose_unowned, close_broken
from resilience.httpx._base import BaseResilientTransport
from resilience.httpx._body import Body
from resilience.httpx._call import HttpCall, close_quietly, copied, with_trace
from resilience.httpx._deadline import Upload, needs_upload
from resilience.httpx._discard import arelease_responses, release_responses
from resilience.httpx._error_body import aread_hints, read_hints
from resilience.httpx._failures import read_error
from resilience.httpx._http2_trace import AsyncHttp2Trace, Http2Trace
from resilience.httpx._lifetime import AsyncLifetime, Lifetime
from resilience.httpx._modules import MODULES, httpx_module_of, is_a
from resilience.httpx._network import DeadlineBackend, attempt_timeouts, close_unowned
from resilience.httpx._pool_repair import PoolSlot, repair
from resilience.httpx._privates import has_arrived
from resilience.httpx._verdicts import response_for, with_verdict

if TYPE_CHECKING:
    from httpx import AsyncBaseTransport, BaseTransport
else:
    _module = import_first(*MODULES)
    BaseTransport, AsyncBaseTransport = _module.BaseTransport, _module.AsyncBaseTransport


class ResilientTransport(BaseResilientTransport["BaseTransport"], Lifetime, BaseTransport):
    """A transport for plain clients that passes every request through a pipeline.

    Args:
        pipeline: the pipeline, a single policy, or what `bind` of either returns; None for the standard one.
        transport: the inner transport, which sends the requests. None for a new `HTTPTransport()` of httpx or httpx2,
            whichever the client belongs to.
        idempotent, propagate_to, idempotency_key, settle, reject_with: see `attach`, also for the standard pipeline.

    Raises:
        TypeError: `pipeline` is not a pipeline or policy, or `transport` has no method `handle_request`.
    """

    default_class = "HTTPTransport"
    send_method = "handle_request"
    network_class = DeadlineBackend
    clips_pool_timeout = True

    def handle_request(self, request: Any) -> Any:
        """Pass a request through the pipeline and return the response.

        Args:
            request: the request. It is not changed: what an attempt adds to it is in a copy.

        Raises:
            RejectedError: the pipeline has rejected the request; nothing was sent. It is also a `TransportError` of
                httpx or httpx2, whichever the request belongs to.
            DeadlineExceededError: a deadline has passed. It is also a `TimeoutException` of httpx or httpx2.
            TypeError: the request and the inner transport are of different modules, httpx and httpx2; or the pipeline
                has returned an object that is not a response, such as the value of a fallback.
            httpx.TransportError: the last attempt has failed; or any other error of the inner transport.
        """
        call = self._begin(request, self._attempt, release_responses)
        response: Any = None
        try:
            response = self._checked(execute(self._entry, call), call)
        except (RejectedError, DeadlineExceededError) as error:
            if self._settings.rejects_with_response:
                return response_for(error, request)
            problem = httpx_module_of(request).translated(error, request)
        else:
            return with_verdict(response) if NOTE in response.extensions else response
        finally:
            call.end()
            if call.opened:
                for other in call.pop_others():
                    close_quietly(other)
        try:
            raise problem
        finally:
            del problem  # its traceback holds this frame

    def _attempt(self, call: HttpCall) -> Any:
        started = clock.monotonic()
        request, timeouts = self._outgoing(call)
        before = attempt_timeouts.get()
        if self._http2_pool is not None:
            repair(self._http2_pool)  # of a connection that failed while a body was read
            trace = Http2Trace(timeouts, self._module.module, request.extensions.get("trace"))
            request = with_trace(request, trace)
        if self._own:
            attempt_timeouts.set(timeouts)
            if call.deadline != FOREVER and needs_upload(request.stream):
                upload = self._module.derived(Upload, "SyncByteStream")
                request = copied(request, request.extensions, None)
                request.stream = upload(request.stream, timeouts, self._module)
        try:
            response = self._transport.handle_request(request)
            call.queued = False
            call.opened.append(response)
            if response.status_code >= 400:
                read_hints(response, timeouts)
            elif not response.is_closed and call.shadow_phases is UNPHASED and has_arrived(response.stream):
                take_body(response, self._bytes_class)
        except BaseException as error:
            self._note_unsent(error, call, request, timeouts)
            if self._pool is not None:
                repair(self._pool)
                close_unowned(self._pool, timeouts)
            raise
        finally:
            if self._own:
                attempt_timeouts.set(before)
        bad = self._judge(response, call)
        if not (response.is_closed or response.stream.__class__ is self._bytes_class):  # the body is still to come
            timeouts.set_deadline(call.total_deadline)
            deferred = None if bad else self._defer(response, call, timeouts)
            body = self._module.derived(Body, "SyncByteStream")
            response.stream = body(response.stream, call, timeouts, started, deferred)
        if bad:
            raise BadResult(response)
        return response


class AsyncResilientTransport(BaseResilientTransport["AsyncBaseTransport"], AsyncLifetime, AsyncBaseTransport):
    """A transport for async clients, on asyncio or trio, that passes every request through a pipeline.

    Args:
        pipeline: the pipeline, a single policy, or what `bind` of either returns; None for the standard one.
        transport: the inner transport, which sends the requests. None for a new `AsyncHTTPTransport()` of httpx or
            httpx2, whichever the client belongs to.
        idempotent, propagate_to, idempotency_key, settle, reject_with: see `attach`, also for the standard pipeline.

    Raises:
        TypeError: `pipeline` is not a pipeline or policy, or `transport` has no method `handle_async_request`.
    """

    default_class = "AsyncHTTPTransport"
    send_method = "handle_async_request"
    network_class = AsyncObservingBackend
    clips_pool_timeout = False

    def _set_inner(self, transport: Any) -> None:
        super()._set_inner(transport)
        self._inner_is_httpx = is_a(transport, "AsyncHTTPTransport")

    async def handle_async_request(self, request: Any) -> Any:
        """Pass a request through the pipeline and return the response.

        Args:
            request: the request. It is not changed: what an attempt adds to it is in a copy.

        Raises:
            RejectedError: the pipeline has rejected the request; nothing was sent. It is also a `TransportError` of
                httpx or httpx2, whichever the request belongs to.
            DeadlineExceededError: a deadline has passed. It is also a `TimeoutException` of httpx or httpx2.
            TypeError: the request and the inner transport are of different modules, httpx and httpx2; or the pipeline
                has returned an object that is not a response, such as the value of a fallback.
            httpx.TransportError: the last attempt has failed; or any other error of the inner transport.
        """
        call = self._begin(request, self._attempt, arelease_responses)
        response: Any = None
        try:
            response = self._checked(await aexecute(self._entry, call), call)
        except (RejectedError, DeadlineExceededError) as error:
            if self._settings.rejects_with_response:
                return response_for(error, request)
            problem = httpx_module_of(request).translated(error, request)
        except GeneratorExit:
            call.opened.clear()  # a dropped coroutine cannot wait for anything
            raise
        else:
            return with_verdict(response) if NOTE in response.extensions else response
        finally:
            call.end()
            if call.opened:
                for other in call.pop_others():
                    await _discard(other)
        try:
            raise problem
        finally:
            del problem  # its traceback holds this frame

    async def _attempt(self, call: HttpCall) -> Any:
        started = clock.monotonic()
        request, timeouts = self._outgoing(call)
        received: Any = None
        if self._http2_pool is not None:
            request = with_trace(request, AsyncHttp2Trace(timeouts, request.extensions.get("trace")))
        before = attempt_timeouts.get()
        if self._own:
            attempt_timeouts.set(timeouts)
        try:
            response: Any = await self._transport.handle_async_request(request)
            call.queued = False
            call.opened.append(response)
            received = response.stream
            if response.status_code >= 400:
                await aread_hints(response, call.deadline)
            elif not response.is_closed and call.shadow_phases is UNPHASED and has_arrived(response.stream):
                await atake_body(response, self._bytes_class)
        except BaseException as error:
            self._note_unsent(error, call, request, timeouts)
            if self._is_observed and not isinstance(error, Exception):  # it was cancelled
                call.queued = not timeouts.has_connection
                if not timeouts.has_sent:
                    call.set_unsent(True)
            if self._http2_pool is not None and not isinstance(error, GeneratorExit):
                await close_broken(self._http2_pool)
            if self._pool is not None:
                await PoolSlot(self._pool, received).repair(error)
                if not isinstance(error, GeneratorExit):
                    await aclose_unowned(self._pool, timeouts)
            translated = read_error(error, call.request)
            if translated is not None:
                raise translated from error
            raise
        finally:
            if attempt_timeouts.get() is timeouts:  # a coroutine that was dropped may end in another context
                attempt_timeouts.set(before)
        bad = self._judge(response, call)
        if not (response.is_closed or response.stream.__class__ is self._bytes_class):  # the body is still to come
            timeouts.set_deadline(call.total_deadline)
            deferred = None if bad else self._defer(response, call, timeouts)
            body = self._module.derived(AsyncBody, "AsyncByteStream")
            alone = self._inner_is_httpx and is_alone(response)
            slot = None if self._pool is None else PoolSlot(self._pool, received)
            response.stream = body(response.stream, call, timeouts, started, deferred, alone, slot)
        if bad:
            raise BadResult(response)
        return response


async def _discard(response: Any) -> None:
    """Close a response that is not used, and ignore errors of its connection."""
    with contextlib.suppress(Exception):
        await response.aclose()
