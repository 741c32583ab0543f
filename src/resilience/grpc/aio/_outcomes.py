"""Calls of `grpc.aio` whose responses have not come from a server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator
from typing import Any, NoReturn

import grpc


class AioLocalCall(grpc.aio.Call):
    """A call that is done, with the status OK."""

    def cancel(self) -> bool:
        """Return False: the call is done."""
        return False

    def cancelled(self) -> bool:
        """Return False: the call was not cancelled."""
        return False

    def done(self) -> bool:
        """Return True."""
        return True

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call `callback` at once."""
        callback(self)

    def time_remaining(self) -> None:
        """Return None: the call is done."""

    async def initial_metadata(self) -> grpc.aio.Metadata:
        """Return no metadata."""
        return grpc.aio.Metadata()

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        """Return no metadata."""
        return grpc.aio.Metadata()

    async def code(self) -> grpc.StatusCode:
        """Return OK."""
        return grpc.StatusCode.OK

    async def details(self) -> str:
        """Return an empty string."""
        return ""

    async def debug_error_string(self) -> str:
        """Return an empty string."""
        return ""

    async def wait_for_connection(self) -> None:
        """Return at once."""


class AioLocalResponse(AioLocalCall, grpc.aio.UnaryUnaryCall[Any, Any]):
    """The call of a response that no attempt has received, such as the value of a Substitute.

    Args:
        response: the response.
    """

    def __init__(self, response: Any) -> None:
        self._response = response

    def __await__(self) -> Generator[None, None, Any]:
        yield from ()
        return self._response


class AioFailedCall(AioLocalCall, grpc.aio.UnaryUnaryCall[Any, Any]):
    """The call of an RPC that has failed.

    Outer interceptors get this as they get a call of grpc, which raises its error only where it is awaited.

    Args:
        error: the error.
    """

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self._error = error.with_traceback(None)  # which holds frames that hold the call of grpc: a cycle

    def cancelled(self) -> bool:
        """Return whether the RPC was cancelled."""
        return self._error.code() is grpc.StatusCode.CANCELLED

    async def initial_metadata(self) -> grpc.aio.Metadata:
        """Return that of the error."""
        return self._error.initial_metadata()

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        """Return that of the error."""
        return self._error.trailing_metadata()

    async def code(self) -> grpc.StatusCode:
        """Return that of the error."""
        return self._error.code()

    async def details(self) -> str:
        """Return those of the error."""
        return self._error.details() or ""

    async def debug_error_string(self) -> str:
        """Return that of the error."""
        return self._error.debug_error_string() or ""

    async def wait_for_connection(self) -> None:
        """Raise the error."""
        raise self._error

    def __await__(self) -> Generator[None, None, NoReturn]:
        yield from ()
        raise self._error


class AioLocalStream(AioLocalCall, grpc.aio.UnaryStreamCall[Any, Any]):
    """The call of responses that no attempt has received, such as those of a Substitute.

    Args:
        responses: the responses, an iterable or async iterable.
    """

    def __init__(self, responses: Any) -> None:
        self._responses = responses

    async def __aiter__(self) -> AsyncIterator[Any]:
        if hasattr(self._responses, "__aiter__"):
            async for response in self._responses:
                yield response
        else:
            for response in self._responses:
                yield response

    async def read(self) -> NoReturn:
        """Raise an error: the responses are iterated over."""
        raise grpc.aio.UsageError("iterate over the responses")
