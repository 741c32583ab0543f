"""The base class of the transports for plain and for async clients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final, Generic, TypeVar

from resilience._call.caller import Caller, options_of
from resilience._call.settlement import DeferredSettlement
from resilience._outcome.allowlist import is_bad
from resilience._outcome.ending import Ending, EndingKind
from resilience._outcome.http_status import KEYED
from resilience._outcome.server_hints import QUOTA_NAMES, quota_of
from resilience._pipeline.standard import standard_per_target
from resilience.errors import RejectedError, RejectReason
from resilience.httpx._call import HttpCall, copied, copied_response
from resilience.httpx._deadline import Timeouts
from resilience.httpx._failures import HTTP_FAILURES, unsent
from resilience.httpx._http2_repair import http2_pool_of, release_left_streams
from resilience.httpx._idempotency import IdempotencyKey
from resilience.httpx._modules import httpx_module_of, is_a, is_own, module_name_of
from resilience.httpx._network import wrap_network
from resilience.httpx._options import Settle
from resilience.httpx._pool_repair import repairable_pool_of
from resilience.httpx._privates import names_of, pool_of
from resilience.httpx._request_body import is_bytes, prepare
from resilience.httpx._settings import RejectWith, TransportSettings
from resilience.httpx._verdicts import RETRY_COUNT, note_foreign_retry

TransportT = TypeVar("TransportT")
_BY_STATUS: Final = (HTTP_FAILURES,)
"""The allowlists of a pipeline in which a response of a status below 400 is never a failure."""


class BaseResilientTransport(Generic[TransportT]):
    """A transport that passes requests through a pipeline to an inner transport.

    Args:
        pipeline: the pipeline, or a single policy; also a bound one. None for the standard one, see `attach`.
        transport: the inner transport, which sends the requests; None for the default one.
        idempotent, propagate_to, idempotency_key, settle, reject_with: see `attach`.

    Raises:
        TypeError, ValueError: an argument has the wrong type or is out of range.

    Attributes:
        default_class: the name of the class of the default inner transport in httpx.
        send_method: the name of the method that an inner transport must have.
        network_class: the class of the network backend that notes, and in plain code bounds, the steps of attempts.
        clips_pool_timeout: whether a wait for a connection of the pool has to be bounded by a timeout.
    """

    default_class: ClassVar[str]
    send_method: ClassVar[str]
    network_class: ClassVar[type]
    clips_pool_timeout: ClassVar[bool]

    def __init__(
        self,
        pipeline: Caller[Any] | None = None,
        transport: TransportT | None = None,
        *,
        idempotent: Iterable[str] | str = (),
        propagate_to: Iterable[str] | str = (),
        idempotency_key: IdempotencyKey | None = None,
        settle: Settle = "body",
        reject_with: RejectWith = "error",
    ) -> None:
        given: Any = pipeline
        if pipeline is None:
            pipeline = standard_per_target("httpx", HTTP_FAILURES)
        elif not isinstance(given, Caller):
            raise TypeError(
                f"pipeline must be a Pipeline or a policy, not {pipeline!r}; several policies are one as Pipeline(...)"
            )
        self._pipeline: Caller[Any] = pipeline
        self._settings = TransportSettings(idempotent, propagate_to, idempotency_key, settle, reject_with)
        self._propagates = bool(self._settings.propagate_to)
        self._entry, _ = pipeline.entry()
        self._options = options_of(pipeline, HTTP_FAILURES)
        if transport is not None and not callable(getattr(transport, self.send_method, None)):
            raise TypeError(f"transport must be one that has {self.send_method}, not {transport!r}")
        self._has_default = transport is None
        self._request_class: type[Any] | None = None
        self._set_inner(getattr(httpx_module_of(self).module, self.default_class)() if transport is None else transport)
        self._times_closed: int = 0

    def _set_inner(self, transport: Any) -> None:
        """Set the inner transport."""
        self._transport: Any = transport
        self._own = is_own(transport)
        self._pool = repairable_pool_of(transport)
        self._http2_pool = http2_pool_of(transport) if self._own else None
        http2 = self._http2_pool is not None
        self._clips_attempt = self._own or self.clips_pool_timeout
        self._is_observed = self._own and wrap_network(pool_of(transport), self.network_class, http2=http2)

    def note_closing(self) -> None:
        """Have calls that wait for another attempt rejected, as the inner transport is being closed."""
        self._times_closed += 1

    def passes_through(self, pipeline: Caller[Any] | None, settings: TransportSettings) -> bool:
        """Return whether requests pass through that pipeline, with these settings. Internal."""
        given = standard_per_target("httpx", HTTP_FAILURES) if pipeline is None else pipeline
        same = given is self._pipeline or given.entry() == (self._entry, self._pipeline.entry()[1])
        return same and settings == self._settings

    def _begin(self, request: Any, attempt: Callable[[HttpCall], Any], release: Any) -> HttpCall:
        """Return the call of a request.

        Args:
            request: the request.
            attempt: makes an attempt.
            release: discards the responses that the call has opened.
        """
        if type(request) is not self._request_class:
            self._check_module(request)
        if RETRY_COUNT in names_of(request.headers):
            note_foreign_retry(request, self._options.pipeline)
        return HttpCall(self._options, attempt, request, release, self._settings, self._times_closed)

    def _check_module(self, request: Any) -> None:
        """Check that a request and the inner transport are of the same module; done again for a new class of requests.

        A default inner transport is replaced by that of the other module, if no request has been sent yet.

        Raises:
            TypeError: they are not of the same module.
        """
        module = httpx_module_of(request)
        inner, wanted = module_name_of(self._transport), module.module.__name__
        if self._own and inner != wanted:
            if not self._has_default or self._request_class is not None:
                raise TypeError(
                    f"this transport sends by {inner}, and the client is one of {wanted}: "
                    f"give it an inner transport of {wanted}"
                )
            self._set_inner(getattr(module.module, self.default_class)())
        self._module = module
        self._bytes_class: type[Any] = module.module.ByteStream
        self._response_class: type[Any] = module.module.Response
        self._request_class = type(request)

    def _outgoing(self, call: HttpCall) -> tuple[Any, Timeouts]:
        """Return the request that an attempt sends, and its timeouts.

        A transport that is not of httpx may keep what it has read from them, and use it for the body, too. So in an
        async client, where the attempt is cut by other means, it gets the time of the whole call.

        Raises:
            RejectedError: the transport was closed while the call waited. It would open connections that stay open.
            httpx.StreamConsumed: the body was read before, and cannot be sent again.
        """
        if call.times_closed != self._times_closed:
            raise RejectedError("the client was closed while the call waited", reason=RejectReason.DRAINING)
        call.queued = False
        request = call.request
        if request.stream.__class__ is not self._bytes_class and not is_bytes(request.stream):
            prepare(request.stream)
        if self._http2_pool is not None:
            release_left_streams(self._http2_pool)
        extensions: dict[str, Any] = request.extensions
        given: dict[str, float | None] = extensions.get("timeout") or {}
        timeouts = Timeouts(given, call.deadline if self._clips_attempt else call.total_deadline)
        if not self._is_observed:
            extensions = {**extensions, "timeout": timeouts.filled()}
        elif self.clips_pool_timeout:  # the rest is bounded by the network itself
            pool = timeouts.get("pool")
            if pool != given.get("pool"):
                extensions = {**extensions, "timeout": {**given, "pool": pool}}
        headers = call.headers_to_add() if call.key is not None or self._propagates else None
        if extensions is request.extensions and not headers:
            return request, timeouts
        return copied(request, extensions, headers), timeouts

    def _checked(self, response: Any, call: HttpCall) -> Any:
        """Return the result of a pipeline, which the caller closes from now on.

        A response that no attempt of the call has received, such as one that a Fallback gives to all callers, is
        copied: the client sets attributes of what it gets.

        Raises:
            TypeError: it is not a response, such as the value of a fallback.
        """
        if response.__class__ is not self._response_class and not is_a(response, "Response"):
            raise TypeError(f"the pipeline of a client must return a Response, not {type(response)!r}")
        try:
            call.opened.remove(response)
        except ValueError:
            return copied_response(response)
        return response

    def _note_unsent(self, error: BaseException, call: HttpCall, request: Any, timeouts: Timeouts) -> None:
        """Note on the call whether an attempt that raised has certainly sent nothing, where that is known.

        The type of an error may say so. Otherwise the network does, such as of one that came while a tunnel was opened;
        a request for a tunnel by the caller itself looks like that to it.
        """
        is_unsent = unsent(error, self._own, request, has_sent=timeouts.has_sent)
        if is_unsent is None and self._is_observed and not timeouts.has_sent and request.method != "CONNECT":
            is_unsent = is_a(error, "TransportError") or None
        if is_unsent is not None:
            call.set_unsent(is_unsent)
        if is_unsent and is_a(error, "PoolTimeout"):
            call.queued = True

    def _judge(self, response: Any, call: HttpCall) -> bool:
        """Return whether the response of an attempt is a failure; otherwise note on the call that it is not."""
        if call.key is not None:
            response.extensions[KEYED] = True
        lists = self._entry.result_lists(HTTP_FAILURES)
        if (response.status_code >= 400 or lists != _BY_STATUS) and is_bad(response, lists):
            return True
        call.is_judged = True
        if self._options.pipeline.reads_hints and not QUOTA_NAMES.isdisjoint(names_of(response.headers)):
            hint = quota_of(response.headers.raw)
            if hint is not None:
                call.good = Ending(EndingKind.OK, hint=hint)
        return False

    def _defer(self, response: Any, call: HttpCall, timeouts: Timeouts) -> DeferredSettlement | None:
        """Return the settlement that ends with the body of a good response; None if the call ends with its head."""
        if call.settles_at_head(response):
            call.release_body()
            timeouts.set_deadline(call.total_deadline)
            return None
        call.deferred = DeferredSettlement()
        return call.deferred
