"""The interceptor of the synchronous API, for all arities."""

from __future__ import annotations

from typing import Any, Final

import grpc

from resilience.grpc._guard import Guard
from resilience.grpc._requests import ReplayedRequests, UnaryRequest
from resilience.grpc._rpcs import MakeRequest, call_rpc, start_future, start_stream
from resilience.grpc._unary import Details, UnaryAttempts

_BLOCKS: Final = "with_call.<locals>.continuation"
"""How the qualified name of a continuation of grpc ends that waits for the end of the attempt."""


class SyncInterceptor(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Passes each RPC through a pipeline. Inner interceptors see every attempt, outer interceptors see one call.

    It is one for all arities: with one for each, every call would pass through four channels of grpc.

    Args:
        guard: the guard of the channel.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Make or start an RPC with one request and one response."""
        return self._unary(continuation, client_call_details, request, UnaryRequest)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Start an RPC with one request and a stream of responses."""
        return start_stream(self._guard, continuation, _completed(client_call_details), request, UnaryRequest)

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        """Make or start an RPC with a stream of requests and one response."""
        return self._unary(continuation, client_call_details, request_iterator, ReplayedRequests)

    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        """Start an RPC with streams of requests and responses."""
        details = _completed(client_call_details)
        return start_stream(self._guard, continuation, details, request_iterator, ReplayedRequests)

    def _unary(self, continuation: Any, details: Any, request: Any, make_request: MakeRequest) -> Any:
        """Make an RPC with a single response and return its outcome, or start it and return a future.

        grpc calls this both for blocking calls and for futures. Only the name of the continuation distinguishes them.
        If it has neither name, since another interceptor has wrapped it, a future is right in both cases: a blocking
        call then waits for its result.
        """
        guard, details = self._guard, _completed(details)
        if not getattr(continuation, "__qualname__", "").endswith(_BLOCKS):
            return start_future(guard, continuation, details, request, make_request)
        response, attempts = call_rpc(UnaryAttempts, guard, continuation, details, request, make_request)
        return response if attempts is None else attempts.call_of(response)


def _completed(details: Any) -> Any:
    """Return details that have all attributes: older interceptors make some without `compression`."""
    if hasattr(details, "compression"):
        return details
    return Details(
        details.method, details.timeout, details.metadata, details.credentials, getattr(details, "wait_for_ready", None)
    )
