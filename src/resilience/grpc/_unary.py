"""The unary-unary RPC of the synchronous API: called, called with its call, or as a future."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import grpc

from resilience._util.clock import ambient_deadline
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
            return attempts.outcome_of(self._guard.run(self._guard.call(method, timeout, attempts)))
        future = RpcFuture(attempts)
        future.start(self._guard, self._guard.call(method, timeout, future.attempt))
        return future


class Attempts:
    """The attempts of one RPC; called, it makes one, and returns the response.

    Args:
        guard: of the channel.
        continuation: starts an attempt, and waits for its end if the caller of the RPC does.
        details: what the caller gave, but for the request. Its metadata is read once, since it may be an iterator.
        request: the request; every attempt sends it anew.
    """

    def __init__(self, guard: Guard, continuation: Callable[[Any, Any], Any], details: Any, request: Any) -> None:
        self._guard = guard
        self._continuation = continuation
        self._details = details
        given = details.metadata
        self._metadata = given if given is None else tuple(given)
        self._kind: type[Any] = list if isinstance(given, list) else tuple
        self._request = request
        self._begun = 0
        self._good: list[tuple[Any, Any]] = []

    def __call__(self) -> Any:
        """Make an attempt."""
        return self.finish(*self.begin())

    def begin(self) -> tuple[Any, bool]:
        """Start an attempt, with the time that is left as its timeout; returns it, and whether nothing was connected.

        Both are for `conclude`.
        """
        apart = self._guard.connectivity.is_disconnected()
        metadata = self._metadata if self._metadata is None else self._kind(self._metadata)
        details = Details(self._details, timeout_until(ambient_deadline.get()), metadata)
        self._begun += 1
        try:
            return self._continuation(details, self._request), apart
        except Exception as error:  # a future of a closed channel, for one
            return outcome_of(error), apart

    def finish(self, outcome: Any, apart: bool) -> Any:
        """Wait for the end of an attempt; return its response, or raise its error."""
        error = error_of(outcome)
        if error is None:
            response = outcome.result()
            self._good.append((response, outcome))
            return response
        try:
            self._guard.examine(error, apart=apart, first=self._begun == 1)
            raise error
        finally:
            del error, outcome  # the traceback holds this frame

    def outcome_of(self, response: Any) -> Any:
        """Return the attempt that a response came from, or something like it for what a policy put in its place."""
        for one, outcome in reversed(self._good):  # several may have the very same one, such as None
            if one is response:
                return outcome
        return LocalResponse(response)


class Details(grpc.ClientCallDetails):
    """What the caller gave, with another timeout, and metadata that interceptors may change."""

    def __init__(self, given: Any, timeout: float | None, metadata: Any) -> None:
        self.method = given.method
        self.timeout = timeout
        self.metadata = metadata
        self.credentials = given.credentials
        self.wait_for_ready = given.wait_for_ready
        self.compression = given.compression
