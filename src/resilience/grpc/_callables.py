"""The multi-callables of a guarded channel, which make its RPCs.

They do what the interceptors do. But gRPC makes a new multi-callable for each intercepted RPC, which costs more than
the pipeline; these keep that of the channel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import grpc

from resilience.grpc._guard import Guard
from resilience.grpc._requests import ReplayedRequests, UnaryRequest
from resilience.grpc._rpcs import call_rpc, start_future, start_stream
from resilience.grpc._unary import CalledAttempts, Details, PlainAttempts

if TYPE_CHECKING:  # generic in the stubs only
    UnaryUnaryBase: TypeAlias = grpc.UnaryUnaryMultiCallable[Any, Any]
    UnaryStreamBase: TypeAlias = grpc.UnaryStreamMultiCallable[Any, Any]
    StreamUnaryBase: TypeAlias = grpc.StreamUnaryMultiCallable[Any, Any]
    StreamStreamBase: TypeAlias = grpc.StreamStreamMultiCallable[Any, Any]
else:
    UnaryUnaryBase = grpc.UnaryUnaryMultiCallable
    UnaryStreamBase = grpc.UnaryStreamMultiCallable
    StreamUnaryBase = grpc.StreamUnaryMultiCallable
    StreamStreamBase = grpc.StreamStreamMultiCallable


class _OneRequest:
    """The requests of RPCs with one request."""

    make_request: ClassVar[type[UnaryRequest | ReplayedRequests]] = UnaryRequest

    @staticmethod
    def arguments(request: Any, *options: Any, **more: Any) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
        """Return the request and the other arguments of gRPC's own multi-callables."""
        return request, options, more


class _RequestStream:
    """The requests of RPCs with a stream of requests."""

    make_request: ClassVar[type[UnaryRequest | ReplayedRequests]] = ReplayedRequests

    @staticmethod
    def arguments(request_iterator: Any, *options: Any, **more: Any) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
        """Return the request iterator and the other arguments of gRPC's own multi-callables."""
        return request_iterator, options, more


class _Callable:
    """What makes the RPCs of one method.

    Args:
        guard: the guard of the channel.
        method: the name of the method.
        inner: the multi-callable of the channel.
    """

    make_request: ClassVar[type[UnaryRequest | ReplayedRequests]]
    arguments: ClassVar[Callable[..., tuple[Any, tuple[Any, ...], dict[str, Any]]]]

    def __init__(self, guard: Guard, method: str, inner: Any) -> None:
        self._guard = guard
        self._method = method
        self._inner = inner

    def _read(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Details]:
        """Return the request and the details of an RPC."""
        request, options, more = self.arguments(*args, **kwargs)
        return request, Details(self._method, *options, **more)

    def _call(self, details: Any, request: Any) -> Any:
        """Start an attempt of a blocking call or of a stream of responses."""
        return self._inner(request, *details.options())

    def _with_call(self, details: Any, request: Any) -> Any:
        """Make an attempt and return its response and its call."""
        return self._inner.with_call(request, *details.options())

    def _future(self, details: Any, request: Any) -> Any:
        """Start an attempt and return its future."""
        return self._inner.future(request, *details.options())


class _UnaryResponse(_Callable):
    """What makes the RPCs of a method with a single response."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Make an RPC and return the response; the arguments are those of gRPC's own multi-callables."""
        request, details = self._read(args, kwargs)
        return call_rpc(PlainAttempts, self._guard, self._call, details, request, self.make_request)[0]

    def with_call(self, *args: Any, **kwargs: Any) -> Any:
        """Make an RPC and return the response and its call."""
        request, details = self._read(args, kwargs)
        response, attempts = call_rpc(CalledAttempts, self._guard, self._with_call, details, request, self.make_request)
        return response if attempts is None else (response, attempts.call_of(response))

    def future(self, *args: Any, **kwargs: Any) -> Any:
        """Start an RPC and return its future."""
        request, details = self._read(args, kwargs)
        return start_future(self._guard, self._future, details, request, self.make_request)


class _ResponseStream(_Callable):
    """What makes the RPCs of a method with a stream of responses."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Start an RPC and return the stream; the arguments are those of gRPC's own multi-callables."""
        request, details = self._read(args, kwargs)
        return start_stream(self._guard, self._call, details, request, self.make_request)


class UnaryUnary(_OneRequest, _UnaryResponse, UnaryUnaryBase):
    """Makes RPCs with one request and one response."""


class UnaryStream(_OneRequest, _ResponseStream, UnaryStreamBase):
    """Makes RPCs with one request and a stream of responses."""


class StreamUnary(_RequestStream, _UnaryResponse, StreamUnaryBase):
    """Makes RPCs with a stream of requests and one response."""


class StreamStream(_RequestStream, _ResponseStream, StreamStreamBase):
    """Makes RPCs with streams of requests and responses."""
