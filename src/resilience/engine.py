"""The inside of a pipeline: the composed chains, what is in flight, and how to drain it."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn
from weakref import WeakSet

from resilience import checks, doorway, drive_async, drive_sync, drive_thread, pair_async, pair_sync
from resilience.allowlist import Allowlist
from resilience.budget import RetryBudget
from resilience.bus import Bus
from resilience.call import Binding, Call, Limit, Site, name_of
from resilience.calling import D_co, Passage
from resilience.census import Census
from resilience.consult import announce, telling
from resilience.errors import RejectedError, RejectReason
from resilience.events import AttemptEnded, CallEnded, Event, Mode, Rejected, TimeoutScope
from resilience.locks import members, new_lock
from resilience.meter import Meter
from resilience.network import NETWORK_ERRORS
from resilience.policy import Policy
from resilience.runtime import whoami
from resilience.shadow import Watching
from resilience.shapes import Gate, Loop, Reward, Scope, Substitute

PAIR = {drive_sync: pair_sync.pair, drive_async: pair_async.pair}
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
    for engine in members(engines):
        engine.rewire()


def _gate_of(policy: Any) -> Gate[Any] | None:
    return policy if issubclass(type(policy), Gate) else None


def _loops(policy: Policy[Any]) -> bool:
    if isinstance(policy, Composite):
        return any(_loops(one) for one in policy.engine.policies)
    return isinstance(policy, Loop)


def _weaker(one: Mode, other: Mode) -> Mode:
    return max(one, other, key=_STRENGTH.index)


class Engine(Census):
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
        failures: Allowlist | None,
        budget: RetryBudget | None,
        changed: Callable[[], object],
        named: Callable[[str], object],
    ) -> None:
        for policy in policies:
            if not isinstance(policy, Gate | Loop | Scope | Substitute | Composite):
                raise TypeError(f"{policy!r} is of a shape without a driver; subclass Gate, Loop, Scope or Substitute")
        super().__init__()
        self.policies = policies
        self._changed = changed
        self._named = named
        self.site = Site(name, failures, budget, Bus(self.rewire))
        self.mode = Mode.ENFORCE
        self._lock = new_lock()
        self.run: Callable[[Call], Any] = drive_sync.invoke
        self.arun: Callable[[Call], Awaitable[Any]] = drive_async.invoke
        for policy in policies:
            policy.attach(self)
        engines.add(self)
        self.site.bus.open()

    def rewire(self) -> None:
        """Compose the chains anew; calls in flight finish in the old ones."""
        self.site.patience = self.patience()
        with self._lock:
            if self.draining:
                self.run = self._metered(drive_sync, CallEnded, self.refuse)
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
        bounded = self.bounded() and switch.mode is Mode.ENFORCE
        step = drive.runtime.in_time if bounded else drive.invoke  # what `invoke` does where there is a deadline
        if not allowlists:
            return self.compose(drive, step, switch.mode, [], results=False, looped=False)
        return self.compose(drive, drive.judge(step, allowlists), switch.mode, [], results=True, looped=False)

    def bounded(self) -> bool:
        """Return whether some Scope in here is in force."""
        if self.mode is not Mode.ENFORCE:
            return False
        return any(
            policy.engine.bounded() if isinstance(policy, Composite) else isinstance(policy, Scope)
            for policy in self.policies
            if policy.mode is Mode.ENFORCE
        )

    def result_lists(self, default: Allowlist = NETWORK_ERRORS) -> tuple[Allowlist, ...]:
        """Return the allowlists in this pipeline, and in those within it, that look at returned values.

        Args:
            default: what counts in a pipeline that was given no failures of its own.
        """
        own = self.site.failures or default
        found = [own] if own.lists_results else []
        for policy in self.policies:
            if isinstance(policy, Composite):
                found += policy.engine.result_lists(default)
            elif policy.failures is not None and policy.failures.lists_results:
                found.append(policy.failures)
        return tuple(found)

    def compose(self, drive: Any, step: Any, mode: Mode, paid: list[Reward], *, results: bool, looped: bool) -> Any:
        """Wrap `step` in the drivers of all policies, the last one innermost.

        Args:
            drive: the family of drivers.
            step: what is inside all policies.
            mode: that of what is outside; a policy does what it, its pipeline and this allow.
            paid: the rewards of loops further in: two Retries with one budget do not pay into it twice.
            results: whether returned values can be failures.
            looped: whether there is a Loop outside, so that what comes through here is an attempt, not a whole call.
        """
        mode = _weaker(self.mode, mode)
        step = self._metered(drive, AttemptEnded, step)
        waiting: Gate[Any] | None = None  # a gate that will be driven together with the next one out, if that is one
        outside = list(self.policies)
        while outside:
            policy = outside.pop()
            least = _weaker(policy.mode, mode)
            gate = _gate_of(policy) if least is Mode.ENFORCE else None
            if gate is not None and waiting is not None:
                step = PAIR[drive](gate, self._admit(gate), waiting, self._admit(waiting), step)
                gate = waiting = None
                continue
            if waiting is not None:
                step = drive.gate(waiting, step, self._admit(waiting))
            waiting = gate
            if gate is None:
                timeout = None if results else self._right_around(policy, least, outside, mode)
                if timeout is not None:
                    outside.pop()
                within = looped or any(_loops(one) for one in outside)
                step = self._drive(drive, policy, step, least, paid, timeout, results=results, looped=within)
        if waiting is not None:
            step = drive.gate(waiting, step, self._admit(waiting))
        return self._metered(drive, CallEnded, step)

    def _right_around(self, loop: Policy[Any], least: Mode, outside: list[Policy[Any]], mode: Mode) -> Scope | None:
        """Return the Scope that is to be driven together with the loop right within it, which is cheaper."""
        scope = outside[-1] if outside else None
        if not isinstance(loop, Loop) or not isinstance(scope, Scope) or scope.seconds is None or scope.thread:
            return None
        return scope if least is Mode.ENFORCE and _weaker(scope.mode, mode) is Mode.ENFORCE else None

    def _admit(self, gate: Gate[Any]) -> Callable[[Call], Any]:
        return telling(gate) if self.site.bus.wants(Rejected) else gate.admit

    def _metered(self, drive: Any, event: type[Event], step: Any) -> Any:
        if not self.site.bus.wants(event):
            return step
        meter = Meter(self.site, event)
        return drive.gate(meter, step, meter.admit)

    def _drive(
        self,
        drive: Any,
        policy: Policy[Any],
        step: Any,
        mode: Mode,
        paid: list[Reward],
        timeout: Scope | None,
        *,
        results: bool,
        looped: bool,
    ) -> Any:
        if isinstance(policy, Composite):
            inner = policy.engine
            step = inner.compose(drive, step, mode, paid, results=results, looped=looped)
            return drive.within(step, inner.site, inner.come_in, inner.go_out)
        if mode is Mode.OFF:
            return step
        shadow = mode is Mode.SHADOW
        gate = _gate_of(policy)
        if gate is not None:
            watching = Watching(gate)
            return drive.gate(watching, step, watching.admit)
        if isinstance(policy, Loop):
            reward = policy.reward(self.site)
            if reward in paid:
                reward = None
            elif reward is not None:
                paid.append(reward)
            if shadow:
                step = drive.shadow_loop(policy, step, reward)
            else:
                step = drive.loop(policy, step, reward, None if timeout is None else self._limit(timeout, looped))
            return drive.remember(step) if results else step
        if isinstance(policy, Scope):
            return self._scope(drive, policy, step, shadow=shadow, looped=looped)
        return (drive.shadow_substitute if shadow else drive.substitute)(policy, step, self.site)

    def _scope(self, drive: Any, policy: Scope, step: Any, *, shadow: bool, looped: bool) -> Any:
        limit = self._limit(policy, looped)
        if shadow:
            return drive.shadow_scope(policy, step, limit)
        return (drive_thread.threaded if policy.thread and drive is drive_sync else drive.scope)(policy, step, limit)

    def _limit(self, scope: Scope, looped: bool) -> Limit:
        return Limit(TimeoutScope.ATTEMPT if looped else TimeoutScope.CALL, self.site, scope, scope.seconds)

    def patience(self) -> float | None:
        """Return the seconds of the shortest Timeout in here; else the least that a breaker calls slow; else None."""
        found: list[tuple[bool, float]] = []
        for policy in self.policies:
            seconds = policy.engine.patience() if isinstance(policy, Composite) else policy.expects
            if seconds is not None:
                found.append((not isinstance(policy, Scope), seconds))
        return min(found)[1] if found else None

    def whoami(self) -> object:
        """Return the running task, or else the thread."""
        return whoami()

    def let_in(self, gate: Gate[Any], binding: Binding) -> Passage:
        """Pass a gate by hand; a thread may have to wait."""
        return doorway.let_in(self, gate, binding, _weaker(gate.mode, switch.mode))

    async def let_in_async(self, gate: Gate[Any], binding: Binding) -> Passage:
        """Pass a gate by hand; a task may have to wait."""
        return await doorway.let_in_async(self, gate, binding, _weaker(gate.mode, switch.mode))

    def refuse(self, call: Call) -> NoReturn:
        """Refuse a call because of a drain."""
        error = RejectedError(
            f"{self.site.name or 'the pipeline'} is being drained and takes no new calls",
            pipeline=self.site.name,
            reason=RejectReason.DRAINING,
        )
        announce(self, call, error, Mode.ENFORCE)
        try:
            raise error
        finally:
            del error  # its traceback holds this frame

    async def _refuse_async(self, call: Call) -> Any:
        self.refuse(call)

    def reset(self) -> None:
        """Forget the state of all policies and of the budget, and take calls again."""
        for policy in self.policies:
            policy.reset()
        if self.site.budget is not None:
            self.site.budget.reset()
        self.resume()


class Composite(Policy[D_co]):
    """A policy that is made of policies: a pipeline inside a pipeline."""

    engine: Engine


def _forget_calls_in_child() -> None:
    """The threads that made them do not exist in a forked child."""
    for engine in members(engines):
        engine.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_calls_in_child)
