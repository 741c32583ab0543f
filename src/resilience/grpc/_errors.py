"""Errors of the pipeline that are also `grpc.RpcError`s, with a status code and details."""

from __future__ import annotations

from typing import Any

import grpc

from resilience.errors import (
    BulkheadFullError,
    DeadlineExceededError,
    RateLimitedError,
    RejectedError,
    ResilienceError,
)
from resilience.grpc._outcomes import RaisedOutcome


def code_for(error: object) -> grpc.StatusCode:
    """Return the status code of an error of the pipeline."""
    if isinstance(error, DeadlineExceededError):
        return grpc.StatusCode.DEADLINE_EXCEEDED
    if isinstance(error, BulkheadFullError | RateLimitedError):
        return grpc.StatusCode.RESOURCE_EXHAUSTED
    return grpc.StatusCode.UNAVAILABLE


class ChannelClosed(RejectedError):
    """The channel was closed between two attempts: the second was not made, and the error of the first is raised."""


class ResilienceRpcError(RaisedOutcome):
    """The base that makes an error of the pipeline an error of the synchronous API."""

    def code(self) -> grpc.StatusCode:
        """Return the status code."""
        return code_for(self)

    def details(self) -> str:
        """Return the message of the error."""
        return str(self)


class AioResilienceRpcError(grpc.aio.AioRpcError):
    """The base that makes an error of the pipeline an error of `grpc.aio`."""

    def code(self) -> grpc.StatusCode:
        """Return the status code."""
        return code_for(self)

    def details(self) -> str:
        """Return the message of the error."""
        return str(self)

    def initial_metadata(self) -> grpc.aio.Metadata:
        """Return no metadata: no server was called, or none answered."""
        return grpc.aio.Metadata()

    def trailing_metadata(self) -> Any:
        """Return no metadata: no server was called, or none answered."""
        return grpc.aio.Metadata()

    def debug_error_string(self) -> str:
        """Return an empty string: `details` has all there is."""
        return ""

    def __str__(self) -> str:
        return Exception.__str__(self)

    def __repr__(self) -> str:
        return Exception.__repr__(self)


class LocalAioRpcError(grpc.aio.AioRpcError):
    """An error of `grpc.aio` with a status that has not come from a server.

    Args:
        code: the status code.
        details: the details of the status.
    """

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)


_joined: dict[tuple[type, type], type[Any]] = {}


def make_rpc_error(error: ResilienceError, error_class: type[Any]) -> None:
    """Make an error of the pipeline an error of gRPC, too. It remains the same object, and gets a class of both kinds.

    Args:
        error: the error; one that is a `grpc.RpcError` already is left as it is.
        error_class: `ResilienceRpcError` or `AioResilienceRpcError`.
    """
    if not isinstance(error, grpc.RpcError):
        error.__class__ = _join(type(error), error_class)


def _join(kind: type[Any], error_class: type[Any]) -> type[Any]:
    """Return the class that derives from both; the same one each time."""
    both = _joined.get((kind, error_class))
    if both is None:

        def reduce(error: Any) -> tuple[Any, ...]:
            return _revive, (kind, error_class, error.args), error.__dict__

        names: dict[str, Any] = {
            "__module__": kind.__module__,
            "__qualname__": kind.__qualname__,
            "__doc__": kind.__doc__,
            "__reduce__": reduce,
        }
        both = _joined[kind, error_class] = type(kind.__name__, (kind, error_class), names)
    return both


def _revive(kind: type[Any], error_class: type[Any], args: tuple[Any, ...]) -> Any:
    """Return a new error, for pickle and copy, which cannot import a class of both kinds by name."""
    both = _join(kind, error_class)
    error = both.__new__(both, *args)
    error.args = args
    return error
