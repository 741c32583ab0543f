"""Our errors in gRPC's world: there they are `grpc.RpcError`s too, with a code and details."""

from __future__ import annotations

from types import TracebackType
from typing import Any, NoReturn

import grpc

from resilience.errors import (
    BulkheadFullError,
    DeadlineExceededError,
    RateLimitedError,
    RejectedError,
    ResilienceError,
)
from resilience.grpc._outcomes import Finished


def code_for(error: object) -> grpc.StatusCode:
    """Return the status code that one of our errors has."""
    if isinstance(error, DeadlineExceededError):
        return grpc.StatusCode.DEADLINE_EXCEEDED
    if isinstance(error, BulkheadFullError | RateLimitedError):
        return grpc.StatusCode.RESOURCE_EXHAUSTED
    return grpc.StatusCode.UNAVAILABLE


class ChannelClosed(RejectedError):
    """The channel was closed between two attempts, so that the second was not made; what the first met comes out."""


class ResilienceRpcError(grpc.RpcError, Finished):
    """What makes one of our errors an error of the synchronous API: it is the call and its future at once."""

    def code(self) -> grpc.StatusCode:
        """Return the status code."""
        return code_for(self)

    def details(self) -> str:
        """Return the message."""
        return str(self)

    def trailing_metadata(self) -> Any:
        """Return no metadata: no server was asked, or it did not answer."""
        return ()

    def result(self, timeout: float | None = None) -> NoReturn:
        """Raise it."""
        del timeout
        raise self

    def exception(self, timeout: float | None = None) -> Exception:
        """Return it."""
        del timeout
        return self

    def traceback(self, timeout: float | None = None) -> TracebackType | None:
        """Return its traceback; one that was not raised where it can be seen is raised here, as grpc's own are."""
        del timeout
        if self.__traceback__ is None:
            try:
                raise self
            except Exception:
                return self.__traceback__
        return self.__traceback__


class AioResilienceRpcError(grpc.aio.AioRpcError):
    """What makes one of our errors an `AioRpcError`."""

    def code(self) -> grpc.StatusCode:
        """Return the status code."""
        return code_for(self)

    def details(self) -> str:
        """Return the message."""
        return str(self)

    def initial_metadata(self) -> grpc.aio.Metadata:
        """Return no metadata."""
        return grpc.aio.Metadata()

    def trailing_metadata(self) -> Any:
        """Return no metadata: no server was asked, or it did not answer."""
        return grpc.aio.Metadata()

    def debug_error_string(self) -> str:
        """Return nothing that `details` does not say."""
        return ""

    def __str__(self) -> str:
        return Exception.__str__(self)

    def __repr__(self) -> str:
        return Exception.__repr__(self)


_joined: dict[tuple[type, type], type[Any]] = {}


def make_rpc_error(error: ResilienceError, flavour: type[Any]) -> None:
    """Make one of our errors one of gRPC's as well; it stays the same object, of a class that is both."""
    if not isinstance(error, grpc.RpcError):
        error.__class__ = _join(type(error), flavour)


def _join(kind: type[Any], flavour: type[Any]) -> type[Any]:
    both = _joined.get((kind, flavour))
    if both is None:

        def reduce(error: Any) -> tuple[Any, ...]:
            return _revive, (kind, flavour, error.args), error.__dict__

        names: dict[str, Any] = {
            "__module__": kind.__module__,
            "__qualname__": kind.__qualname__,
            "__doc__": kind.__doc__,
            "__reduce__": reduce,
        }
        both = _joined[kind, flavour] = type(kind.__name__, (kind, flavour), names)
    return both


def _revive(kind: type[Any], flavour: type[Any], args: tuple[Any, ...]) -> Any:
    """Make an error anew for pickle and copy, which cannot find a class that was joined."""
    both = _join(kind, flavour)
    error = both.__new__(both, *args)
    error.args = args
    return error
