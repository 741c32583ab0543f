"""The calls in flight in a pipeline, and draining."""

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
    """The pipeline that the calls are in flight in."""

    def recompose(self) -> None:
        """Compose chains that reject calls during a drain, and that admit them otherwise."""

    def reject(self, call: RunningCall) -> NoReturn:
        """Raise the rejection of a call that arrives during a drain."""
        ...


class InFlight:
    """The calls in flight in one pipeline.

    Args:
        host: composes the chains, and rejects calls during a drain.

    Attributes:
        calls: the calls of the pipeline itself.
        nested: the calls of outer pipelines, each by a key for its passage.
        streams: streamed results and abandoned threads that calls have left running.
        draining: whether new calls are rejected.
        awaited: the keys of the calls that drains wait for.
        waiting: the wakers of drains, called when no awaited call and no stream is left.
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
        """Return the number of calls in flight, streamed results included; briefly also calls being rejected."""
        return len(self.calls) + len(self.nested) + len(self.streams)

    def enter(self, key: object, call: RunningCall) -> None:
        """Count in a call from an outer pipeline, or raise its rejection during a drain."""
        self.nested[key] = call  # before the check, so that a drain that begins now sees it
        if self.draining:
            self.host.reject(call)

    def exit(self, key: object, call: RunningCall) -> None:
        """Count out a call from an outer pipeline; work that it has left running is counted until it ends."""
        self._follow(call)
        self.nested.pop(key, None)
        if self.waiting:
            self.left(key)

    def leave(self, call: RunningCall) -> None:
        """Count out a call; work that it has left running is counted until it ends."""
        try:
            self._follow(call)
        finally:
            self.calls.discard(call)
        if self.waiting:
            self.left(ref(call))

    def _follow(self, call: RunningCall) -> None:
        """Count the work that the call has left running, until it ends."""
        # Not the call itself: it refers to the settlement of that work, which would then never be garbage-collected.
        if call.deferred is not None and not call.deferred.ended:
            stream = object()
            self.streams[stream] = None
            call.deferred.add(partial(self._stream_ended, stream))

    def _stream_ended(self, stream: object, ending: object) -> None:
        """Count out work that a call had left running."""
        del ending
        self.streams.pop(stream, None)
        self.left(None)

    def left(self, one: object) -> None:
        """Remove an awaited call; wake the drains if no awaited call and no stream is left."""
        self.awaited.pop(one, None)
        if not self.awaited and not self.streams:
            while self.waiting:
                with contextlib.suppress(IndexError, RuntimeError):  # emptied by another thread; event loop closed
                    self.waiting.pop(0)()

    def drain(self, timeout: float) -> bool:
        """Drain from a thread; return whether nothing is in flight within `timeout` seconds."""
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
        """Drain from a task; return whether nothing is in flight within `timeout` seconds."""
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
        """Reject new calls from now on, or accept them again."""
        self.draining = draining
        self.host.recompose()

    def forget(self) -> None:
        """Clear all calls; for a forked child, where the threads that made them do not exist."""
        self.calls.clear()
        self.nested.clear()
        self.streams.clear()
        self.waiting.clear()
        self.awaited.clear()


class Drain:
    """One drain: rejects new calls, ends the waits between attempts, and waits for the calls in flight at its start.

    Later calls are counted briefly while they are rejected, so a drain waits for the calls of its start, not for an
    empty count. A call is counted in before it checks `draining`, so that none is missed.
    """

    def __init__(self, in_flight: InFlight) -> None:
        self._in_flight = in_flight
        self._wakers: list[Callable[[], object]] = []
        in_flight.set_draining(True)
        calls = members(in_flight.calls)
        nested = members(in_flight.nested.items())
        # Weak references: a call refers to the settlement of its stream, which ends also by garbage collection.
        in_flight.awaited.update({ref(call): ref(call) for call in calls})
        in_flight.awaited.update({key: None for key, _ in nested})
        for call in (*calls, *(call for _, call in nested)):
            call.stop_retrying()

    def unfinished(self) -> bool:
        """Return whether an awaited call or a stream is still in flight."""
        in_flight = self._in_flight
        for one, call in members(in_flight.awaited.items()):
            # While no drain waits, a call that leaves does not remove itself from `awaited`.
            still_in = one in in_flight.nested if call is None else call() in in_flight.calls
            if not still_in:
                in_flight.left(one)  # for other drains, too
        return bool(in_flight.awaited or in_flight.streams)

    def add_waker(self, wake: Callable[[], object]) -> bool:
        """Register a waker; return whether there is anything to wait for."""
        run_pending()
        self._wakers.append(wake)
        self._in_flight.waiting.append(wake)
        return self.unfinished()

    def __enter__(self) -> None:
        """Do nothing; `add_waker` registers the wakers."""

    def __exit__(self, *exc_info: object) -> None:
        """Remove the wakers that were registered."""
        while self._wakers:
            with contextlib.suppress(ValueError):
                self._in_flight.waiting.remove(self._wakers.pop())
