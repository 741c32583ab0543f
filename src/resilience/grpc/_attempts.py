"""What an attempt of an RPC is, for the synchronous API and for `grpc.aio`: its details, its request and its error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from resilience.grpc._call import BaseRpcCall
from resilience.grpc._guard import Guard
from resilience.grpc._requests import AnyRequest


class BaseAttempts:
    """The attempts of one RPC. A subclass makes them; this class has what they send, their number and their errors.

    Args:
        guard: the guard of the channel.
        continuation: the function of gRPC that starts an attempt.
        details: the `ClientCallDetails` of the RPC. Its metadata is read once, since it may be an iterator.
        request: what the attempts send.

    """

    local_response: ClassVar[type[Any]]
    """The class of the call of a response that no attempt has received; set by the subclass."""

    def __init__(
        self, guard: Guard, continuation: Callable[[Any, Any], Any], details: Any, request: AnyRequest
    ) -> None:
        self.guard = guard
        self.details = details
        self._continuation = continuation
        self._metadata = None if details.metadata is None else tuple(details.metadata)
        self.request_source = request
        self._begun = 0
        self._good: list[tuple[Any, Any]] = []

    def _begin(self) -> bool:
        """Count an attempt that begins now, and return whether its channel is disconnected, for `_examine`."""
        self._begun += 1
        return self.guard.connectivity.is_disconnected()

    def _pairs(self, call: BaseRpcCall) -> tuple[Any, ...] | None:
        """Return the metadata of an attempt; None for none."""
        if call.attempt == 1 and not self.guard.propagates:
            return self._metadata
        return (*(self._metadata or ()), *self.guard.metadata_of(call))

    def _examine(self, error: Exception, disconnected: bool) -> None:
        """End the latest attempt, and have the guard examine its error; see `Guard.examine`."""
        self.request_source.end_attempt()
        self.guard.examine(error, disconnected=disconnected, first=self._begun == 1)

    def _add(self, response: Any, call: Any) -> Any:
        """Remember the call of an attempt that succeeded, and return its response."""
        self._good.append((response, call))
        return response

    def call_of(self, response: Any) -> Any:
        """Return the call of the attempt that received a response.

        A response that no attempt has received, such as the value of a Substitute, has a call of its own, a
        `local_response`.
        """
        for received, call in reversed(self._good):  # several attempts may have the same object, such as None
            if received is response:
                return call
        return self.local_response(response)
