"""The interceptors of the synchronous API, one for each arity."""

from __future__ import annotations

from typing import Any, Final

import grpc

from resilience.grpc._call import RpcCall, StreamedRpcCall
from resilience.grpc._future import FutureThread, RpcFuture
from resilience.grpc._guard import Guard
from resilience.grpc._requests import ReplayedRequests, UnaryRequest
from resilience.grpc._stream import ResponseStream, StreamAttempts, StreamThread
from resilience.grpc._unary import UnaryAttempts

_BLOCKS: Final = "with_call.<locals>.continuation"
"""How the qualified name of a continuation of grpc ends that waits for the end of the attempt."""


class _Interceptor:
    """Passes each RPC through a pipeline. Inner interceptors see every attempt, outer interceptors see one call.

    Args:
        guard: the guard of the channel.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def _unary(self, continuation: Any, details: Any, request: Any, kind: type[Any]) -> Any:
        """Make an RPC with a single response and return its outcome, or start it and return a future.

        grpc calls this both for blocking calls and for futures. Only the name of the continuation distinguishes them.
        If it has neither name, since another interceptor has wrapped it, a future is right in both cases: a blocking
        call then waits for its result.
        """
        guard = self._guard
        options = guard.options(details.method)
        if options.bypasses or guard.closed:
            return continuation(details, request)
        attempts = UnaryAttempts(guard, continuation, details, kind(request))
        if getattr(continuation, "__qualname__", "").endswith(_BLOCKS):
            call = guard.call(RpcCall, options, details.timeout, attempts, attempts.request_source)
            return attempts.call_of(guard.run(call))
        thread = FutureThread(attempts)
        future = RpcFuture(thread)
        future.start(guard.call(RpcCall, options, details.timeout, thread.attempt, attempts.request_source))
        return future

    def _stream(self, continuation: Any, details: Any, request: Any, kind: type[Any]) -> Any:
        """Start an RPC with a stream of responses and return it."""
        guard = self._guard
        options = guard.options(details.method)
        if options.bypasses or guard.closed:
            return continuation(details, request)
        attempts = StreamAttempts(guard, continuation, details, kind(request))
        thread = StreamThread(attempts)
        stream = ResponseStream(thread)
        stream.start(guard.call(StreamedRpcCall, options, details.timeout, thread.attempt, attempts.request_source))
        return stream


class UnaryUnaryInterceptor(_Interceptor, grpc.UnaryUnaryClientInterceptor):
    """The interceptor of RPCs with one request and one response."""

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Make or start an RPC."""
        return self._unary(continuation, client_call_details, request, UnaryRequest)


class UnaryStreamInterceptor(_Interceptor, grpc.UnaryStreamClientInterceptor):
    """The interceptor of RPCs with one request and a stream of responses."""

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Start an RPC."""
        return self._stream(continuation, client_call_details, request, UnaryRequest)


class StreamUnaryInterceptor(_Interceptor, grpc.StreamUnaryClientInterceptor):
    """The interceptor of RPCs with a stream of requests and one response."""

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        """Make or start an RPC."""
        return self._unary(continuation, client_call_details, request_iterator, ReplayedRequests)


class StreamStreamInterceptor(_Interceptor, grpc.StreamStreamClientInterceptor):
    """The interceptor of RPCs with streams of requests and responses."""

    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        """Start an RPC."""
        return self._stream(continuation, client_call_details, request_iterator, ReplayedRequests)


def sync_interceptors(guard: Guard) -> list[Any]:
    """Return the interceptors of a channel: one for each arity."""
    kinds = (UnaryUnaryInterceptor, UnaryStreamInterceptor, StreamUnaryInterceptor, StreamStreamInterceptor)
    return [kind(guard) for kind in kinds]
