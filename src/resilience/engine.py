"""The inside of a pipeline: the composed chains, what is in flight, and how to drain it."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any
from weakref import WeakSet

from resilience import checks, drive_async, drive_sync
from resilience.allowlist import Allowlist
from resilience.budget import RetryBudget
from resilience.call import Call, Site, name_of
from resilience.calling import D_co, streaming
from resilience.clock import ambient
from resilience.consult import announce
from resilience.ending import Ending, EndingKind
from resilience.errors import RejectedError, RejectReason
from resilience.events import AttemptEnded, Bus, CallEnded, Event, Mode, Outcome
from resilience.locks import new_lock
from resilience.runtime import park, threads
from resilience.settling import sweep
from resilience.shapes import Gate, Loop, Policy, Substitute
from resilience.tickets import Ticket

_STRENGTH = (Mode.ENFORCE, Mode.SHADOW, Mode.OFF)
engines: WeakSet[Engine] = WeakSet()
"""All engines that live, for the process-wide switch."""


class Switch:
    """The process-wide mode."""

    mode = Mode.ENFORCE


switch = Switch()


def set_mode(mode: str) -> None:
    """Set the process-wide mode: no policy does more than it allows.

    Args:
        mode: "enforce": each policy's own mode counts. "shadow": all only watch. "off": all calls go straight through.
    """
    switch.mode = checks.choice("mode", mode, Mode)
    for engine in list(engines):
        engine.rewire()


def _weaker(one: Mode, other: Mode) -> Mode:
    return max(one, other, key=_STRENGTH.index)


class Engine:
    """Composes policies into chains, and counts calls in and out.

    Args:
        policies: outermost first.
        name: of the pipeline.
        failures: of the pipeline.
        budget: of the pipeline.
        changed: called after the chains were composed anew.
        named: called with the name once there is one.
    """

    def __init__(
        self,
        policies: tuple[Policy[Any], ...],
        name: str,
        failures: Allowlist,
        budget: RetryBudget | None,
        changed: Callable[[], object],
        named: Callable[[str], object],
    ) -> None:
        for policy in policies:
            if not isinstance(policy, Gate | Loop | Substitute | Composite):
                raise TypeError(f"{policy!r} is of a shape that has no driver; subclass Gate, Loop or Substitute")
        self.policies = policies
        self._changed = changed
        self._named = named
        self.site = Site(name, failures, budget, Bus(self.rewire))
        self.live: set[Call] = set()
        self.streams: set[object] = set()
        self.enter = self.live.add
        self.draining = False
        self.mode = Mode.ENFORCE
        self._empty: deque[Callable[[], object]] = deque()
        self._lock = new_lock()
        self.run: Callable[[Call], Any] = drive_sync.invoke
        self.arun: Callable[[Call], Awaitable[Any]] = drive_async.invoke
        for policy in policies:
            policy.attach(self)
        engines.add(self)

    @property
    def in_flight(self) -> int:
        """How many calls are running, streamed results included."""
        return len(self.live) + len(self.streams)

    def rewire(self) -> None:
        """Compose the chains anew; calls in flight finish in the old ones."""
        with self._lock:
            if self.draining:
                self.run = self._metered(drive_sync, CallEnded, self._refuse)
                self.arun = self._metered(drive_async, CallEnded, self._refuse_async)
            else:
                allowlists = self.result_lists()
                self.run = self._chain(drive_sync, allowlists)
                self.arun = self._chain(drive_async, allowlists)
        self._changed()

    def adopt(self, function: Callable[..., Any]) -> None:
        """Take the name of the first function decorated, if there is none yet."""
        if not self.site.name:
            self.site.name = name_of(function)
            self._named(self.site.name)

    def _chain(self, drive: Any, allowlists: tuple[Allowlist, ...]) -> Any:
        if not allowlists:
            return self.compose(drive, drive.invoke, switch.mode, results=False)
        step = drive.judge(drive.invoke, allowlists)
        return drive.surface(self.compose(drive, step, switch.mode, results=True))

    def result_lists(self) -> tuple[Allowlist, ...]:
        """Return the allowlists in this pipeline, and in those within it, that look at returned values."""
        found = [self.site.failures] if self.site.failures.lists_results else []
        for policy in self.policies:
            if isinstance(policy, Composite):
                found += policy.engine.result_lists()
            elif policy.failures is not None and policy.failures.lists_results:
                found.append(policy.failures)
        return tuple(found)

    def compose(self, drive: Any, step: Any, mode: Mode, *, results: bool) -> Any:
        """Wrap `step` in the drivers of all policies, the last one innermost.

        Args:
            drive: the family of drivers.
            step: what is inside all policies.
            mode: that of what is outside; a policy does what it, its pipeline and this allow.
            results: whether returned values can be failures.
        """
        mode = _weaker(self.mode, mode)
        step = self._metered(drive, AttemptEnded, step)
        for policy in reversed(self.policies):
            step = self._drive(drive, policy, step, _weaker(policy.mode, mode), results=results)
        return self._metered(drive, CallEnded, step)

    def _metered(self, drive: Any, event: type[Event], step: Any) -> Any:
        return drive.gate(_Meter(self, event), step, self.site) if self.site.bus.wants(event) else step

    def _drive(self, drive: Any, policy: Policy[Any], step: Any, mode: Mode, *, results: bool) -> Any:
        if isinstance(policy, Composite):
            inner = policy.engine
            step = inner.compose(drive, step, mode, results=results)
            return drive.within(step, inner.site, inner.come_in, inner.leave)
        if mode is Mode.OFF:
            return step
        shadow = mode is Mode.SHADOW
        if isinstance(policy, Gate):
            return (drive.shadow_gate if shadow else drive.gate)(policy, step, self.site)
        if isinstance(policy, Loop):
            step = (drive.shadow_loop if shadow else drive.loop)(policy, step, self.site)
            return drive.remember(step) if results else step
        return (drive.shadow_substitute if shadow else drive.substitute)(policy, step, self.site)

    def come_in(self, call: Call) -> None:
        """Count in a call that comes from an outer pipeline, or refuse it."""
        self.live.add(call)  # before the look, so that a drain which begins now sees it
        if self.draining:
            self.live.discard(call)
            self._refuse(call)

    def leave(self, call: Call) -> None:
        """Count a call out, or have its stream do so."""
        if streaming(call) and call.deferred is not None:
            # Not the call itself: it holds the deferred, which then could never be dropped.
            stream = object()
            self.streams.add(stream)
            call.deferred.then(self._left, stream)
        self.live.discard(call)
        if self._empty:
            self._tell_if_empty()

    def _left(self, stream: object, ending: Ending) -> None:
        del ending
        self.streams.discard(stream)
        self._tell_if_empty()

    def _tell_if_empty(self) -> None:
        if not self.in_flight:
            while self._empty:
                with contextlib.suppress(IndexError, RuntimeError):  # another was faster; its event loop is closed
                    self._empty.popleft()()

    def _refuse(self, call: Call) -> Any:
        error = RejectedError(
            f"{self.site.name or 'the pipeline'} is being drained and takes no new calls",
            pipeline=self.site.name,
            reason=RejectReason.DRAINING,
        )
        announce(self, call, error, Mode.ENFORCE)
        raise error

    async def _refuse_async(self, call: Call) -> Any:
        self._refuse(call)

    def start_drain(self) -> None:
        """Refuse new calls, and end the waits between attempts."""
        self.draining = True
        self.rewire()
        for call in list(self.live):
            call.interrupt()

    def park(self, wake: Callable[[], object]) -> bool:
        """Wait until nothing is in flight."""
        sweep()
        self._empty.append(wake)
        return bool(self.in_flight)

    def drain(self, timeout: float) -> bool:
        """Drain from a thread."""
        until = ambient.monotonic() + checks.number("timeout", timeout)
        self.start_drain()
        while self.in_flight and ambient.monotonic() < until:
            threads.park(self, until)
        return not self.in_flight

    async def adrain(self, timeout: float) -> bool:
        """Drain from a task."""
        until = ambient.monotonic() + checks.number("timeout", timeout)
        self.start_drain()
        while self.in_flight and ambient.monotonic() < until:
            await park(self, until)
        return not self.in_flight

    def reset(self) -> None:
        """Forget the state of all policies and of the budget, and take calls again."""
        for policy in self.policies:
            policy.reset()
        if self.site.budget is not None:
            self.site.budget.reset()
        self.resume()

    def resume(self) -> None:
        """Take calls again."""
        self.draining = False
        self.rewire()


class Composite(Policy[D_co]):
    """A policy that is made of policies: a pipeline inside a pipeline."""

    engine: Engine


class _Meter(Gate[tuple[Call, float]]):
    """Tells how attempts or calls end; in the chain only while somebody listens."""

    def __init__(self, engine: Engine, event: type[Event]) -> None:
        super().__init__()
        self._site = engine.site
        self._event = event

    def admit(self, call: Call) -> tuple[Call, float] | Ticket:
        return call, ambient.monotonic()

    def settle(self, token: tuple[Call, float] | Ticket, ending: Ending) -> None:
        if isinstance(token, Ticket):
            return
        call, started = token
        elapsed = ambient.monotonic() - started
        outcome = Outcome(ending.kind)
        if self._event is AttemptEnded:
            self._publish(call, attempt=call.attempt, outcome=outcome, elapsed=elapsed)
            return
        if ending.replaced:
            outcome = Outcome.FALLBACK
        elif ending.kind is EndingKind.ABANDONED and isinstance(ending.error, RejectedError):
            outcome = Outcome.REJECTED
        self._publish(call, attempts=call.made, outcome=outcome, elapsed=elapsed)

    def _publish(self, call: Call, **facts: Any) -> None:
        self._site.bus.publish(
            self._event, pipeline=self._site.name, policy="", operation=call.operation, target=call.target, **facts
        )
