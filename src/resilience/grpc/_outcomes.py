"""What an RPC of the synchronous API comes to, where it is not an outcome of grpc's own."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import grpc

if TYPE_CHECKING:
    Future: TypeAlias = grpc.Future[Any]  # generic in the stubs only
else:
    Future = grpc.Future


class Finished(grpc.Call, Future):
    """An RPC that is over, without anything having come from a server."""

    def initial_metadata(self) -> Any:
        """Return no metadata."""
        return ()

    def trailing_metadata(self) -> Any:
        """Return no metadata."""
        return ()

    def debug_error_string(self) -> str:
        """Return nothing that `details` does not say."""
        return ""

    def is_active(self) -> bool:
        """Return False: it is over."""
        return False

    def time_remaining(self) -> Any:
        """Return None: it is over."""
        return

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Return False: it is over, and the callback is not called."""
        del callback
        return False

    def cancel(self) -> bool:
        """Return False: it is over."""
        return False

    def cancelled(self) -> bool:
        """Return False."""
        return False

    def running(self) -> bool:
        """Return False: it is over."""
        return False

    def done(self) -> bool:
        """Return True."""
        return True

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        """Call back at once."""
        fn(self)


class LocalResponse(Finished):
    """A good outcome that no server gave, such as the value of a Fallback."""

    def __init__(self, response: Any) -> None:
        self._response = response

    def code(self) -> grpc.StatusCode:
        """Return OK."""
        return grpc.StatusCode.OK

    def details(self) -> str:
        """Return nothing."""
        return ""

    def result(self, timeout: float | None = None) -> Any:
        """Return the response."""
        del timeout
        return self._response

    def exception(self, timeout: float | None = None) -> None:
        """Return None."""
        del timeout

    def traceback(self, timeout: float | None = None) -> None:
        """Return None."""
        del timeout


class LocalError(Finished):
    """An exception that is no RpcError: a closed channel, a mistake in an interceptor or in a hook."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def code(self) -> grpc.StatusCode:
        """Return what grpc says of an interceptor that raises."""
        return grpc.StatusCode.INTERNAL

    def details(self) -> str:
        """Return what grpc says of an interceptor that raises."""
        return "Exception raised while intercepting the RPC"

    def result(self, timeout: float | None = None) -> NoReturn:
        """Raise the exception."""
        del timeout
        raise self._error

    def exception(self, timeout: float | None = None) -> Any:
        """Return the exception."""
        del timeout
        return self._error

    def traceback(self, timeout: float | None = None) -> TracebackType | None:
        """Return the traceback of the exception."""
        del timeout
        return self._error.__traceback__


def error_of(outcome: Any) -> Exception | None:
    """Wait until an RPC is over; return its error, None if it went well.

    Being an RpcError says nothing: a healthy future of grpc's is one, too.
    """
    ask: Any = getattr(outcome, "exception", None)
    if ask is not None:
        error: Exception | None = ask()
        return error
    return outcome if isinstance(outcome, Exception) else None


def outcome_of(error: BaseException) -> Any:
    """Return an exception as what grpc calls an outcome: one that has a code, details and a result."""
    if isinstance(error, grpc.RpcError) and isinstance(error, grpc.Call) and isinstance(error, grpc.Future):
        return error
    return LocalError(error)
