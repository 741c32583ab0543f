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
from resilience.errors import LateResult


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
        yield from head  # of a Fallback
        return None

    return guarded


def _items(call: GeneratorCall, head: Head, started: float) -> Generator[Any, Any, Any]:
    """Yield the items, and settle the call when there are no more."""
    items, settlement = head.items, head.settlement
    item, thrown = head.first, None
    until = FOREVER  # when the last item should have come, if it came later than that
    try:
        while True:
            try:
                sent = yield item
            except GeneratorExit:
                items.close()
                settlement.end(OK)
                raise
            except BaseException as error:
                thrown = error
                item = items.throw(error)
            else:
                _check_deadline(call, started)
                if until != FOREVER:
                    raise deadline_errors.cut_error(call, started, head.idle_source)
                until = clock.monotonic() + head.idle
                item = items.send(sent)
                if clock.monotonic() < until:
                    until = FOREVER
            thrown = None
    except StopIteration as stop:
        settlement.end(OK)
        return stop.value
    except BaseException as error:
        settlement.end(ABANDONED if error is thrown else Ending(None, error, _failures(call)))
        items.close()
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
        if not isinstance(head, Head):  # of a Fallback
            for item in head:
                yield item
            return
        items, settlement = head.items, head.settlement
        item, thrown = head.first, None
        try:
            while True:
                try:
                    sent = yield item
                except GeneratorExit:
                    await items.aclose()
                    settlement.end(OK)
                    raise
                except BaseException as error:
                    thrown = error
                    item = await items.athrow(error)
                else:
                    item = await _next(call, head, items.asend(sent), started)
                thrown = None
        except StopAsyncIteration:
            settlement.end(OK)
        except BaseException as error:
            settlement.end(ABANDONED if error is thrown else Ending(None, error, _failures(call)))
            raise
        finally:
            thrown = None

    return guarded


async def _next(call: AsyncGeneratorCall, head: Head, step: Any, started: float) -> Any:
    """Await an item, at most until the deadline of the whole call, and for the longest silence."""
    _check_deadline(call, started)
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
    deadline = call.current_total_deadline()
    if deadline != FOREVER and clock.monotonic() >= deadline:
        raise deadline_errors.cut_error(call, started, call.total_deadline_source)


def _failures(call: AnyGeneratorCall) -> Any:
    return call.pipeline.failures or call.options.failures
