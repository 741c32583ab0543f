"""What guarded channels have in common: which methods are idempotent, how long a call may take, what an error tells."""

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
from resilience._call.running_call import RunningCall
from resilience._util import validation
from resilience._util.clock import FOREVER, clock
from resilience._util.log_once import KNOWN, hook_failed
from resilience.errors import ResilienceError
from resilience.grpc._connectivity import Connectivity
from resilience.grpc._errors import ChannelClosed, make_rpc_error
from resilience.grpc._failures import NEVER_SENT, RPC_FAILURES, code_of, is_caller_fault, is_closed

Idempotent: TypeAlias = "bool | str | Iterable[str] | Callable[[str], bool | None] | None"
"""Which methods may be repeated: all or none, method names or patterns, or a predicate of the method's name.

A predicate returns True or False; None, and whatever is no bool, counts as False."""

ENDLESS: Final = 1e9
"""Seconds from which on a timeout is none: grpc's own way to say "no deadline" is a number of that size (#26236)."""
MOST_METHODS: Final = 1000
"""More names of methods than any API has are not remembered: somebody makes them up."""


class RpcCall(RunningCall):
    """An RPC, as the policies see it."""

    __slots__ = ()

    single_attempt = True

    def caused_by_deadline(self, error: Exception) -> bool:
        """Return whether an error that came at the deadline, or later, is our own cut.

        gRPC's timers ring late, never early, and the deadline that it tells the server is rounded up: so a
        DEADLINE_EXCEEDED that comes earlier is the server's own.
        """
        return super().caused_by_deadline(error) or code_of(error) is grpc.StatusCode.DEADLINE_EXCEEDED

    def copy(self) -> RpcCall:
        """Return a copy, for an attempt that goes on while the call itself does."""
        return self.copy_state_to(RpcCall(self.options, self.function, self.args, self.kwargs))


class Guard:
    """Passes the RPCs of one channel through a pipeline.

    Args:
        pipeline: the pipeline, or one of its policies, or what its `bind` returns.
        idempotent: which methods may be repeated.
        flavour: the class of gRPC's errors that ours are to be.
        target: the channel's; None when it is not known.
        alone: whether the channel makes exactly one attempt of each of ours: no built-in retry, no interceptor further
            in that may repeat calls. Only then an unreachable server means that nothing was sent.
    """

    def __init__(
        self,
        pipeline: Caller[Any],
        idempotent: Idempotent,
        flavour: type[Any],
        target: str | None = None,
        *,
        alone: bool = False,
    ) -> None:
        given: Any = pipeline
        if not isinstance(given, Caller):
            raise TypeError(f"pipeline must be a Pipeline or a policy, not {given!r}")
        self.pipeline = pipeline
        self._entry, _ = pipeline.entry()
        self._is_idempotent = matcher(idempotent)
        self._error_class = flavour
        self._target = target
        self.connectivity = Connectivity(target if alone else None)
        self._options: dict[str, CallOptions] = {}

    def call(self, method: str, timeout: float | None, attempt: Callable[[], Any]) -> RpcCall:
        """Return the call for an RPC; the caller's timeout becomes its deadline, all attempts and waits included.

        Raises:
            TypeError: `timeout` is no number.
            ValueError: it is NaN, of which nobody can say whether it is over.
        """
        call = RpcCall(self._options.get(method) or self._learn(method), attempt, (), {})
        if timeout is not None and _checked(timeout) < ENDLESS:
            at = clock.monotonic() + timeout
            if at < call.deadline:
                call.deadline = call.total_deadline = at
        return call

    def _learn(self, method: str) -> CallOptions:
        known = options_of(self.pipeline, RPC_FAILURES, target=self._target)
        idempotent = self._is_idempotent(method)
        if idempotent is None:
            idempotent = bool(known.idempotent)
        options = CallOptions(known.pipeline, known.operation or method, known.target, idempotent, known.failures)
        if len(self._options) < MOST_METHODS:
            self._options[method] = options
        return options

    def run(self, call: RunningCall) -> Any:
        """Make the RPC; returns its response."""
        try:
            return execute(self._entry, call)
        except ResilienceError as error:
            make_rpc_error(error, self._error_class)
            raise

    async def arun(self, call: RunningCall) -> Any:
        """Make the RPC; returns its response."""
        try:
            return await aexecute(self._entry, call)
        except ResilienceError as error:
            make_rpc_error(error, self._error_class)
            raise

    def examine(self, error: Exception, *, apart: bool, first: bool = True) -> None:
        """Note on the error of an attempt what is certain: that nothing was sent (see `Reach`), and whose doing it is.

        Args:
            error: what the attempt failed with.
            apart: what `reach.apart()` said just before it.
            first: whether it was the first attempt of its RPC.

        Raises:
            ChannelClosed: there was an attempt before it, and it was not made.
        """
        if not first and is_closed(error):
            raise ChannelClosed("the channel was closed") from error
        if self.connectivity.never_sent(error, apart=apart):
            error.__dict__[NEVER_SENT] = True
        if is_caller_fault(error):
            error.__dict__[KNOWN] = True


