"""How policies become a chain of closures: which driver each one gets, and which are driven together."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, TypeGuard

from resilience._call.call import Call, DeadlineSource, PipelineInfo
from resilience._call.caller import D_co
from resilience._drivers import async_, async_gate, sync, sync_gate, thread
from resilience._drivers.event_gate import EventGate
from resilience._drivers.hooks import admit_with_events
from resilience._drivers.shadow import ShadowGate
from resilience._outcome.allowlist import Allowlist
from resilience._outcome.network_errors import NETWORK_ERRORS
from resilience._pipeline.in_flight import InFlight
from resilience._policies.base import Policy
from resilience._policies.shapes import Gate, Loop, OnSuccess, Scope, Substitute
from resilience.events._types import AttemptEnded, CallEnded, Event, Mode, Rejected, TimeoutScope

GATES = {sync: sync_gate, async_: async_gate}
_STRENGTH = (Mode.ENFORCE, Mode.SHADOW, Mode.OFF)


def more_lenient(one: Mode, other: Mode) -> Mode:
    """Return the mode in which less is done."""
    return max(one, other, key=_STRENGTH.index)


class ChainBuild:
    """What is the same for all of one chain, pipelines within pipelines included.

    Args:
        drive: the family of drivers.
        results: whether returned values can be failures.

    `paid` are the rewards of loops further in: two Retries with one budget do not pay into it twice.
    """

    __slots__ = ("drive", "paid", "results")

    def __init__(self, drive: Any, *, results: bool) -> None:
        self.drive = drive
        self.results = results
        self.paid: list[OnSuccess] = []


class Composer(InFlight):
    """Composes the policies of one pipeline.

    Args:
        policies: outermost first.
        site: what they know of the pipeline.
    """

    def __init__(self, policies: tuple[Policy[Any], ...], site: PipelineInfo) -> None:
        for policy in policies:
            if not isinstance(policy, Gate | Loop | Scope | Substitute | Composite):
                raise TypeError(f"{policy!r} is of a shape without a driver; subclass Gate, Loop, Scope or Substitute")
        super().__init__()
        self.policies = policies
        self.info = site
        self.mode = Mode.ENFORCE
        self._lists: dict[Allowlist, tuple[Allowlist, ...]] = {}

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
        lists = self._lists
        if default in lists:
            return lists[default]
        own = self.info.failures or default
        found = [own] if own.lists_results else []
        for policy in self.policies:
            if isinstance(policy, Composite):
                found += policy.engine.result_lists(default)
            elif policy.failures is not None and policy.failures.lists_results:
                found.append(policy.failures)
        lists[default] = tuple(found)
        return lists[default]

    def forget_result_lists(self) -> None:
        """Look for allowlists anew, since a policy has changed."""
        self._lists = {}

    def shortest_timeout(self) -> float | None:
        """Return the seconds of the shortest Timeout in here; else the least that a breaker calls slow; else None."""
        found: list[tuple[bool, float]] = []
        for policy in self.policies:
            seconds = policy.engine.shortest_timeout() if isinstance(policy, Composite) else policy._expected_seconds
            if seconds is not None:
                found.append((not isinstance(policy, Scope), seconds))
        return min(found)[1] if found else None

    def compose(self, weaving: ChainBuild, step: Any, mode: Mode, *, looped: bool = False) -> Any:
        """Wrap `step` in the drivers of all policies, the last one innermost.

        Args:
            weaving: what is the same for the whole chain.
            step: what is inside all policies.
            mode: that of what is outside; a policy does what it, its pipeline and this allow.
            looped: whether there is a Loop outside, so that what comes through here is an attempt, not a whole call.
        """
        mode = more_lenient(self.mode, mode)
        drive = weaving.drive
        step = self.metered(drive, AttemptEnded, step)
        waiting: Gate[Any] | None = None  # a gate that will be driven together with the next one out, if that is one
        outside = list(self.policies)
        while outside:
            policy = outside.pop()
            least = more_lenient(policy.mode, mode)
            gate = _gate_of(policy) if least is Mode.ENFORCE else None
            if gate is not None and waiting is not None:
                step = GATES[drive].gate_pair(gate, self._admit(gate), waiting, self._admit(waiting), step)
                waiting = None
                continue
            if waiting is not None:
                step = GATES[drive].gate(waiting, step, self._admit(waiting))
            waiting = gate
            if isinstance(policy, Composite):
                step = policy.engine.compose(weaving, step, least, looped=looped or _any_loop(outside))
                step = drive.nested(step, policy.engine.info, policy.engine.enter, policy.engine.exit)
            elif isinstance(policy, Loop) and least is not Mode.OFF:
                step = self._loop(weaving, policy, step, least, outside, mode, looped=looped)
            elif gate is None and least is not Mode.OFF:
                shadow = least is Mode.SHADOW
                step = self._drive(drive, policy, step, shadow=shadow, looped=looped or _any_loop(outside))
        if waiting is not None:
            step = GATES[drive].gate(waiting, step, self._admit(waiting))
        return self.metered(drive, CallEnded, step)

    def metered(self, drive: Any, event: type[Event], step: Any) -> Any:
        """Have it told how `step` ends, if anybody wants to know."""
        if not self.info.bus.wants(event):
            return step
        meter = EventGate(self.info, event)
        return GATES[drive].gate(meter, step, meter.admit)

    def _admit(self, gate: Gate[Any]) -> Callable[[Call], Any]:
        return admit_with_events(gate) if self.info.bus.wants(Rejected) else gate.admit

    def _loop(
        self,
        weaving: ChainBuild,
        loop: Loop,
        step: Any,
        least: Mode,
        outside: list[Policy[Any]],
        mode: Mode,
        *,
        looped: bool,
    ) -> Any:
        """Drive a loop, together with the Scope right around it, if there is one: that is then taken off `outside`."""
        reward = loop.on_success(self.info)
        if reward in weaving.paid:
            reward = None
        elif reward is not None:
            weaving.paid.append(reward)
        if least is Mode.SHADOW:
            step = weaving.drive.shadow_loop(loop, step, reward)
        else:
            scope = outside[-1] if outside and not weaving.results else None
            around: DeadlineSource | None = None
            if _can_be_driven_with_a_loop(scope, mode):
                outside.pop()
                around = self._limit(scope, looped=looped or _any_loop(outside))
            step = weaving.drive.loop(loop, step, reward, around)
        return weaving.drive.track_given_up_results(step) if weaving.results else step

    def _drive(self, drive: Any, policy: Policy[Any], step: Any, *, shadow: bool, looped: bool) -> Any:
        gate = _gate_of(policy)
        if gate is not None:
            watching = ShadowGate(gate)
            return GATES[drive].gate(watching, step, watching.admit)
        if not isinstance(policy, Scope):
            return (drive.shadow_substitute if shadow else drive.substitute)(policy, step, self.info)
        limit = self._limit(policy, looped=looped)
        if shadow:
            return drive.shadow_scope(policy, step, limit)
        return (thread.threaded if policy.thread and drive is sync else drive.scope)(policy, step, limit)

    def _limit(self, scope: Scope, *, looped: bool) -> DeadlineSource:
        return DeadlineSource(TimeoutScope.ATTEMPT if looped else TimeoutScope.CALL, self.info, scope, scope.seconds)


class Composite(Policy[D_co]):
    """A policy that is made of policies: a pipeline inside a pipeline."""

    @property
    @abstractmethod
    def engine(self) -> Composer:
        """What composes its policies."""


def _gate_of(policy: Any) -> Gate[Any] | None:
    return policy if issubclass(type(policy), Gate) else None


def _can_be_driven_with_a_loop(policy: object, mode: Mode) -> TypeGuard[Scope]:
    if not isinstance(policy, Scope) or policy.seconds is None or policy.thread:
        return False
    return more_lenient(policy.mode, mode) is Mode.ENFORCE


def _any_loop(policies: Iterable[Policy[Any]]) -> bool:
    return any(
        _any_loop(policy.engine.policies) if isinstance(policy, Composite) else isinstance(policy, Loop)
        for policy in policies
    )
