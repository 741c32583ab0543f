"""Guarded channels for `grpc.aio`, which runs on asyncio only."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

import grpc

from resilience._call.caller import Caller
from resilience._util.clock import ambient_deadline
from resilience.grpc._channels import all_options, given_or_default
from resilience.grpc._connectivity import aio_connectivity_of
from resilience.grpc._errors import AioResilienceRpcError
from resilience.grpc._guard import Guard, Idempotent, timeout_until

__all__ = ["insecure_channel", "secure_channel"]


def aio_client_interceptors(pipeline: Caller[Any], *, idempotent: Idempotent = None) -> list[Any]:
    """Return the interceptors for `grpc.aio.insecure_channel(target, interceptors=..., options=channel_options())`.

    Args:
        pipeline: the pipeline, or one of its policies, or what its `bind` returns (`bind(target="quotes")`).
        idempotent: which methods may be repeated; see `resilience.grpc.insecure_channel`.

    Interceptors that are listed after these see every attempt, those that are listed before see one call. Unary-unary
    RPCs pass through the pipeline, the others pass it by.
    """
    return interceptors(Guard(pipeline, idempotent, AioResilienceRpcError))


def interceptors(guard: Guard) -> list[Any]:
    """Return one interceptor for each arity: of one for several, grpc would use the first only (#31442)."""
    return [UnaryUnaryInterceptor(guard)]


def insecure_channel(
    target: str,
    pipeline: Caller[Any] | None = None,
    *,
    idempotent: Idempotent = None,
    options: Sequence[tuple[str, Any]] | None = (),
    compression: grpc.Compression | None = None,
    interceptors: Sequence[grpc.aio.ClientInterceptor] | None = (),
) -> grpc.aio.Channel:
    """Make a channel without encryption whose RPCs pass through a pipeline.

    Args:
        target: the server, as grpc takes it.
        pipeline: see `resilience.grpc.insecure_channel`, also for the others.
        idempotent: which methods may be repeated.
        options: options for grpc.
        compression: for grpc.
        interceptors: more of them, further in: they see every attempt.
    """
    guard = _guard(target, pipeline, idempotent, interceptors)
    more = _all(guard, interceptors)
    return _watched(guard, grpc.aio.insecure_channel(target, all_options(options), compression, more))


def secure_channel(
    target: str,
    credentials: grpc.ChannelCredentials,
    pipeline: Caller[Any] | None = None,
    *,
    idempotent: Idempotent = None,
    options: Sequence[tuple[str, Any]] | None = (),
    compression: grpc.Compression | None = None,
    interceptors: Sequence[grpc.aio.ClientInterceptor] | None = (),
) -> grpc.aio.Channel:
    """Make a channel with these credentials; everything else is as in `insecure_channel`."""
    guard = _guard(target, pipeline, idempotent, interceptors)
    more = _all(guard, interceptors)
    return _watched(guard, grpc.aio.secure_channel(target, credentials, all_options(options), compression, more))


def _guard(target: str, pipeline: Caller[Any] | None, idempotent: Idempotent, more: Sequence[Any] | None) -> Guard:
    return Guard(given_or_default(pipeline, target), idempotent, AioResilienceRpcError, target, alone=not more)


def _watched(guard: Guard, channel: grpc.aio.Channel) -> grpc.aio.Channel:
    guard.connectivity.watch(aio_connectivity_of(channel))
    return channel


def _all(guard: Guard, more: Sequence[Any] | None) -> list[Any]:
    return [UnaryUnaryInterceptor(guard), *(more or ())]


class UnaryUnaryInterceptor(grpc.aio.UnaryUnaryClientInterceptor):
    """Passes each RPC through a pipeline.

    Args:
        guard: the pipeline, and what is known of the channel.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Make the RPC, and return the call of the attempt that counts."""
        method = client_call_details.method
        name = method.decode() if isinstance(method, bytes) else method
        attempts = _Attempts(self._guard, continuation, client_call_details, request)
        call = self._guard.call(name, client_call_details.timeout, attempts)
        return attempts.call_of(await self._guard.arun(call))


class _Attempts:
    """The attempts of one RPC; called, it makes one, and returns the response."""

    def __init__(self, guard: Guard, continuation: Callable[[Any, Any], Any], details: Any, request: Any) -> None:
        self._guard = guard
        self._continuation = continuation
        self._details = details
        self._metadata = tuple(details.metadata or ())
        self._request = request
        self._begun = 0
        self._good: list[tuple[Any, Any]] = []

    async def __call__(self) -> Any:
        """Make an attempt, with the time that is left as its timeout.

        Only the response is awaited, never `code()` or the metadata: a cancellation would not reach the server. Cancel
        scopes of anyio are not seen here: grpc runs interceptors in a task of their own.
        """
        call: Any = None
        self._begun += 1
        apart = self._guard.connectivity.is_disconnected()
        try:
            call = await self._continuation(self._with_timeout(timeout_until(ambient_deadline.get())), self._request)
            response = await call
        except Exception as error:
            self._guard.examine(error, apart=apart, first=self._begun == 1)
            raise
        except BaseException:
            if call is not None:
                call.cancel()
            raise
        self._good.append((response, call))
        return response

    def _with_timeout(self, timeout: float | None) -> grpc.aio.ClientCallDetails:
        given = self._details
        metadata = grpc.aio.Metadata(*self._metadata)  # interceptors further in expect that, and may change it
        return grpc.aio.ClientCallDetails(given.method, timeout, metadata, given.credentials, given.wait_for_ready)

    def call_of(self, response: Any) -> Any:
        """Return the attempt that a response came from, or something like it for what a policy put in its place."""
        for one, call in reversed(self._good):  # several may have the very same one, such as None
            if one is response:
                return call
        return LocalResponse(response)


class LocalResponse(grpc.aio.UnaryUnaryCall[Any, Any]):
    """A good outcome that no server gave, such as the value of a Fallback."""

    def __init__(self, response: Any) -> None:
        self._response = response

    def __await__(self) -> Generator[None, None, Any]:
        yield from ()
        return self._response

    def cancel(self) -> bool:
        """Return False: it is over."""
        return False

    def cancelled(self) -> bool:
        """Return False."""
        return False

    def done(self) -> bool:
        """Return True."""
        return True

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call back at once."""
        callback(self)

    def time_remaining(self) -> None:
        """Return None: it is over."""

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
        """Return nothing."""
        return ""

    async def debug_error_string(self) -> str:
        """Return nothing."""
        return ""

    async def wait_for_connection(self) -> None:
        """Return at once."""
