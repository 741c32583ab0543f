"""Unary-unary RPCs of `grpc.aio`."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import grpc

from resilience._call.ambient import ambient_deadline
from resilience.grpc._attempts import BaseAttempts
from resilience.grpc._guard import Guard, timeout_until


class AioUnaryUnaryInterceptor(grpc.aio.UnaryUnaryClientInterceptor):
    """Passes each RPC through a pipeline. Inner interceptors see every attempt, outer interceptors see one call.

    Args:
        guard: the guard of the channel.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Make the RPC and return the call of the attempt whose response is returned."""
        method = client_call_details.method
        name = method.decode() if isinstance(method, bytes) else method
        attempts = AioAttempts(self._guard, continuation, client_call_details, request)
        call = self._guard.call(name, client_call_details.timeout, attempts)
        return attempts.call_of(await self._guard.arun(call))


class AioLocalResponse(grpc.aio.UnaryUnaryCall[Any, Any]):
    """The call of a response that no attempt has received, such as the value of a Substitute.

    Args:
        response: the response.
    """

    def __init__(self, response: Any) -> None:
        self._response = response

    def __await__(self) -> Generator[None, None, Any]:
        yield from ()
        return self._response

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


class AioAttempts(BaseAttempts):
    """The attempts of one RPC of `grpc.aio`. Calling it makes one attempt and returns the response."""

    local_response = AioLocalResponse

    async def __call__(self) -> Any:
        """Make an attempt whose timeout is the time left until the deadline; return its response or raise its error.

        Only the response is awaited, never `code()` or the metadata, through which a cancellation would not reach the
        server. Cancel scopes of anyio have no effect here: grpc runs interceptors in a separate task.
        """
        call: Any = None
        disconnected = self._count()
        try:
            call = await self._continuation(self._with_timeout(timeout_until(ambient_deadline())), self._request)
            response = await call
        except Exception as error:
            self._examine(error, disconnected)
            raise
        except BaseException:
            if call is not None:
                call.cancel()
            raise
        return self._add(response, call)

    def _with_timeout(self, timeout: float | None) -> grpc.aio.ClientCallDetails:
        given = self._details
        metadata = grpc.aio.Metadata(*self._metadata or ())  # inner interceptors expect this type, and may change it
        return grpc.aio.ClientCallDetails(given.method, timeout, metadata, given.credentials, given.wait_for_ready)
