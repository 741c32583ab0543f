"""The interceptor of servers of `grpc.aio`."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable
from typing import Any

import grpc

from resilience.grpc._inbound import Begin, Behavior, InboundRules, Status, forbid_retries, status_of
from resilience.grpc._server import Answer, wrap_function, wrap_generator

__all__ = ["aio_server_interceptor"]


def aio_server_interceptor(*, trust: bool = False, min_remaining: float = 0.0) -> grpc.aio.ServerInterceptor:
    """Return an interceptor for a server of `grpc.aio`; the rest is as in `server_interceptor`.

    For `grpc.aio.server(interceptors=[aio_server_interceptor()])`, and handlers of all kinds: coroutine functions, also
    those that use `read()` and `write()` of their context, async generator functions, and the synchronous handlers that
    run in threads. Of the latter, the errors in question are not raised on to outer interceptors: the status is set in
    the context, and the handler returns.

    Args:
        trust: whether to believe the metadata of attempts, which anyone can send.
        min_remaining: the seconds, >= 0, that a call must have left to be handled.

    Raises:
        TypeError, ValueError: a parameter is of the wrong type or out of range.
    """
    return _AioServerInterceptor(InboundRules(trust, min_remaining))


class _AioServerInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the handlers of a server of `grpc.aio`."""

    def __init__(self, rules: InboundRules) -> None:
        self._rules = rules

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Return the handler of the method, wrapped; None if there is none."""
        handler = await continuation(handler_call_details)
        return self._rules.wrap(handler, handler_call_details.invocation_metadata, _wrap)


def _wrap(behavior: Behavior, is_stream: bool, begin: Begin) -> Behavior:
    """Return a behavior of the same kind, by which grpc decides how to call it."""
    if inspect.iscoroutinefunction(behavior):
        return _wrap_coroutine_function(behavior, begin)
    if is_stream and inspect.isasyncgenfunction(behavior):
        return _wrap_async_generator(behavior, begin)
    return _wrap_sync(wrap_generator if is_stream else wrap_function, behavior, begin)


def _wrap_coroutine_function(behavior: Behavior, begin: Begin) -> Behavior:
    """Return the behavior of a method that returns its response, or that writes its responses to the context."""

    async def handle(request: Any, context: Any) -> Any:
        try:
            call = begin(context)
            try:
                with call:
                    return await behavior(request, context)
            finally:
                call.end()
        except Exception as error:
            await _abort(context, status_of(error, context))
            raise

    return handle


def _wrap_async_generator(behavior: Behavior, begin: Begin) -> Behavior:
    """Return the behavior of a method that yields its responses."""

    async def handle(request: Any, context: Any) -> AsyncGenerator[Any]:
        try:
            call = begin(context)
            responses: Any = None
            try:
                with call:
                    responses = behavior(request, context)
                while True:
                    with call:
                        try:
                            response = await anext(responses)
                        except StopAsyncIteration:
                            return
                    yield response
            finally:
                try:
                    if responses is not None:
                        with call:
                            await responses.aclose()
                finally:
                    call.end()
        except Exception as error:
            await _abort(context, status_of(error, context))
            raise

    return handle


async def _abort(context: Any, status: Status | None) -> None:
    """Abort the call, if there is a status for it. It raises an exception, which grpc does not log."""
    if status is not None:
        forbid_retries(context)
        await context.abort(status.code, status.details)


def _wrap_sync(wrap: Callable[[Behavior, Begin, Answer], Behavior], behavior: Behavior, begin: Begin) -> Behavior:
    """Return the behavior of a synchronous handler."""
    wrapped = wrap(behavior, begin, _finish)

    def handle(request: Any, context: Any) -> Any:
        return wrapped(request, _RecordingContext(context))

    return handle


def _finish(context: Any, status: Status) -> None:
    """Set the status of a call whose handler returns without a response.

    Not by `abort`: that waits for the event loop, and the handler may run on after grpc has ended the call.
    """
    forbid_retries(context)
    context.set_code(status.code)
    context.set_details(status.details)


class _RecordingContext:
    """The context of a synchronous handler, which remembers what the handler sets: that of grpc cannot be asked."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._code: grpc.StatusCode | None = None
        self._trailing: tuple[Any, ...] = ()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def set_code(self, code: Any) -> None:
        """Set the status code."""
        self._context.set_code(code)
        self._code = code

    def code(self) -> Any:
        """Return the status code that was set; None for none."""
        return self._code

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """Set the trailing metadata."""
        self._trailing = tuple(trailing_metadata)
        self._context.set_trailing_metadata(self._trailing)

    def trailing_metadata(self) -> tuple[Any, ...]:
        """Return the trailing metadata that was set."""
        return self._trailing
