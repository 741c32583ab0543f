"""How RPCs of the synchronous API are made: waited for, started as futures, or as streams of responses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from resilience.grpc._call import RpcCall, StreamedRpcCall
from resilience.grpc._future import FutureThread, RpcFuture
from resilience.grpc._guard import Guard
from resilience.grpc._requests import AnyRequest
from resilience.grpc._stream import ResponseStream, StreamAttempts, StreamThread
from resilience.grpc._unary import SyncAttempts, UnaryAttempts

Continuation: TypeAlias = Callable[[Any, Any], Any]
"""Starts an attempt with its details and its request."""
MakeRequest: TypeAlias = Callable[[Any], AnyRequest]
"""Returns what the attempts send for the request, or the request iterator, of the caller."""


def call_rpc(
    kind: Callable[..., SyncAttempts],
    guard: Guard,
    continuation: Continuation,
    details: Any,
    request: Any,
    make_request: MakeRequest,
) -> tuple[Any, Any]:
    """Make an RPC with a single response.

    Args:
        kind: the class of its attempts.
        guard: the guard of the channel.
        continuation: starts an attempt.
        details: the details of the RPC.
        request: the request, or the request iterator.
        make_request: returns what the attempts send.

    Returns:
        The response, and the attempts, which know the call that has received it. The attempts are None if the RPC has
        bypassed the pipeline; then the response is what the continuation has returned.
    """
    options = guard.options(details.method)
    if options.bypasses or guard.closed:
        return continuation(details, request), None
    source = make_request(request)
    attempts: Any = kind(guard, continuation, details, source)
    return guard.run(guard.call(RpcCall, options, details.timeout, attempts.attempt, source)), attempts


def start_future(
    guard: Guard, continuation: Continuation, details: Any, request: Any, make_request: MakeRequest
) -> Any:
    """Start an RPC with a single response and return its future; the arguments are those of `call_rpc`."""
    options = guard.options(details.method)
    if options.bypasses or guard.closed:
        return continuation(details, request)
    source = make_request(request)
    thread = FutureThread(UnaryAttempts(guard, continuation, details, source))
    future = RpcFuture(thread)
    future.start(guard.call(RpcCall, options, details.timeout, thread.attempt, source))
    return future


def start_stream(
    guard: Guard, continuation: Continuation, details: Any, request: Any, make_request: MakeRequest
) -> Any:
    """Start an RPC with a stream of responses and return the stream; the arguments are those of `call_rpc`."""
    options = guard.options(details.method)
    if options.bypasses or guard.closed:
        return continuation(details, request)
    source = make_request(request)
    thread = StreamThread(StreamAttempts(guard, continuation, details, source))
    stream = ResponseStream(thread)
    stream.start(guard.call(StreamedRpcCall, options, details.timeout, thread.attempt, source))
    return stream
