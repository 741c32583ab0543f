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
        given = self.details
        details = Details(
            given.method,
            timeout_until(deadline),
            self._new_metadata(call),
            given.credentials,
            given.wait_for_ready,
            given.compression,
        )
        return self._continuation(details, self.request_source.for_attempt())

    def _new_metadata(self, call: BaseRpcCall) -> Any:
        """Return the metadata for one attempt: a new list if a list was given, since interceptors may change it."""
        pairs = self._pairs(call)
        return list(pairs) if pairs is not None and isinstance(self.details.metadata, list) else pairs


class PlainAttempts(SyncAttempts):
    """The attempts of a blocking call, of which gRPC returns the response."""

    def attempt(self, call: BaseRpcCall) -> Any:
        """Make an attempt and return its response, or raise its error."""
        disconnected = self._begin()
        try:
            return self._start(call, call.current_deadline())
        except Exception as error:
            self._examine(error, disconnected)
            raise


class CalledAttempts(SyncAttempts):
    """The attempts of a blocking call, of which gRPC returns the response and the call."""

    def attempt(self, call: BaseRpcCall) -> Any:
        """Make an attempt and return its response, or raise its error."""
        disconnected = self._begin()
        try:
            response, attempt = self._start(call, call.current_deadline())
        except Exception as error:
            self._examine(error, disconnected)
            raise
        return self._add(response, attempt)


class UnaryAttempts(SyncAttempts):
    """The attempts of a call, of which gRPC returns an outcome or a future, as it does to interceptors."""

    def attempt(self, call: BaseRpcCall) -> Any:
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
    """The details of an RPC, or of one attempt.

    Args:
        method: the name of the method.
        timeout: the seconds that it may take; None for no limit.
        metadata: pairs of key and value; None for none.
        credentials, wait_for_ready, compression: see the multi-callables of gRPC.
    """

    def __init__(
        self,
        method: str,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> None:
        self.method = method
        self.timeout = timeout
        self.metadata = metadata
        self.credentials = credentials
        self.wait_for_ready = wait_for_ready
        self.compression = compression

    def options(self) -> tuple[Any, ...]:
        """Return the arguments of a multi-callable that follow the request."""
        return self.timeout, self.metadata, self.credentials, self.wait_for_ready, self.compression
