"""What both transports do: with the pipeline, with what sends the requests, and with the response of an attempt."""

from __future__ import annotations

from typing import Any

from resilience._call.caller import Caller, options_of
from resilience._call.settlement import DeferredSettlement
from resilience._outcome.allowlist import is_bad
from resilience.errors import RejectedError, RejectReason
from resilience.httpx._call import HttpCall, copied
from resilience.httpx._deadline import Timeouts
from resilience.httpx._failures import HTTP_FAILURES, unsent
from resilience.httpx._modules import httpx_module_of, is_a, is_own, module_name_of
from resilience.httpx._pool_repair import pool_of


class BaseResilientTransport:
    """What both transports have in common: the pipeline, and what is made of an attempt's response."""

    def __init__(self, pipeline: Caller[Any], transport: Any, default: str, method: str) -> None:
        given: Any = pipeline
        if not isinstance(given, Caller):
            raise TypeError(f"pipeline must be a Pipeline or a policy, not {pipeline!r}")
        self._pipeline: Caller[Any] = pipeline
        self._entry, _ = pipeline.entry()
        self._options = options_of(pipeline, HTTP_FAILURES)
        if transport is not None and not callable(getattr(transport, method, None)):
            raise TypeError(f"transport must be one that has {method}, not {transport!r}")
        self._default = default if transport is None else None
        self._speaks: type[Any] | None = None
        self._send_by(getattr(httpx_module_of(self).module, default)() if transport is None else transport)
        self._closings: int = 0

    def _send_by(self, transport: Any) -> None:
        self._transport: Any = transport
        self._own = is_own(transport)
        self._pool = pool_of(transport)

    def _speak(self, request: Any) -> None:
        """See to it that requests and what sends them belong to the same module, as the first request comes in.

        Raises:
            TypeError: they do not.
        """
        own, wanted = module_name_of(self._transport), httpx_module_of(request).module.__name__
        if self._own and own != wanted:
            if self._default is None or self._speaks is not None:
                raise TypeError(
                    f"this transport sends by {own}, and the client is one of {wanted}: give it one of those"
                )
            self._send_by(getattr(httpx_module_of(request).module, self._default)())
        self._speaks = type(request)

    def _outgoing(self, call: HttpCall) -> tuple[Any, Timeouts]:
        """Begin an attempt; returns what it sends, and its timeouts.

        Raises:
            RejectedError: the transport was closed while the call waited: its connections would stay open.
        """
        if call.epoch != self._closings:
            raise RejectedError("the client was closed while the call waited", reason=RejectReason.DRAINING)
        call.set_queued(False)
        extensions = call.request.extensions
        timeouts = Timeouts(extensions.get("timeout") or {}, call.deadline)
        return copied(call.request, {**extensions, "timeout": timeouts}), timeouts

    def _learn(self, error: BaseException, call: HttpCall) -> None:
        """Note whether an attempt that raised was sent."""
        known = unsent(error, self._own)
        if known is not None:
            call.learn(known)
        if known and is_a(error, "PoolTimeout"):
            call.set_queued(True)

    def _receive(self, response: Any, call: HttpCall, timeouts: Timeouts) -> tuple[bool, DeferredSettlement | None]:
        """Return whether a response is a failure, and what is to end with the body of one that is none."""
        call.set_queued(False)
        call.opened.append(response)
        if not response.is_closed:
            timeouts.set_deadline(call.total_deadline)
        if is_bad(response, self._entry.result_lists(HTTP_FAILURES)):
            return True, None
        if response.is_closed:
            return False, None
        call.deferred = DeferredSettlement()
        return False, call.deferred
