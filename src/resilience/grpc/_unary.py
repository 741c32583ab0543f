"""Unary-unary RPCs of the synchronous API: `stub.Method()`, `.with_call()` and `.future()`."""

from __future__ import annotations

from typing import Any, Final

import grpc

from resilience._call.ambient import ambient_deadline
from resilience.grpc._attempts import BaseAttempts
from resilience.grpc._future import RpcFuture
from resilience.grpc._guard import Guard, timeout_until
from resilience.grpc._outcomes import LocalResponse, error_of, outcome_of

_BLOCKS: Final = "with_call.<locals>.continuation"
"""How the qualified name of a continuation of grpc ends that waits for the end of the attempt."""


class UnaryUnaryInterceptor(grpc.UnaryUnaryClientInterceptor):
    """Passes each RPC through a pipeline. Inner interceptors see every attempt, outer interceptors see one call.

    Args:
        guard: the guard of the channel.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Make the RPC and return its outcome, or start it and return a future.

        grpc calls this both for blocking calls and for futures. Only the name of the continuation distinguishes them.
        If it has neither name, since another interceptor has wrapped it, a future is right in both cases: a blocking
        call then waits for its result.
        """
        attempts = Attempts(self._guard, continuation, client_call_details, request)
        method, timeout = client_call_details.method, client_call_details.timeout
        if getattr(continuation, "__qualname__", "").endswith(_BLOCKS):
            return attempts.call_of(self._guard.run(self._guard.call(method, timeout, attempts)))
        future = RpcFuture(attempts)
        future.start(self._guard, self._guard.call(method, timeout, future.attempt))
        return future


class Attempts(BaseAttempts):
    """The attempts of one RPC of the synchronous API. Calling it makes one attempt and returns the response."""

    local_response = LocalResponse

    def __call__(self) -> Any:
        """Make an attempt and return its response, or raise its error."""
        return self.finish(*self.begin())

    def begin(self) -> tuple[Any, bool]:
        """Start an attempt whose timeout is the time left until the deadline.

        Returns:
            The attempt, and whether the channel was disconnected; both are for `finish`.
        """
        disconnected = self._count()
        details = Details(self._details, timeout_until(ambient_deadline()), self._new_metadata())
        try:
            return self._continuation(details, self._request), disconnected
        except Exception as error:  # such as for a future of a closed channel
            return outcome_of(error), disconnected

    def _new_metadata(self) -> Any:
        """Return the metadata for one attempt: a new list if a list was given, since interceptors may change it."""
        if self._metadata is not None and isinstance(self._details.metadata, list):
            return list(self._metadata)
        return self._metadata

    def finish(self, outcome: Any, disconnected: bool) -> Any:
        """Wait for the end of an attempt and return its response, or raise its error."""
        error = error_of(outcome)
        if error is None:
            return self._add(outcome.result(), outcome)
        try:
            self._examine(error, disconnected)
            raise error
        finally:
            del error, outcome  # the traceback holds this frame


class Details(grpc.ClientCallDetails):
    """The call details given by the caller, with the timeout and metadata of one attempt."""

    def __init__(self, given: Any, timeout: float | None, metadata: Any) -> None:
        self.method = given.method
        self.timeout = timeout
        self.metadata = metadata
        self.credentials = given.credentials
        self.wait_for_ready = given.wait_for_ready
        self.compression = given.compression
