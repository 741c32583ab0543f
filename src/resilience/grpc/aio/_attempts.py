"""The attempts of RPCs of `grpc.aio`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import grpc

from resilience._util.clock import clock
from resilience.grpc._attempts import BaseAttempts
from resilience.grpc._call import BaseRpcCall, StreamedRpcCall
from resilience.grpc._errors import LocalAioRpcError
from resilience.grpc._failures import ITERATOR_FAILED
from resilience.grpc._guard import Guard, timeout_until
from resilience.grpc._head import EMPTY, Head
from resilience.grpc._requests import UnaryRequest, copied
from resilience.grpc.aio._outcomes import AioLocalResponse

ANY_MESSAGE: Final = UnaryRequest(None)
"""The request as the pipeline knows it: a single message, which can be sent again."""


def _ignored(attempt: object) -> None:
    """Do nothing with an attempt that has started."""


def _none_follows(details: object, request: object) -> Any:
    """The continuation of an RPC that has ended."""
    raise RuntimeError("the RPC has ended")


class AioAttempts(BaseAttempts):
    """The attempts of one RPC of `grpc.aio`.

    Only responses are awaited, never `code()` or metadata, through which a cancellation would not reach the server.
    The deadlines of cancel scopes of anyio are not known where grpc runs interceptors in a separate task.
    """

    local_response = AioLocalResponse

    async def _start(self, call: BaseRpcCall, deadline: float) -> Any:
        """Start an attempt that gRPC is to end at `deadline`, and return its call."""
        given = self.details
        metadata = grpc.aio.Metadata(*self._pairs(call) or ())  # inner interceptors expect this type, and may change it
        details = grpc.aio.ClientCallDetails(
            given.method, timeout_until(deadline), metadata, given.credentials, given.wait_for_ready
        )
        return await self._continuation(details, self.request_source.for_attempt())

    def end(self) -> None:
        """Drop what makes attempts, since none follows: it refers to the call of grpc, which refers to this one."""
        self._continuation = _none_follows
        self._good.clear()

    async def response(self, call: BaseRpcCall, started: Callable[[Any], None] = _ignored) -> Any:
        """Make an attempt with a single response and return it, or raise its error.

        Args:
            call: the call.
            started: called with the call of the attempt, when it has started.
        """
        attempt: Any = None
        disconnected = self._begin()
        try:
            attempt = await self._start(call, call.current_deadline())
            started(attempt)
            response = await attempt
        except Exception as error:
            self._examine(error, disconnected)
            raise
        except BaseException as error:
            self._cancel(attempt, error)
            raise
        return self._add(response, attempt)

    async def head(self, call: StreamedRpcCall, started: Callable[[Any], None]) -> AioHead:
        """Make an attempt with a stream of responses, and return its head at the first one, or raise its error.

        The timeout of the attempt is that of the whole stream; the pipeline cancels it if its head is late.

        Args:
            call: the call.
            started: called with the call of the attempt, when it has started.
        """
        stream: Any = None
        at = clock.monotonic()
        disconnected = self._begin()
        try:
            stream = await self._start(call, call.current_total_deadline())
            started(stream)
            responses = aiter(stream)
            first = await anext(responses, EMPTY)
        except Exception as error:
            self._examine(error, disconnected)
            raise
        except BaseException as error:
            self._cancel(stream, error)
            raise
        return AioHead(stream, responses, first, call, at)

    def _cancel(self, attempt: Any, error: BaseException) -> None:
        """Cancel an attempt whose wait has ended with an exception such as CancelledError.

        If gRPC has cancelled it, since the request iterator has failed, raise an error that says so.
        """
        self.request_source.end_attempt()
        if attempt is None:
            cancel_awaited(error)
        else:
            attempt.cancel()
        task = asyncio.current_task()
        cause: Exception | None = getattr(self.request_source, "error", None)
        is_own = isinstance(error, asyncio.CancelledError) and task is not None and not task.cancelling()
        if cause is not None and is_own:
            failed = LocalAioRpcError(grpc.StatusCode.UNKNOWN, ITERATOR_FAILED)
            self._examine(failed, disconnected=False)
            raise failed from cause


class UnaryAttempts(AioAttempts):
    """The attempts of one RPC, and their request. Each attempt is an RPC of the channel of gRPC.

    Args:
        guard: the guard of the channel.
        inner: the multi-callable of the channel of gRPC.
        request: the request; it is copied.
        metadata: the metadata of the caller. It is read once, since it may be an iterator.
        options: the other arguments of `inner`.
    """

    def __init__(self, guard: Guard, inner: Any, request: Any, metadata: Any, options: tuple[Any, Any, Any]) -> None:
        # Not super().__init__(): each object and each function saved is 1 us of an RPC, with cold caches.
        self.guard = guard
        self._inner = inner
        self._message = request if request.__class__ is bytes else copied(request)
        self._metadata = metadata if metadata is None else tuple(metadata)
        self._options = options
        self._begun = 0
        self._good = []
        self.request_source = ANY_MESSAGE

    async def attempt(self, call: BaseRpcCall) -> Any:
        """Make an attempt and return its response, or raise its error."""
        guard = self.guard
        credentials, wait_for_ready, compression = self._options
        attempt: Any = None
        self._begun += 1
        disconnected = guard.connectivity.is_disconnected()
        try:
            attempt = self._inner(
                self._message,
                timeout=timeout_until(call.current_deadline()),
                metadata=self._metadata if call.attempt == 1 and not guard.propagates else self._pairs(call),
                credentials=credentials,
                wait_for_ready=wait_for_ready,
                compression=compression,
            )
            response = await attempt
        except Exception as error:
            self._examine(error, disconnected)
            raise
        except BaseException as error:
            self._cancel(attempt, error)
            raise
        self._good.append((response, attempt))
        return response


class AioHead(Head):
    """A stream of responses of `grpc.aio` whose first one has arrived; see `Head`.

    Args:
        responses: the iterator of the stream, from which the first one was taken.
    """

    __slots__ = ("responses",)

    def __init__(
        self, stream: Any, responses: AsyncIterator[Any], first: Any, call: StreamedRpcCall, started: float
    ) -> None:
        super().__init__(stream, first, call, started)
        self.responses = responses

    def cut(self) -> None:
        """Cancel the stream for its silence."""
        if self.settlement is not None:
            self.settlement.was_cut = True
        self.stream.cancel()


def cancel_awaited(error: BaseException) -> None:
    """Cancel the RPCs that were awaited when an exception was raised in a task.

    An inner interceptor that awaits the status of its RPC does not cancel it when it is cancelled itself, and so the
    server would go on. Whatever it has awaited was a method of the call, which is a frame of the traceback. The frames
    of the RPC that is intercepted are there, too; to cancel that would cancel the caller.
    """
    traceback = error.__traceback__
    while traceback is not None:
        owner = traceback.tb_frame.f_locals.get("self")
        is_intercepted = hasattr(owner, "_interceptors_task")
        if isinstance(owner, grpc.aio.Call) and not is_intercepted and not owner.done():
            owner.cancel()
        traceback = traceback.tb_next
