"""Who is in flight in a pipeline, and how to drain it."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any
from weakref import ref

from resilience._call.call import Call
from resilience._outcome.ending import Ending
from resilience._runtime import park, threads
from resilience._util import validation
from resilience._util.clock import clock
from resilience._util.finalizers import run_pending
from resilience._util.locks import members


class InFlight(ABC):
    """Counts calls in and out: those of the pipeline itself, guests from outer pipelines, streams and threads left.

    `waiting` are the drains that want to hear when the last of those has left whom they wait for, the `awaited`.
    """

    def __init__(self) -> None:
        self.calls: set[Call] = set()
        self.nested: dict[object, Call] = {}
        self.streams: set[object] = set()
        self.waiting: deque[Callable[[], object]] = deque()
        self.awaited: dict[object, ref[Call] | None] = {}
        self.draining = False

    @abstractmethod
    def recompose(self) -> None:
        """Have new calls refused while draining, and let in otherwise."""

    @abstractmethod
    def reject(self, call: Call) -> Any:
        """Raise the refusal of a call that comes during a drain."""

    @property
    def in_flight(self) -> int:
        """How many calls are running, streamed results included; for a moment also one that is being refused."""
        return len(self.calls) + len(self.nested) + len(self.streams)

    def enter(self, guest: object, call: Call) -> None:
        """Count in a call that comes from an outer pipeline, or refuse it."""
        self.nested[guest] = call  # before the look, so that a drain which begins now sees it
        if self.draining:
            self.reject(call)

    def exit(self, guest: object, call: Call) -> None:
        """Count a guest out, or have its stream do so."""
        self._follow(call)
        self.nested.pop(guest, None)
        if self.waiting:
            self.left(guest)

    def leave(self, call: Call) -> None:
        """Count a call out, or have its stream do so."""
        try:
            self._follow(call)
        finally:
            self.calls.discard(call)
        if self.waiting:
            self.left(ref(call))

    def _follow(self, call: Call) -> None:
        """Count what the call has left running. Not the call itself: it holds the deferred, which then never drops."""
        if call.deferred is not None and not call.deferred.ended:
            stream = object()
            self.streams.add(stream)
            call.deferred.add(self._ended, stream)

    def _ended(self, stream: object, ending: Ending) -> None:
        del ending
        self.streams.discard(stream)
        self.left(None)

    def left(self, somebody: object) -> None:
        """Wake the drains if there is nobody left whom they wait for."""
        self.awaited.pop(somebody, None)
        if not self.awaited and not self.streams:
            while self.waiting:
                with contextlib.suppress(IndexError, RuntimeError):  # another was faster; its event loop is closed
                    self.waiting.popleft()()

    def drain(self, timeout: float) -> bool:
        """Drain from a thread."""
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
        """Drain from a task."""
        until = clock.monotonic() + validation.number("timeout", timeout)
        drain = Drain(self)
        while drain.unfinished():
            if clock.monotonic() >= until:
                return False
            with drain:
                await park(drain, until)
            run_pending()
        return True

    def resume(self) -> None:
        """Take calls again."""
        self.draining = False
        self.recompose()

    def forget(self) -> None:
        """Forget who is in flight; for a forked child, where the threads that made the calls do not exist."""
        self.calls.clear()
        self.nested.clear()
        self.streams.clear()
        self.waiting.clear()
        self.awaited.clear()


class Drain:
    """One drain: new calls are refused, waits between attempts end, and those that are in by now are waited for.

    Who comes later is refused, but stands in the census while that is done: so it is not enough to look whether it is
    empty. A call is counted in before it looks whether it is let in, so that none of those who were is missed.
    """

    def __init__(self, census: InFlight) -> None:
        self._census = census
        self._wakes: list[Callable[[], object]] = []
        census.draining = True
        census.recompose()
        calls = members(census.calls)
        guests = members(census.nested.items())
        # Weakly: a call holds what its stream is settled by, and a stream that is dropped has ended, too.
        census.awaited.update({ref(call): ref(call) for call in calls})
        census.awaited.update({guest: None for guest, _ in guests})
        for call in (*calls, *(call for _, call in guests)):
            call.stop_retrying()

    def unfinished(self) -> bool:
        """Whether somebody is still in."""
        census = self._census
        for one, call in members(census.awaited.items()):
            # Until a drain waits, nobody who leaves takes himself off this list.
            still_in = one in census.nested if call is None else call() in census.calls
            if not still_in:
                census.left(one)  # for other drains, too
        return bool(census.awaited or census.streams)

    def add_waker(self, wake: Callable[[], object]) -> bool:
        """Wait until all have left."""
        run_pending()
        self._wakes.append(wake)
        self._census.waiting.append(wake)
        return self.unfinished()

    def __enter__(self) -> None:
        """Begin to wait."""

    def __exit__(self, *exc_info: object) -> None:
        """Do not want to be woken any more."""
        while self._wakes:
            with contextlib.suppress(ValueError):
                self._census.waiting.remove(self._wakes.pop())
