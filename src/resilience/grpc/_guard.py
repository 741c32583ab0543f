"""What a guarded channel needs in both APIs: the options of its methods, deadlines, and the examination of errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import count
from numbers import Real
from typing import Any, Final, TypeVar

from grpc import StatusCode

from resilience._call.ambient import inbound_attempt
from resilience._call.caller import Caller, options_of
from resilience._call.entry import aexecute, execute
from resilience._call.propagation import ATTEMPT_COUNT
from resilience._call.running_call import GIVEN, RunningCall
from resilience._outcome.unlisted import KNOWN
from resilience._util import validation
from resilience._util.clock import FOREVER, clock
from resilience.errors import ResilienceError
from resilience.grpc._call import BaseRpcCall, SendsRequest
from resilience.grpc._connectivity import Connectivity
from resilience.grpc._errors import ChannelClosed, make_rpc_error
from resilience.grpc._failures import CLOSED, NEVER_SENT, RPC_FAILURES, is_caller_fault, is_closed
from resilience.grpc._methods import (
    CALLS_TO_WATCH,
    HEALTH_CHECKS,
    Idempotent,
    MethodOptions,
    Patterns,
    declared_idempotent,
    matcher,
)
from resilience.grpc._outcomes import LocalRpcError

ENDLESS: Final = 1e9
"""Seconds: a timeout from this on is none. grpc itself uses a number of this size for "no deadline" (#26236)."""
MAX_CACHED_METHODS: Final = 1000
"""The number of methods whose options are remembered. It bounds the memory where names are generated."""
PREVIOUS_ATTEMPTS: Final = "grpc-previous-rpc-attempts"
"""The key in the metadata of a retry with the number of attempts before it (gRFC A6).

gRPC removes it from what an application sends if the retries of the channel are enabled."""

_NO_KWARGS: Final[dict[str, Any]] = {}

CallT = TypeVar("CallT", bound=BaseRpcCall)


class Guard:
    """Passes the RPCs of one channel through a pipeline.

    Args:
        pipeline: the pipeline, a single policy, or what `bind` of either returns.
        idempotent: which methods may be repeated; None for what was given to `standard`, if it made the pipeline.
        error_class: the class of errors of gRPC that errors of the pipeline are made; see `make_rpc_error`.
        target: the target of the channel; None if it is unknown.
        propagate: whether each attempt sends its number.
        unguarded: the methods that bypass the pipeline.
        single_attempt: whether the channel makes one attempt for each attempt of the pipeline: it has no inner
            interceptors. Only then an unreachable server means that nothing was sent.

    Attributes:
        closed: whether the channel was closed, if it was made by this library.
        propagates: whether each attempt sends its number.
        running: the RPCs whose pipelines run on threads of their own.

    Raises:
        TypeError: a parameter has the wrong type.
        ValueError: a name or pattern in `idempotent` or `unguarded` can match no method.
    """

    def __init__(
        self,
        pipeline: Caller[Any],
        idempotent: Idempotent,
        error_class: type[Any],
        target: str | None = None,
        *,
        propagate: bool = False,
        unguarded: str | Iterable[str] = HEALTH_CHECKS,
        single_attempt: bool = False,
    ) -> None:
        given: Any = pipeline
        if not isinstance(given, Caller):
            raise TypeError(f"pipeline must be a Pipeline or a policy, not {given!r}")
        self.pipeline = pipeline
        self._entry, _ = pipeline.entry()
        standard: Any = pipeline
        self._is_idempotent, patterns = matcher(
            getattr(standard, "idempotent", None) if idempotent is None else idempotent
        )
        self._unguarded = Patterns("unguarded", unguarded)
        self.propagates = validation.flag("propagate", propagate)
        self._error_class = error_class
        self._target = target
        self.connectivity = Connectivity(target if single_attempt else None)
        self._options: dict[str, MethodOptions] = {}
        self._has_patterns = patterns is not None
        self._unmatched = patterns
        self._calls = count(1)
        self.closed = False
        self.running: set[Any] = set()

    def close(self) -> None:
        """End the waits of the RPCs whose pipelines run on threads, since the channel is closed."""
        self.closed = True
        for rpc in list(self.running):
            rpc.close()

    def options(self, method: str) -> MethodOptions:
        """Return the options of the calls of a method, such as "/package.Service/Get"."""
        if self._unmatched is not None:
            self._watch(self._unmatched)
        return self._options.get(method) or self._method_options(method)

    def call(
        self,
        kind: type[CallT],
        options: MethodOptions,
        timeout: float | None,
        attempt: Callable[[Any], Any],
        request: SendsRequest,
    ) -> CallT:
        """Return the call of an RPC.

        Args:
            kind: the class of the call.
            options: the options of its method.
            timeout: the seconds that the whole call may take, all attempts and waits included. None, infinity, NaN and
                numbers that gRPC cannot express mean no limit.
            attempt: the function that makes an attempt; it is called with the call.
            request: what the attempts send.

        Raises:
            TypeError: `timeout` is not a number.
        """
        call = kind()
        call.begin(options, attempt, (call,), _NO_KWARGS)
        call.request = request
        seconds = ENDLESS if timeout is None else _validated(timeout)
        if seconds < ENDLESS:
            at = clock.monotonic() + seconds
            if at < call.deadline:
                call.deadline = call.total_deadline = at
                call.deadline_source = call.total_deadline_source = GIVEN
        return call

    def _method_options(self, method: str) -> MethodOptions:
        """Return the options of the calls of a method, and remember them."""
        known = options_of(self.pipeline, RPC_FAILURES, target=self._target)
        idempotent = self._is_idempotent(method)
        if idempotent is None and not self._has_patterns:
            idempotent = known.idempotent
        hedgeable = idempotent is True
        if idempotent is None:
            idempotent, hedgeable = declared_idempotent(method)
        bypasses = self._unguarded.match(method)
        options = MethodOptions(known, method, idempotent=idempotent, hedgeable=hedgeable, bypasses=bypasses)
        if len(self._options) < MAX_CACHED_METHODS:
            self._options[method] = options
        return options

    def _watch(self, patterns: Patterns) -> None:
        """Report the patterns of `idempotent` that no method has matched, once, after some calls."""
        if not patterns.unmatched:
            self._unmatched = None
        elif next(self._calls) > CALLS_TO_WATCH:
            self._unmatched = None
            patterns.report_unmatched(self._options)

    def run(self, call: BaseRpcCall) -> Any:
        """Make an RPC and return its result. Errors of the pipeline are made errors of gRPC."""
        try:
            return execute(self._entry, call)
        except ResilienceError as error:
            self.translate(error)
            raise
        finally:
            call.end()

    async def arun(self, call: BaseRpcCall) -> Any:
        """Make an RPC and return its result. Errors of the pipeline are made errors of gRPC."""
        try:
            return await aexecute(self._entry, call)
        except ResilienceError as error:
            self.translate(error)
            raise
        finally:
            call.end()

    def translate(self, error: ResilienceError) -> None:
        """Make an error of the pipeline an error of gRPC, too."""
        make_rpc_error(error, self._error_class)

    def metadata_of(self, call: RunningCall) -> tuple[tuple[str, str], ...]:
        """Return the metadata that an attempt sends in addition to that of the caller."""
        number = max(call.attempt, inbound_attempt(call.ambient)) if self.propagates else 1
        added = ((ATTEMPT_COUNT, str(number)),) if self.propagates else ()
        return added if call.attempt == 1 else (*added, (PREVIOUS_ATTEMPTS, str(call.attempt - 1)))

    def examine(self, error: Exception, *, disconnected: bool, first: bool = True) -> None:
        """Mark the error of an attempt whose request was certainly never sent, and one that the caller has caused.

        Args:
            error: the error of the attempt.
            disconnected: what `Connectivity.is_disconnected` returned just before the attempt.
            first: whether it was the first attempt of its RPC.

        Raises:
            ChannelClosed: it was not the first attempt, and it was not made because the channel is closed.
            LocalRpcError: it was the first attempt, and the channel was closed since the call was made.
        """
        if is_closed(error):
            if not first:
                raise ChannelClosed("the channel was closed") from error
            if self.closed:
                raise LocalRpcError(StatusCode.CANCELLED, CLOSED) from error
        if self.connectivity.never_sent(error, disconnected=disconnected):
            error.__dict__[NEVER_SENT] = True
        if is_caller_fault(error):
            error.__dict__[KNOWN] = True


def _validated(timeout: Any) -> float:
    """Return the timeout of an RPC, if it is a number; `ENDLESS` for NaN and all that is longer."""
    if isinstance(timeout, bool) or not isinstance(timeout, Real):
        raise TypeError(f"timeout must be a number of seconds, not {timeout!r}")
    given: Any = timeout
    return float(max(0, given)) if given < ENDLESS else ENDLESS


def timeout_until(deadline: float) -> float | None:
    """Return the timeout, in seconds, of an attempt that must end at `deadline`; None where gRPC can express none.

    It is never 0, since a call with a timeout of 0 succeeds now and then.
    """
    if deadline == FOREVER:
        return None
    left = deadline - clock.monotonic()
    return None if left >= ENDLESS else max(left, _MIN_TIMEOUT)


_MIN_TIMEOUT: Final = 0.001
