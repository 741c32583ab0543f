"""The attempts of RPCs of the synchronous API with a single response."""

from __future__ import annotations

from typing import Any

import grpc

from resilience.grpc._attempts import BaseAttempts
from resilience.grpc._call import BaseRpcCall
from resilience.grpc._guard import timeout_until
from resilience.grpc._outcomes import LocalResponse, error_of, outcome_of


class SyncAttempts(BaseAttempts):
    """The attempts of one RPC of the synchronous API."""

    local_response = LocalResponse

    def _start(self, call: BaseRpcCall, deadline: float) -> Any:
        """Start an attempt that gRPC is to end at `deadline`, and return what gRPC returns."""
        details = Details(self.details, timeout_until(deadline), self._new_metadata(call))
        return self._continuation(details, self.request_source.for_attempt())

    def _new_metadata(self, call: BaseRpcCall) -> Any:
        """Return the metadata for one attempt: a new list if a list was given, since interceptors may change it."""
        pairs = self._pairs(call)
        return list(pairs) if pairs is not None and isinstance(self.details.metadata, list) else pairs


class UnaryAttempts(SyncAttempts):
    """The attempts of one RPC with a single response. Calling it makes one attempt and returns the response."""

    def __call__(self, call: BaseRpcCall) -> Any:
        """Make an attempt and return its response, or raise its error."""
        return self.finish(*self.begin(call, call.current_deadline()))

    def begin(self, call: BaseRpcCall, deadline: float) -> tuple[Any, bool]:
        """Start an attempt that gRPC is to end at `deadline`.

        Returns:
            Its outcome or future, and whether the channel was disconnected; both are for `finish`.
        """
        disconnected = self._begin()
        try:
            return self._start(call, deadline), disconnected
        except Exception as error:  # such as for a future of a closed channel
            return outcome_of(error), disconnected

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
        self.compression = getattr(given, "compression", None)
