"""The entry into a pipeline: what guards a call, and the functions that count it in and out."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol

from resilience._call.call import CallOptions
from resilience._call.running_call import RunningCall
from resilience._outcome.allowlist import Allowlist
from resilience._util.finalizers import pending, run_pending
from resilience.errors import CarriedResult


class Counted(Protocol):
    """The calls that are in flight."""

    @property
    def calls(self) -> set[RunningCall]:
        """The calls that are running."""
        ...

    @property
    def waiting(self) -> list[Callable[[], object]]:
        """What is called when no call is in flight any more."""
        ...

    def leave(self, call: RunningCall) -> None:
        """Count a call out, where a drain waits for that, or where it has left a stream."""
        ...


class Entry(Protocol):
    """What guards calls: the composed chains of drivers, and the count of calls in flight."""

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
        """The calls that are in flight."""
        ...

    def name_after(self, function: Callable[..., Any]) -> None:
        """Take the name of the first function that is decorated, if there is none yet."""
        ...

    def result_lists(self, default: Allowlist) -> tuple[Allowlist, ...]:
        """Return the allowlists that list returned values; `default` is that of pipelines without one."""
        ...

    def current_owner(self) -> object:
        """Return the running task, or else the thread."""
        ...

    def enter_block(self, gate: Any, options: CallOptions) -> BlockEntry:
        """Pass a gate by hand; a thread may have to wait."""
        ...

    async def aenter_block(self, gate: Any, options: CallOptions) -> BlockEntry:
        """Pass a gate by hand; a task may have to wait."""
        ...


class BlockEntry(NamedTuple):
    """A gate that was passed by hand.

    `call` stands for the block, `owner` is the task or thread that entered it, `token` is settled at its end if the
    gate admitted it.
    """

    call: RunningCall
    owner: object
    admitted: bool
    token: Any


def execute(entry: Entry, call: RunningCall) -> Any:
    """Pass a call through a pipeline."""
    if pending:
        run_pending()
    try:
        entry.in_flight.calls.add(call)
        return entry.chain(call)
    except CarriedResult as carried:
        return carried.result
    finally:
        call.ending = None
        entry.in_flight.leave(call)


async def aexecute(entry: Entry, call: RunningCall) -> Any:
    """Pass an awaited call through a pipeline."""
    if pending:
        run_pending()
    try:
        entry.in_flight.calls.add(call)
        return await entry.achain(call)
    except CarriedResult as carried:
        return carried.result
    finally:
        call.ending = None
        entry.in_flight.leave(call)


# What is decorated is called most often: these two do what the two above do, without their calls and look-ups.


def guard(entry: Entry, options: CallOptions, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that passes its calls through a pipeline."""
    in_flight = entry.in_flight
    enter, leave, waiting = in_flight.calls.add, in_flight.calls.discard, in_flight.waiting

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        call = RunningCall(options, function, args, kwargs)
        if pending:
            run_pending()
        try:
            enter(call)
            return entry.chain(call)
        except CarriedResult as carried:
            return carried.result
        finally:
            call.ending = None
            if call.deferred is None:
                leave(call)
            if call.deferred is not None or waiting:  # a drain looks the other way round
                in_flight.leave(call)

    return guarded


def guard_async(entry: Entry, options: CallOptions, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a coroutine function that passes its calls through a pipeline."""
    in_flight = entry.in_flight
    enter, leave, waiting = in_flight.calls.add, in_flight.calls.discard, in_flight.waiting

    @functools.wraps(function)
    async def guarded(*args: Any, **kwargs: Any) -> Any:
        call = RunningCall(options, function, args, kwargs)
        if pending:
            run_pending()
        try:
            enter(call)
            return await entry.achain(call)
        except CarriedResult as carried:
            return carried.result
        finally:
            call.ending = None
            if call.deferred is None:
                leave(call)
            if call.deferred is not None or waiting:  # a drain looks the other way round
                in_flight.leave(call)

    return guarded
