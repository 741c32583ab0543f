"""Who is in flight in a pipeline, and how to drain it."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any

from resilience import checks
from resilience.call import Call
from resilience.clock import ambient
from resilience.ending import Ending
from resilience.runtime import park, threads
from resilience.settling import sweep


class Census(ABC):
    """Counts calls in and out: those of the pipeline itself, guests from outer pipelines, streams and threads left."""

    def __init__(self) -> None:
        self.live: set[Call] = set()
        self.guests: dict[object, Call] = {}
        self.streams: set[object] = set()
        self.waiting: deque[Callable[[], object]] = deque()
        self.draining = False

    @abstractmethod
    def rewire(self) -> None:
        """Have new calls refused while draining, and let in otherwise."""

    @abstractmethod
    def refuse(self, call: Call) -> Any:
        """Raise the refusal of a call that comes during a drain."""

    @property
    def in_flight(self) -> int:
        """How many calls are running, streamed results included."""
        return len(self.live) + len(self.guests) + len(self.streams)

    def come_in(self, guest: object, call: Call) -> None:
        """Count in a call that comes from an outer pipeline, or refuse it."""
        self.guests[guest] = call  # before the look, so that a drain which begins now sees it
        if self.draining:
            self.refuse(call)

    def go_out(self, guest: object, call: Call) -> None:
        """Count a guest out, or have its stream do so."""
        self._follow(call)
        self.guests.pop(guest, None)
        self._tell_if_empty()

    def leave(self, call: Call) -> None:
        """Count a call out, or have its stream do so."""
        try:
            self._follow(call)
        finally:
            self.live.discard(call)
        self._tell_if_empty()

    def _follow(self, call: Call) -> None:
        """Count what the call has left running. Not the call itself: it holds the deferred, which then never drops."""
        if call.deferred is not None and not call.deferred.ended:
            stream = object()
            self.streams.add(stream)
            call.deferred.then(self._left, stream)

    def _left(self, stream: object, ending: Ending) -> None:
        del ending
        self.streams.discard(stream)
        self._tell_if_empty()

    def _tell_if_empty(self) -> None:
        if not self.in_flight:
            while self.waiting:
                with contextlib.suppress(IndexError, RuntimeError):  # another was faster; its event loop is closed
                    self.waiting.popleft()()

    def start_drain(self) -> None:
        """Refuse new calls, and end the waits between attempts."""
        self.draining = True
        self.rewire()
        for call in (*self.live, *self.guests.values()):
            call.interrupt()

    def park(self, wake: Callable[[], object]) -> bool:
        """Wait until nothing is in flight."""
        sweep()
        self.waiting.append(wake)
        return bool(self.in_flight)

    def drain(self, timeout: float) -> bool:
        """Drain from a thread."""
        until = ambient.monotonic() + checks.number("timeout", timeout)
        self.start_drain()
        while self.in_flight and ambient.monotonic() < until:
            threads.park(self, until)
            sweep()
        return not self.in_flight

    async def adrain(self, timeout: float) -> bool:
        """Drain from a task."""
        until = ambient.monotonic() + checks.number("timeout", timeout)
        self.start_drain()
        while self.in_flight and ambient.monotonic() < until:
            await park(self, until)
            sweep()
        return not self.in_flight

    def resume(self) -> None:
        """Take calls again."""
        self.draining = False
        self.rewire()

    def forget(self) -> None:
        """Forget who is in flight; for a forked child, where the threads that made the calls do not exist."""
        self.live.clear()
        self.guests.clear()
        self.streams.clear()
        self.waiting.clear()
