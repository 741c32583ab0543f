"""The entry into a pipeline: it counts a call as in flight and passes it through the chain of policies."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, NamedTuple, Protocol, Self, TypeAlias

from resilience._call.call import Call, CallOptions
from resilience._call.responses import NOT_RESPONSES, check_response
from resilience._call.running_call import RunningCall
from resilience._outcome.allowlist import Allowlist
from resilience._util.finalizers import pending, run_pending
from resilience.errors import CarriedResult

Admit: TypeAlias = "Callable[[Call], Any]"
"""Admits a block in place of the `admit` of its gate."""


class Counted(Protocol):
    """The calls that are in flight in a pipeline."""

    @property
    def calls(self) -> set[RunningCall]:
        """The calls that have not returned yet."""
        ...

    @property
    def waiting(self) -> list[Callable[[], object]]:
        """The callbacks of drains, which are called when no call is in flight any more."""
        ...

    def leave(self, call: RunningCall) -> None:
        """Remove a call that has returned; if it returned a stream, count that instead. Notify waiting drains."""
        ...


class Entry(Protocol):
    """The composed chains of drivers of a pipeline, and its calls in flight."""

    @property
    def chain(self) -> Callable[[RunningCall], Any]:
        """The chain for plain functions."""
        ...

    @property
    def achain(self) -> Callable[[RunningCall], Awaitable[Any]]:
        """The chain for coroutine functions."""
        ...

    @property
    def in_flight(self) -> Counted:
        """The calls in flight."""
        ...

    def prepare_for(self, function: Callable[..., Any]) -> None:
        """Prepare for a function that is decorated: the pipeline is named after it if it has no name yet."""
        ...

    def result_lists(self, default: Allowlist) -> tuple[Allowlist, ...]:
        """Return the allowlists that list returned values; `default` is for pipelines without an own allowlist."""
        ...

    def enter_block(self, gate: Any, options: CallOptions, admit: Admit | None = None) -> BlockEntry:
        """Have a gate admit a `with` block, which may block the thread."""
        ...

    async def aenter_block(self, gate: Any, options: CallOptions, admit: Admit | None = None) -> BlockEntry:
        """Have a gate admit an `async with` block, which may wait."""
        ...

    def guard_generator(self, options: CallOptions, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a generator function that calls `function`, one as well, through the pipeline; or an async one."""
        ...

    def retry_block(self, loop: Any, options: CallOptions) -> RetryAttempts:
        """Return the attempts of a block of code that a Loop repeats."""
        ...


class RetryAttempt(Protocol):
    """One attempt of a Retry around a block of code: `with attempt:`, or `async with attempt:`."""

    @property
    def number(self) -> int:
        """Its number, from 1."""
        ...

    def __enter__(self) -> Self: ...
    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> bool: ...


class RetryAttempts(Protocol):
    """The attempts of a block of code."""

    def __iter__(self) -> Iterator[RetryAttempt]: ...
    def __aiter__(self) -> AsyncIterator[RetryAttempt]: ...


class BlockEntry(NamedTuple):
    """A `with` block that entered a gate.

    Attributes:
        call: the call that represents the block.
        admitted: whether the gate admitted it, so that the token has to be settled at its end.
        token: the token of the gate.
    """

    call: RunningCall
    admitted: bool
    token: Any


def execute(entry: Entry, call: RunningCall) -> Any:
    """Pass a plain call through a pipeline, and return the result."""
    if pending:
        run_pending()
    in_flight = entry.in_flight
    try:
        in_flight.calls.add(call)
        return entry.chain(call)
    except CarriedResult as carried:
        return carried.result
    finally:
        call.ending = None
        if call.deferred is None:
            in_flight.calls.discard(call)
        if call.deferred is not None or in_flight.waiting:  # in this order: a drain checks them in the reverse one
            in_flight.leave(call)


async def aexecute(entry: Entry, call: RunningCall) -> Any:
    """Pass an awaited call through a pipeline, and return the result."""
    if pending:
        run_pending()
    in_flight = entry.in_flight
    try:
        in_flight.calls.add(call)
        return await entry.achain(call)
    except CarriedResult as carried:
        return carried.result
    finally:
        call.ending = None
        if call.deferred is None:
            in_flight.calls.discard(call)
        if call.deferred is not None or in_flight.waiting:  # in this order: a drain checks them in the reverse one
            in_flight.leave(call)


# Decorated functions are called most often. These do the same as the two above, with fewer calls and lookups.


def guard(entry: Entry, options: CallOptions, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls `function` through a pipeline."""
    in_flight = entry.in_flight
    enter, leave, waiting = in_flight.calls.add, in_flight.calls.discard, in_flight.waiting

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        call = RunningCall()
        call.begin(options, function, args, kwargs)
        if pending:
            run_pending()
        try:
            enter(call)
            result = entry.chain(call)
            if result.__class__ not in NOT_RESPONSES:
                check_response(call, result)
            return result
        except CarriedResult as carried:
            return carried.result
        finally:
            call.ending = None
            if call.deferred is None:
                leave(call)
            if call.deferred is not None or waiting:  # in this order: a drain checks them in the reverse one
                in_flight.leave(call)

    return guarded


def guard_async(entry: Entry, options: CallOptions, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a coroutine function that calls `function` through a pipeline."""
    in_flight = entry.in_flight
    enter, leave, waiting = in_flight.calls.add, in_flight.calls.discard, in_flight.waiting

    @functools.wraps(function)
    async def guarded(*args: Any, **kwargs: Any) -> Any:
        call = RunningCall()
        call.begin(options, function, args, kwargs)
        if pending:
            run_pending()
        try:
            enter(call)
            result = await entry.achain(call)
            if result.__class__ not in NOT_RESPONSES:
                check_response(call, result)
            return result
        except CarriedResult as carried:
            return carried.result
        finally:
            call.ending = None
            if call.deferred is None:
                leave(call)
            if call.deferred is not None or waiting:  # in this order: a drain checks them in the reverse one
                in_flight.leave(call)

    return guarded
