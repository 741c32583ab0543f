"""The unary-unary RPC of the synchronous API: called, called with its call, or as a future."""

from __future__ import annotations

from typing import Any, Final

import grpc

from resilience._util.clock import ambient_deadline
from resilience.grpc._attempts import BaseAttempts
from resilience.grpc._future import RpcFuture
from resilience.grpc._guard import Guard, timeout_until
from resilience.grpc._outcomes import LocalResponse, error_of, outcome_of

_BLOCKS: Final = "with_call.<locals>.continuation"


class UnaryUnaryInterceptor(grpc.UnaryUnaryClientInterceptor):
    """Passes each RPC through a pipeline. Interceptors further in see every attempt, those further out see one call.

    Args:
        guard: the pipeline, and what is known of the channel.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Make the RPC and return its outcome; or, for a caller who wants a future, start it.

        grpc calls this for both, and only the name of the continuation tells which it is. Where it has another name,
        a future is right in both cases: whoever wants to block asks it for its result.
        """
        attempts = Attempts(self._guard, continuation, client_call_details, request)
        method, timeout = client_call_details.method, client_call_details.timeout
        if getattr(continuation, "__qualname__", "").endswith(_BLOCKS):
            return attempts.call_of(self._guard.run(self._guard.call(method, timeout, attempts)))
        future = RpcFuture(attempts)
        future.start(self._guard, self._guard.call(method, timeout, future.attempt))
        return future


class Attempts(BaseAttempts):
    """The attempts of one RPC of the synchronous API; called, it makes one, and returns the response."""

    local_response = LocalResponse

    def __call__(self) -> Any:
        """Make an attempt."""
        return self.finish(*self.begin())

    def begin(self) -> tuple[Any, bool]:
        """Start an attempt, with the time that is left as its timeout; returns it, and whether nothing was connected.

        Both are for `finish`.
        """
        apart = self._count()
        details = Details(self._details, timeout_until(ambient_deadline.get()), self._new_metadata())
        try:
            return self._continuation(details, self._request), apart
        except Exception as error:  # a future of a closed channel, for one
            return outcome_of(error), apart

    def _new_metadata(self) -> Any:
        """Return metadata for one attempt, in a list where the caller's is one: interceptors may change that."""
        if self._metadata is not None and isinstance(self._details.metadata, list):
            return list(self._metadata)
        return self._metadata

    def finish(self, outcome: Any, apart: bool) -> Any:
        """Wait for the end of an attempt; return its response, or raise its error."""
        error = error_of(outcome)
        if error is None:
            return self._add(outcome.result(), outcome)
        try:
            self._examine(error, apart)
            raise error
        finally:
            del error, outcome  # the traceback holds this frame


class Details(grpc.ClientCallDetails):
    """What the caller gave, with another timeout, and metadata that interceptors may change."""

    def __init__(self, given: Any, timeout: float | None, metadata: Any) -> None:
        self.method = given.method
        self.timeout = timeout
        self.metadata = metadata
        self.credentials = given.credentials
        self.wait_for_ready = given.wait_for_ready
        self.compression = given.compression
