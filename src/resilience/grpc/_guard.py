"""What a guarded channel needs in both APIs: which methods are idempotent, deadlines, and the examination of errors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from numbers import Real
from typing import Any, Final, TypeAlias

import grpc

from resilience._call.call import CallOptions
from resilience._call.caller import Caller, is_async, options_of
from resilience._call.entry import aexecute, execute
from resilience._call.running_call import GIVEN, RunningCall
from resilience._outcome.unlisted import KNOWN
from resilience._util import validation
from resilience._util.clock import FOREVER, clock
from resilience._util.log_once import hook_failed
from resilience.errors import ResilienceError
from resilience.grpc._connectivity import Connectivity
from resilience.grpc._errors import ChannelClosed, make_rpc_error
from resilience.grpc._failures import NEVER_SENT, RPC_FAILURES, code_of, is_caller_fault, is_closed

Idempotent: TypeAlias = "bool | str | Iterable[str] | Callable[[str], bool | None] | None"
"""Which methods may be repeated: all or none, names or patterns of methods, or a function of the name of a method.

A function returns True or False; None and any other value count as False."""

ENDLESS: Final = 1e9
"""Seconds: a timeout from this on is none. grpc itself uses a number of this size for "no deadline" (#26236)."""
MAX_CACHED_METHODS: Final = 1000
"""The number of methods whose options are remembered. It bounds the memory where names are generated."""


class RpcCall(RunningCall):
    """An RPC as a call of the pipeline."""

    __slots__ = ()

    single_attempt = True

    def caused_by_deadline(self, error: Exception) -> bool:
        """Return whether an error that came at the deadline or later was caused by the deadline.

        A DEADLINE_EXCEEDED was: the timers of gRPC fire late, never early, and the deadline that gRPC sends to the
        server is rounded up, so one that comes earlier was sent by the server.
        """
        return super().caused_by_deadline(error) or code_of(error) is grpc.StatusCode.DEADLINE_EXCEEDED


class Guard:
    """Passes the RPCs of one channel through a pipeline.

    Args:
        pipeline: the pipeline, a single policy, or what `bind` of either returns.
        idempotent: which methods may be repeated; None for what was given to `standard`, if it made the pipeline.
        error_class: the class of errors of gRPC that errors of the pipeline are made; see `make_rpc_error`.
        target: the target of the channel; None if it is unknown.
        single_attempt: whether the channel makes one attempt for each attempt of the pipeline: it has no built-in
            retries and no inner interceptors. Only then an unreachable server means that nothing was sent.

    Raises:
        TypeError: `pipeline` or `idempotent` has the wrong type.
        ValueError: a name or pattern in `idempotent` can match no method.
    """

    def __init__(
        self,
        pipeline: Caller[Any],
        idempotent: Idempotent,
        error_class: type[Any],
        target: str | None = None,
        *,
        single_attempt: bool = False,
    ) -> None:
        given: Any = pipeline
        if not isinstance(given, Caller):
            raise TypeError(f"pipeline must be a Pipeline or a policy, not {given!r}")
        self.pipeline = pipeline
        self._entry, _ = pipeline.entry()
        standard: Any = pipeline
        self._is_idempotent = matcher(getattr(standard, "idempotent", None) if idempotent is None else idempotent)
        self._error_class = error_class
        self._target = target
        self.connectivity = Connectivity(target if single_attempt else None)
        self._options: dict[str, CallOptions] = {}

    def call(self, method: str, timeout: float | None, attempt: Callable[[], Any]) -> RpcCall:
        """Return the call of an RPC.

        Args:
            method: the name of the method, such as "/package.Service/Get".
            timeout: the seconds that the whole call may take, all attempts and waits included; None for no limit.
            attempt: the function that makes an attempt.

        Raises:
            TypeError: `timeout` is not a number.
            ValueError: `timeout` is NaN.
        """
        call = RpcCall.make(self._options.get(method) or self._method_options(method), attempt, (), {})
        if timeout is not None and _validated(timeout) < ENDLESS:
            at = clock.monotonic() + timeout
            if at < call.deadline:
                call.deadline = call.total_deadline = at
                call.deadline_source = call.total_deadline_source = GIVEN
        return call

    def _method_options(self, method: str) -> CallOptions:
        """Return the options of the calls of a method, and remember them."""
        known = options_of(self.pipeline, RPC_FAILURES, target=self._target)
        idempotent = self._is_idempotent(method)
        if idempotent is None:
            idempotent = bool(known.idempotent)
        options = CallOptions(known.pipeline, known.operation or method, known.target, idempotent, known.failures)
        if len(self._options) < MAX_CACHED_METHODS:
            self._options[method] = options
        return options

    def run(self, call: RunningCall) -> Any:
        """Make an RPC and return its response. Errors of the pipeline are made errors of gRPC."""
        try:
            return execute(self._entry, call)
        except ResilienceError as error:
            make_rpc_error(error, self._error_class)
            raise

    async def arun(self, call: RunningCall) -> Any:
        """Make an RPC and return its response. Errors of the pipeline are made errors of gRPC."""
        try:
            return await aexecute(self._entry, call)
        except ResilienceError as error:
            make_rpc_error(error, self._error_class)
            raise

    def examine(self, error: Exception, *, disconnected: bool, first: bool = True) -> None:
        """Mark the error of an attempt whose request was certainly never sent, and one that the caller has caused.

        Args:
            error: the error of the attempt.
            disconnected: what `Connectivity.is_disconnected` returned just before the attempt.
            first: whether it was the first attempt of its RPC.

        Raises:
            ChannelClosed: it was not the first attempt, and it was not made because the channel is closed.
        """
        if not first and is_closed(error):
            raise ChannelClosed("the channel was closed") from error
        if self.connectivity.never_sent(error, disconnected=disconnected):
            error.__dict__[NEVER_SENT] = True
        if is_caller_fault(error):
            error.__dict__[KNOWN] = True


def _validated(timeout: Any) -> float:
    """Return the timeout of an RPC as a float, if it is a number."""
    if isinstance(timeout, bool) or not isinstance(timeout, Real):
        raise TypeError(f"timeout must be a number of seconds, not {timeout!r}")
    if timeout != timeout:
        raise ValueError("timeout must be a number of seconds, not nan")
    return float(timeout)


def timeout_until(deadline: float) -> float | None:
    """Return the timeout, in seconds, of an attempt that must end at `deadline`; None where there is no deadline.

    It is never 0, since a call with a timeout of 0 succeeds now and then.
    """
    return None if deadline == FOREVER else max(deadline - clock.monotonic(), _MIN_TIMEOUT)


_MIN_TIMEOUT: Final = 0.001


def matcher(idempotent: Any) -> Callable[[str], bool | None]:
    """Return a function that returns whether a method is idempotent; None where `idempotent` is None.

    Raises:
        TypeError: `idempotent` has the wrong type, such as a mapping or an async function.
        ValueError: a name or pattern can match no method.
    """
    if idempotent is None or isinstance(idempotent, bool):
        return lambda method: idempotent
    if callable(idempotent):
        if is_async(idempotent):
            raise TypeError(f"idempotent takes a plain predicate, not one that is async: {idempotent!r}")
        return lambda method: _call_predicate(idempotent, method)
    if not isinstance(idempotent, Iterable) or isinstance(idempotent, Mapping):
        raise TypeError(
            "idempotent must be True or False, names or patterns of methods such as "
            f'"/package.Service/Get*", or a predicate of the name of a method, not {idempotent!r}'
        )
    patterns = [idempotent] if isinstance(idempotent, str) else _listed(idempotent)
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"a pattern in idempotent must be a string, not {pattern!r}")
        has_wildcards = any(sign in pattern for sign in "*?[")
        if not (pattern.startswith(("/", "*")) if has_wildcards else _NAME.fullmatch(pattern)):
            raise ValueError(
                'a pattern in idempotent must be "/package.Service/Method", or have wildcards, such as '
                f'"/package.Service/Get*" or "*/Get*"; {pattern!r} would match no method'
            )
    return lambda method: any(fnmatchcase(method, pattern) for pattern in patterns)


_NAME: Final = re.compile(r"/[^/]+/.+")


def _listed(patterns: Any) -> list[Any]:
    """Return the patterns in a list, of any type."""
    return [*patterns]


def _call_predicate(predicate: Callable[[str], object], method: str) -> bool:
    """Return what the user's predicate returns for a method; False if it raises or does not return True or False."""
    try:
        answer = predicate(method)
        return False if answer is None else validation.flag("what the idempotent predicate returns", answer)
    except Exception as error:
        hook_failed("idempotent predicate", predicate, error)
        return False
