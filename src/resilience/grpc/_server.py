"""The interceptor of synchronous servers, and the wrappers of synchronous handlers."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeAlias

import grpc

from resilience.grpc._inbound import Begin, Behavior, InboundRules, Status, forbid_retries, status_of

__all__ = ["server_interceptor"]

Answer: TypeAlias = Callable[[Any, Status], None]
"""Ends a call with a status, given its context. It may raise, as `abort` does; if it returns, the handler returns."""


def server_interceptor(*, trust: bool = False, min_remaining: float = 0.0) -> grpc.ServerInterceptor:
    """Return an interceptor for a server that obeys its callers' deadlines and attempts, and answers for rejections.

    For `grpc.server(..., interceptors=[server_interceptor()])`, and methods of all four kinds. The deadline of a call
    is the ambient deadline of its handler until the handler has ended: `resilience.remaining()` returns what is left,
    and guarded calls obey it. It cancels nothing by itself.

    Args:
        trust: whether to believe two keys of the metadata, which anyone can send: only where all callers are your own,
            or behind a proxy that sets or removes them. `x-envoy-attempt-count` above 1, or
            `grpc-previous-rpc-attempts` (gRFC A6) above 0, means that the call is a retry: a Retry in the handler makes
            one attempt, unless it is `nested=True`. Ignored are values that are not ASCII digits, keys that are sent
            more than once, and numbers of more than 9,999. The deadline is gRPC's own and needs no trust.
        min_remaining: the seconds, >= 0, that a call must have left to be handled. With less, or with none left, it
            ends with DEADLINE_EXCEEDED and the handler is not called. It has no effect on calls without a deadline.

    Raises:
        TypeError, ValueError: a parameter is of the wrong type or out of range.

    If the handler raises a RejectedError, the call ends with UNAVAILABLE; if it raises a DeadlineExceededError, with
    DEADLINE_EXCEEDED; in both cases with `grpc-retry-pushback-ms: -1` in the trailing metadata, which asks the client
    not to retry (gRFC A6). A group of nothing but these errors counts as well: as a deadline if one of them is. The
    details are a fixed text. A stream ends in the same way, also after some of its messages. Trailing metadata that the
    handler has set is sent as well. All other errors are raised on, and so are these if the handler has set a status
    code or has aborted the call.

    Handlers with the attribute `experimental_non_blocking`, such as that of the health service's Watch, pass through
    unchanged.
    """
    return _ServerInterceptor(InboundRules(trust, min_remaining))


class _ServerInterceptor(grpc.ServerInterceptor):
    """Wraps the handlers of a synchronous server."""

    def __init__(self, rules: InboundRules) -> None:
        self._rules = rules

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Return the handler of the method, wrapped; None if there is none."""
        return self._rules.wrap(continuation(handler_call_details), handler_call_details.invocation_metadata, _wrap)


def _wrap(behavior: Behavior, is_stream: bool, begin: Begin) -> Behavior:
    """Return a behavior that answers by aborting."""
    return wrap_generator(behavior, begin, _abort) if is_stream else wrap_function(behavior, begin, _abort)


def _abort(context: Any, status: Status) -> None:
    """Abort the call. It raises an exception, which grpc does not log."""
    forbid_retries(context)
    context.abort(status.code, status.details)


def wrap_function(behavior: Behavior, begin: Begin, answer: Answer) -> Behavior:
    """Return the behavior of a method with one response."""

    def handle(request: Any, context: Any) -> Any:
        try:
            call = begin(context)
            try:
                with call:
                    return behavior(request, context)
            finally:
                call.end()
        except Exception as error:
            status = status_of(error, context)
            if status is None:
                raise
            return answer(context, status)

    return handle


def wrap_generator(behavior: Behavior, begin: Begin, answer: Answer) -> Behavior:
    """Return the behavior of a method with a stream of responses, as a generator function."""

    def handle(request: Any, context: Any) -> Generator[Any]:
        try:
            call = begin(context)
            responses: Any = None
            try:
                with call:
                    responses = _iterator(behavior(request, context))
                while True:
                    with call:
                        try:
                            response = next(responses)
                        except StopIteration:
                            return
                    yield response
            finally:
                try:
                    if isinstance(responses, Generator):
                        with call:
                            responses.close()
                finally:
                    call.end()
        except Exception as error:
            status = status_of(error, context)
            if status is None:
                raise
            answer(context, status)

    return handle


def _iterator(responses: Any) -> Any:
    """Return what `next` takes: grpc does not ask for an `__iter__`."""
    return responses if hasattr(responses, "__next__") else iter(responses)
