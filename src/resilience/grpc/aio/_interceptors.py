"""The interceptors of `grpc.aio`, one for each arity.

grpc uses an interceptor that implements several arities for the first of them only (grpc/grpc #31442).
"""

from __future__ import annotations

from typing import Any

import grpc

from resilience.grpc._call import RpcCall, StreamedRpcCall
from resilience.grpc._guard import Guard
from resilience.grpc._requests import UnaryRequest
from resilience.grpc.aio._attempts import AioAttempts
from resilience.grpc.aio._calls import AioStreamStreamCall, AioStreamUnaryCall, AioUnaryStreamCall
from resilience.grpc.aio._outcomes import AioFailedCall
from resilience.grpc.aio._requests import AioReplayedRequests


class _Interceptor:
    """Passes each RPC through a pipeline. Inner interceptors see every attempt, outer interceptors see one call.

    Args:
        guard: the guard of the channel.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    async def _start(self, kinds: tuple[Any, Any, Any], continuation: Any, details: Any, request: Any) -> Any:
        """Start an RPC and return its call.

        Args:
            kinds: the classes of its requests, of the call of the pipeline, and of the call that is returned.
            continuation: the function of gRPC that starts an attempt.
            details: the details of the RPC.
            request: the request, or the iterator of requests.
        """
        guard = self._guard
        options = guard.options(_name(details.method))
        if options.bypasses:
            return await continuation(details, request)
        requests, kind, call_class = kinds
        attempts = AioAttempts(guard, continuation, details, requests(request))
        running = call_class(attempts)
        running.start(guard.call(kind, options, details.timeout, running.attempt, attempts.request_source))
        return running


class AioUnaryUnaryInterceptor(_Interceptor, grpc.aio.UnaryUnaryClientInterceptor):
    """The interceptor of RPCs with one request and one response."""

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Make the RPC and return the call of the attempt whose response is returned, or that of a failed RPC."""
        guard = self._guard
        options = guard.options(_name(client_call_details.method))
        if options.bypasses:
            return await continuation(client_call_details, request)
        attempts = AioAttempts(guard, continuation, client_call_details, UnaryRequest(request))
        source = attempts.request_source
        call = guard.call(RpcCall, options, client_call_details.timeout, attempts.response, source)
        try:
            return attempts.call_of(await guard.arun(call))
        except grpc.aio.AioRpcError as error:
            return AioFailedCall(error)


class AioUnaryStreamInterceptor(_Interceptor, grpc.aio.UnaryStreamClientInterceptor):
    """The interceptor of RPCs with one request and a stream of responses."""

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Start the RPC and return its call."""
        kinds = UnaryRequest, StreamedRpcCall, AioUnaryStreamCall
        return await self._start(kinds, continuation, client_call_details, request)


class AioStreamUnaryInterceptor(_Interceptor, grpc.aio.StreamUnaryClientInterceptor):
    """The interceptor of RPCs with a stream of requests and one response."""

    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        """Start the RPC and return its call."""
        kinds = AioReplayedRequests, RpcCall, AioStreamUnaryCall
        return await self._start(kinds, continuation, client_call_details, request_iterator)


class AioStreamStreamInterceptor(_Interceptor, grpc.aio.StreamStreamClientInterceptor):
    """The interceptor of RPCs with streams of requests and responses."""

    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        """Start the RPC and return its call."""
        kinds = AioReplayedRequests, StreamedRpcCall, AioStreamStreamCall
        return await self._start(kinds, continuation, client_call_details, request_iterator)


def _name(method: Any) -> str:
    """Return the name of a method, which is bytes or a string."""
    name: str = method.decode() if isinstance(method, bytes) else method
    return name


def aio_interceptors(guard: Guard) -> list[Any]:
    """Return the interceptors of a channel of `grpc.aio`: one for each arity."""
    kinds = AioUnaryUnaryInterceptor, AioUnaryStreamInterceptor, AioStreamUnaryInterceptor, AioStreamStreamInterceptor
    return [kind(guard) for kind in kinds]
