"""Outcomes of RPCs of the synchronous API that grpc has not made: local responses and errors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import grpc

if TYPE_CHECKING:
    Future: TypeAlias = grpc.Future[Any]  # generic in the stubs only
else:
    Future = grpc.Future


class Finished(grpc.Call, Future):
    """An RPC that is done, and whose outcome has not come from a server."""

    def initial_metadata(self) -> Any:
        """Return no metadata."""
        return ()

    def trailing_metadata(self) -> Any:
        """Return no metadata."""
        return ()

    def debug_error_string(self) -> str:
        """Return an empty string: `details` has all there is."""
        return ""

    def is_active(self) -> bool:
        """Return False: the RPC is done."""
        return False

    def time_remaining(self) -> Any:
        """Return None: the RPC is done."""
        return

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Return False: the RPC is done. The callback is not called."""
        del callback
        return False

    def cancel(self) -> bool:
        """Return False: the RPC is done."""
        return False

    def cancelled(self) -> bool:
        """Return False: the RPC was not cancelled."""
        return False

    def running(self) -> bool:
        """Return False: the RPC is done."""
        return False

    def done(self) -> bool:
        """Return True."""
        return True

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        """Call `fn` at once."""
        fn(self)


class LocalResponse(Finished):
    """The outcome of an RPC with a response that no attempt has received, such as the value of a Substitute.

    Args:
        response: the response.
    """

    def __init__(self, response: Any) -> None:
        self._response = response

    def code(self) -> grpc.StatusCode:
        """Return OK."""
        return grpc.StatusCode.OK

    def details(self) -> str:
        """Return an empty string."""
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
    """The outcome of an RPC that raised an exception which is not an outcome of grpc.

    Such as that of a closed channel, or one raised by an interceptor or by a hook.

    Args:
        error: the exception.
    """

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def code(self) -> grpc.StatusCode:
        """Return what grpc returns for an interceptor that raises."""
        return grpc.StatusCode.INTERNAL

    def details(self) -> str:
        """Return what grpc returns for an interceptor that raises."""
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


class RaisedOutcome(grpc.RpcError, Finished):
    """The base of errors that are the outcome of an RPC: as the errors of grpc, the call and its future at once."""

    @abstractmethod
    def details(self) -> str:
        """Return the details of the status."""

    def trailing_metadata(self) -> Any:
        """Return no metadata: no server was called, or none answered."""
        return ()

    def result(self, timeout: float | None = None) -> NoReturn:
        """Raise this error."""
        del timeout
        raise self

    def exception(self, timeout: float | None = None) -> Exception:
        """Return this error."""
        del timeout
        return self

    def traceback(self, timeout: float | None = None) -> TracebackType | None:
        """Return the traceback. An error that has none yet is raised and caught here, as grpc does with its own."""
        del timeout
        if self.__traceback__ is None:
            try:
                raise self
            except Exception:
                return self.__traceback__
        return self.__traceback__


class LocalRpcError(RaisedOutcome):
    """An error with a status that has not come from a server.

    Args:
        code: the status code.
        details: the details of the status.
    """

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(code, details)
        self._code = code
        self._details = details

    def code(self) -> grpc.StatusCode:
        """Return the status code."""
        return self._code

    def details(self) -> str:
        """Return the details of the status."""
        return self._details

    def cancelled(self) -> bool:
        """Return whether the RPC was cancelled."""
        return self._code is grpc.StatusCode.CANCELLED

    def __str__(self) -> str:
        return f"{self._code.name}: {self._details}"


def error_of(outcome: Any) -> Exception | None:
    """Wait until an RPC is done and return its error, or None if it succeeded.

    The type does not tell: a future of grpc that succeeded is an instance of RpcError, too.
    """
    method: Any = getattr(outcome, "exception", None)
    if method is not None:
        error: Exception | None = method()
        return error
    return outcome if isinstance(outcome, Exception) else None


def outcome_of(error: BaseException) -> Any:
    """Return an exception as an outcome of grpc, which has a code, details and a result."""
    if isinstance(error, grpc.RpcError) and isinstance(error, grpc.Call) and isinstance(error, grpc.Future):
        return error
    return LocalError(error)
