"""The calls that are in flight in a pipeline, and how to drain it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import NoReturn, Protocol
from weakref import ref

from resilience._call.running_call import RunningCall
from resilience._runtime import park, threads
from resilience._util import validation
from resilience._util.clock import clock
from resilience._util.finalizers import run_pending
from resilience._util.locks import members


class Host(Protocol):
    """What calls are in flight in."""

    def recompose(self) -> None:
        """Have new calls rejected while a drain goes on, and let in otherwise."""

    def reject(self, call: RunningCall) -> NoReturn:
        """Raise the rejection of a call that comes during a drain."""
        ...


class InFlight:
    """Counts calls in and out: those of the pipeline itself, those of outer pipelines, streams and abandoned threads.

    `waiting` are the wakers of drains; they are called when the last of the `awaited` calls has left.

    Args:
        host: composes the chains, and rejects calls during a drain.
    """

    __slots__ = ("awaited", "calls", "draining", "host", "nested", "streams", "waiting")

    def __init__(self, host: Host) -> None:
        self.host = host
        self.calls: set[RunningCall] = set()
        self.nested: dict[object, RunningCall] = {}
        self.streams: dict[object, None] = {}
        self.waiting: list[Callable[[], object]] = []
        self.awaited: dict[object, ref[RunningCall] | None] = {}
        self.draining = False

    def __len__(self) -> int:
        """How many calls are running, streamed results included; for a moment also one that is being rejected."""
        return len(self.calls) + len(self.nested) + len(self.streams)

    def enter(self, place: object, call: RunningCall) -> None:
        """Count in a call that comes from an outer pipeline, or reject it."""
        self.nested[place] = call  # before the look, so that a drain which begins now sees it
        if self.draining:
            self.host.reject(call)

    def exit(self, place: object, call: RunningCall) -> None:
        """Count out a call of an outer pipeline, or have its stream do so."""
        self._follow(call)
        self.nested.pop(place, None)
        if self.waiting:
            self.left(place)

    def leave(self, call: RunningCall) -> None:
        """Count a call out, or have its stream do so."""
        try:
            self._follow(call)
        finally:
            self.calls.discard(call)
        if self.waiting:
            self.left(ref(call))

    def _follow(self, call: RunningCall) -> None:
        """Count the work that the call has left running."""
        # Not the call itself: it holds the settlement of that work, which then would never be dropped.
        if call.deferred is not None and not call.deferred.ended:
            stream = object()
            self.streams[stream] = None
            call.deferred.add(partial(self._stream_ended, stream))

    def _stream_ended(self, stream: object, ending: object) -> None:
        del ending
        self.streams.pop(stream, None)
        self.left(None)

    def left(self, one: object) -> None:
        """Wake the drains if none of the calls that they wait for is left."""
        self.awaited.pop(one, None)
        if not self.awaited and not self.streams:
            while self.waiting:
                with contextlib.suppress(IndexError, RuntimeError):  # another was faster; its event loop is closed
                    self.waiting.pop(0)()

    def drain(self, timeout: float) -> bool:
        """Drain from a thread; returns whether that ended in time, in seconds."""
        until = clock.monotonic() + validation.number("timeout", timeout)
        drain = Drain(self)
        while drain.unfinished():
            if clock.monotonic() >= until:
                return False
            with drain:
                threads.park(drain, until)
            run_pending()
        return True

    async def adrain(self, timeout: float) -> bool:
        """Drain from a task; returns whether that ended in time, in seconds."""
        until = clock.monotonic() + validation.number("timeout", timeout)
        drain = Drain(self)
        while drain.unfinished():
            if clock.monotonic() >= until:
                return False
            with drain:
                await park(drain, until)
            run_pending()
        return True

    def set_draining(self, draining: bool) -> None:
        """Reject new calls from now on, or let them in again."""
        self.draining = draining
        self.host.recompose()

    def forget(self) -> None:
        """Forget all calls; for a forked child, where the threads that made them do not exist."""
        self.calls.clear()
        self.nested.clear()
        self.streams.clear()
        self.waiting.clear()
        self.awaited.clear()


class Drain:
    """One drain: new calls are rejected, waits between attempts end, and the calls in flight by now are awaited.

    Calls that come later are rejected, but are counted while that is done: so it is not enough to look whether any are
    counted. A call is counted in before it looks whether it is let in, so that none is missed.
    """

    def __init__(self, in_flight: InFlight) -> None:
        self._in_flight = in_flight
        self._wakers: list[Callable[[], object]] = []
        in_flight.set_draining(True)
        calls = members(in_flight.calls)
        nested = members(in_flight.nested.items())
        # Weakly: a call holds the settlement of its stream, and a stream that is dropped has ended, too.
        in_flight.awaited.update({ref(call): ref(call) for call in calls})
        in_flight.awaited.update({place: None for place, _ in nested})
        for call in (*calls, *(call for _, call in nested)):
            call.stop_retrying()

    def unfinished(self) -> bool:
        """Whether an awaited call is still in flight."""
        in_flight = self._in_flight
        for one, call in members(in_flight.awaited.items()):
            # Until a drain waits, a call that leaves does not take itself off this list.
            still_in = one in in_flight.nested if call is None else call() in in_flight.calls
            if not still_in:
                in_flight.left(one)  # for other drains, too
        return bool(in_flight.awaited or in_flight.streams)

    def add_waker(self, wake: Callable[[], object]) -> bool:
        """Wait until all have left."""
        run_pending()
        self._wakers.append(wake)
        self._in_flight.waiting.append(wake)
        return self.unfinished()

    def __enter__(self) -> None:
        """Begin to wait."""

    def __exit__(self, *exc_info: object) -> None:
        """Do not wait any more."""
        while self._wakers:
            with contextlib.suppress(ValueError):
                self._in_flight.waiting.remove(self._wakers.pop())
