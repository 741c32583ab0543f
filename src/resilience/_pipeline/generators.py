"""Guarded generator functions: the first item is the head of the call, and what follows is its body.

The attempts of a Retry go up to the first item; permits and probes are held until the generator has ended. That is when
it is exhausted, raises an exception, is closed, or is garbage-collected.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Callable, Generator
from functools import partial
from typing import Any

from resilience import _runtime
from resilience._call import deadline_errors
from resilience._call.call import CallOptions
from resilience._call.entry import Entry, aexecute, execute
from resilience._call.generator_call import AnyGeneratorCall, AsyncGeneratorCall, Exhausted, GeneratorCall, Head
from resilience._call.running_call import UNPHASED
from resilience._outcome.ending import ABANDONED, OK, Ending
from resilience._runtime.deadline import deadline_after
from resilience._util.clock import FOREVER, clock
from resilience.errors import LateResult, UsageError
from resilience.events._types import Mode


def guard_generator(entry: Entry, options: CallOptions, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a generator function that calls `function` through a pipeline."""

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        return (yield from _items(entry, GeneratorCall.make(options, function, args, kwargs)))

    return guarded


def _items(entry: Entry, call: GeneratorCall) -> Generator[Any, Any, Any]:
    """Make the call, yield the items of the generator, and settle the call when there are no more."""
    started = clock.monotonic()
    head = execute(entry, call)
    if isinstance(head, Exhausted):
        return head.value
    if not isinstance(head, Head):
        if not hasattr(head.__class__, "__iter__"):
            raise _not_iterable(call, head)
        yield from head  # the replacement of a Fallback
        return None
    call.deferred = head.call.deferred = None  # the settlement is that of the head, for which see below
    item, thrown = head.first, None
    was_silent = False
    step: Callable[[], Any] | None = None
    late: Exception | None = None
    try:
        while True:
            try:
                sent = yield item
            except GeneratorExit:
                raise
            except BaseException as error:
                thrown = error
                step = partial(head.items.throw, error)
            else:
                late = _late(head, started, was_silent=was_silent)
                if late is not None:
                    raise late
                step = partial(head.items.send, sent)
            asked = clock.monotonic()
            until = asked + head.phases.idle
            item = _step(step, min(until, head.call.current_total_deadline()))
            was_silent = clock.monotonic() >= until
            _report_silence(head, asked)
            thrown = None
    except StopIteration as stop:
        head.settlement.end(OK)
        return stop.value
    except BaseException as error:
        try:
            head.items.close()
        finally:
            head.settlement.end(_ending(head, error, thrown))
        raise
    finally:
        del head  # its settlement has the exception, whose traceback has this frame
        step = thrown = late = None


def _step(step: Callable[[], Any], deadline: float) -> Any:
    """Take a step of a plain generator, whose code sees the deadline."""
    if deadline == FOREVER:
        return step()
    with deadline_after(max(0.0, deadline - clock.monotonic())):
        return step()


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
        call.deferred = head.call.deferred = None  # as in `_items`
        item, thrown = head.first, None
        late: Exception | None = None
        try:
            while True:
                try:
                    sent = yield item
                except GeneratorExit:
                    raise
                except BaseException as error:
                    thrown = error
                    item = await _in_time(head, head.items.athrow(error))
                else:
                    late = _late(head, started)
                    if late is not None:
                        raise late
                    asked = clock.monotonic()
                    item = await _in_time(head, head.items.asend(sent))
                    _report_silence(head, asked)
                thrown = None
        except StopAsyncIteration:
            head.settlement.end(OK)
        except BaseException as error:
            try:
                await head.items.aclose()
            finally:
                head.settlement.end(_ending(head, error, thrown))
            raise
        finally:
            del head  # its settlement has the exception, whose traceback has this frame
            thrown = late = None

    return guarded


async def _in_time(head: Head, step: Any) -> Any:
    """Await an item, at most until the deadline of the whole call, and for the longest silence."""
    call = head.call
    try:
        call.deadline, call.deadline_source = call.current_total_deadline(), call.total_deadline_source
        until = clock.monotonic() + head.phases.idle
        if until < call.deadline:
            call.deadline, call.deadline_source = until, head.phases.idle_source
        if call.deadline == FOREVER:
            return await step
        return await _runtime.call_with_deadline(call, step)
    except LateResult as late:
        return late.result
    finally:
        del head  # as in `_items`


def _report_silence(head: Head, asked: float) -> None:
    """Publish the first silence for which a Timeout would have ended the call, were it not in shadow mode."""
    phases = head.shadow_phases
    if phases is not UNPHASED and clock.monotonic() >= asked + phases.idle:
        head.shadow_phases = UNPHASED
        deadline_errors.publish(head.call, phases.idle_source, mode=Mode.SHADOW)


def _late(head: Head, started: float, *, was_silent: bool = False) -> Exception | None:
    """Return the error of a call whose deadline has passed, or that was silent for too long; else None."""
    call = head.call
    source = head.phases.idle_source if was_silent else None
    if clock.monotonic() >= call.current_total_deadline():
        source = call.total_deadline_source
    return None if source is None else deadline_errors.cut_error(call, started, source)


def _ending(head: Head, error: BaseException, thrown: BaseException | None) -> Ending:
    """Return the ending of a generator that was closed, or ended with an exception; `thrown` came from its user."""
    if isinstance(error, GeneratorExit):
        return OK
    return ABANDONED if error is thrown else Ending(None, error, head.failures)


def _not_iterable(call: AnyGeneratorCall, replacement: object) -> UsageError:
    """Return the error for what a Fallback gives in place of a generator, and has no items."""
    return UsageError(
        f"a Fallback replaced the generator {call.operation} by a {type(replacement).__name__}, which cannot be "
        "iterated over; let it give a list of items, or an iterator"
    )