def _checked(timeout: Any) -> float:
    if isinstance(timeout, bool) or not isinstance(timeout, Real):
        raise TypeError(f"timeout must be a number of seconds, not {timeout!r}")
    if timeout != timeout:
        raise ValueError("timeout must be a number of seconds, not nan")
    return float(timeout)


def timeout_until(deadline: float) -> float | None:
    """Return what to give gRPC as the timeout of an attempt that ends at `deadline`; None where there is none.

    It is never 0: gRPC lets a call with a timeout of 0 pass now and then.
    """
    return None if deadline == FOREVER else max(deadline - clock.monotonic(), _LEAST)


_LEAST: Final = 0.001


def matcher(idempotent: Any) -> Callable[[str], bool | None]:
    """Return what says of a method whether it is idempotent; it answers None where nothing was given.

    Raises:
        TypeError: `idempotent` is nothing of what is allowed, such as a mapping or an async predicate.
        ValueError: a pattern that can match no method.
    """
    if idempotent is None or isinstance(idempotent, bool):
        return lambda method: idempotent
    if callable(idempotent):
        if is_async(idempotent):
            raise TypeError(f"idempotent takes a plain predicate, not one that is async: {idempotent!r}")
        return lambda method: _asked(idempotent, method)
    if not isinstance(idempotent, Iterable) or isinstance(idempotent, Mapping):
        raise TypeError(
            "idempotent must be True or False, names or patterns of methods such as "
            f'"/package.Service/Get*", or a predicate of the name of a method, not {idempotent!r}'
        )
    patterns = [idempotent] if isinstance(idempotent, str) else _listed(idempotent)
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"a pattern in idempotent must be a string, not {pattern!r}")
        wild = any(sign in pattern for sign in "*?[")
        if not (pattern.startswith(("/", "*")) if wild else _NAME.fullmatch(pattern)):
            raise ValueError(
                'a pattern in idempotent must be "/package.Service/Method", or have wildcards, as '
                f'"/package.Service/Get*" or "*/Get*", not be {pattern!r}: it would match no method'
            )
    return lambda method: any(fnmatchcase(method, pattern) for pattern in patterns)


_NAME: Final = re.compile(r"/[^/]+/.+")


def _listed(patterns: Any) -> list[Any]:
    return [*patterns]


def _asked(predicate: Callable[[str], object], method: str) -> bool:
    """Ask the user's predicate. Whatever is neither True nor False, such as a coroutine, permits nothing."""
    try:
        answer = predicate(method)
        return False if answer is None else validation.flag("what the idempotent predicate returns", answer)
    except Exception as error:
        hook_failed("idempotent predicate", predicate, error)
        return False
