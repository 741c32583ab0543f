"""Guarded generator functions: the first item is the head of the call, and what follows is its body.

The attempts of a Retry go up to the first item; permits and probes are held until the generator has ended. That is when
it is exhausted, raises an exception, is closed, or is garbage-collected.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

from resilience import _runtime
from resilience._call import deadline_errors
from resilience._call.call import CallOptions
from resilience._call.entry import Entry, aexecute, execute
from resilience._call.generator_call import AnyGeneratorCall, AsyncGeneratorCall, Exhausted, GeneratorCall, Head
from resilience._outcome.ending import ABANDONED, OK, Ending
from resilience._util.clock import FOREVER, clock
from resilience.errors import LateResult, UsageError


def guard_generator(entry: Entry, options: CallOptions, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a generator function that calls `function` through a pipeline."""

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        call = GeneratorCall.make(options, function, args, kwargs)
        started = clock.monotonic()
        head = execute(entry, call)
        if isinstance(head, Head):
            return (yield from _items(call, head, started))
        if isinstance(head, Exhausted):
            return head.value
        if not hasattr(head.__class__, "__iter__"):
            raise _not_iterable(call, head)
        yield from head  # the replacement of a Fallback
        return None

    return guarded


def _items(call: GeneratorCall, head: Head, started: float) -> Generator[Any, Any, Any]:
    """Yield the items, and settle the call when there are no more."""
    items, settlement = head.items, head.settlement
    item, thrown = head.first, None
    was_silent = False
    try:
        while True:
            try:
                sent = yield item
            except GeneratorExit:
                raise
            except BaseException as error:
                thrown = error
                item = items.throw(error)
            else:
                _check_deadline(call, started)
                if was_silent:
                    raise deadline_errors.cut_error(call, started, head.idle_source)
                until = clock.monotonic() + head.idle
                item = items.send(sent)
                was_silent = clock.monotonic() >= until
            thrown = None
    except StopIteration as stop:
        settlement.end(OK)
        return stop.value
    except BaseException as error:
        try:
            items.close()
        finally:
            settlement.end(_ending(call, error, thrown))
        raise
    finally:
        thrown = None


def guard_async_generator(entry: Entry, options: CallOptions, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return an async generator function that calls `function` through a pipeline."""

    @functools.wraps(function)
    async def guarded(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        call = AsyncGeneratorCall.make(options, function, args, kwargs)
        started = clock.monotonic()
        head = await aexecute(entry, call)
        if isinstance(head, Exhausted):
            return
        if hasattr(head.__class__, "__aiter__"):  # the replacement of a Fallback, as those that follow
            async for one in head:
                yield one
            return
        if hasattr(head.__class__, "__iter__"):
            for one in head:
                yield one
            return
        if not isinstance(head, Head):
            raise _not_iterable(call, head)
        items, settlement = head.items, head.settlement
        item, thrown = head.first, None
        try:
            while True:
                try:
                    sent = yield item
                except GeneratorExit:
                    raise
                except BaseException as error:
                    thrown = error
                    item = await _in_time(call, head, items.athrow(error))
                else:
                    _check_deadline(call, started)
                    item = await _in_time(call, head, items.asend(sent))
                thrown = None
        except StopAsyncIteration:
            settlement.end(OK)
        except BaseException as error:
            try:
                await items.aclose()
            finally:
                settlement.end(_ending(call, error, thrown))
            raise
        finally:
            thrown = None

    return guarded


async def _in_time(call: AsyncGeneratorCall, head: Head, step: Any) -> Any:
    """Await an item, at most until the deadline of the whole call, and for the longest silence."""
    call.deadline, call.deadline_source = call.current_total_deadline(), call.total_deadline_source
    until = clock.monotonic() + head.idle
    if until < call.deadline:
        call.deadline, call.deadline_source = until, head.idle_source
    if call.deadline == FOREVER:
        return await step
    try:
        return await _runtime.call_with_deadline(call, step)
    except LateResult as late:
        return late.result


def _check_deadline(call: AnyGeneratorCall, started: float) -> None:
    """Raise the error of a call whose deadline has passed."""
    if clock.monotonic() >= call.current_total_deadline():
        raise deadline_errors.cut_error(call, started, call.total_deadline_source)


def _ending(call: AnyGeneratorCall, error: BaseException, thrown: BaseException | None) -> Ending:
    """Return the ending of a generator that was closed, or ended with an exception; `thrown` came from its user."""
    if isinstance(error, GeneratorExit):
        return OK
    return ABANDONED if error is thrown else Ending(None, error, call.failures)


def _not_iterable(call: AnyGeneratorCall, replacement: object) -> UsageError:
    """Return the error for what a Fallback gives in place of a generator, and has no items."""
    return UsageError(
        f"a Fallback replaced the generator {call.operation} by a {type(replacement).__name__}, which cannot be "
        "iterated over; let it give a list of items, or an iterator"
    )
