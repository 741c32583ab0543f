"""Composition of policies into a chain of closures, in three passes: resolve modes, fuse neighbours, fold."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

from resilience._call.call import PipelineInfo
from resilience._call.caller import D_co
from resilience._call.entry import RetryAttempt
from resilience._call.running_call import DeadlineSource
from resilience._drivers.drivers import Drivers, Step, driver_of
from resilience._drivers.shadow import ShadowGate
from resilience._outcome.allowlist import Allowlist
from resilience._outcome.network_errors import NETWORK_ERRORS
from resilience._pipeline.in_flight import InFlight
from resilience._pipeline.links import (
    ChainBuild,
    GatePair,
    Link,
    Part,
    ScopedLoop,
    fuse,
    limits_in_shadow,
    more_lenient,
    policies_of,
)
from resilience._pipeline.observers import observed
from resilience._policies.base import Policy, expected_seconds
from resilience._policies.breaker.breaker import CircuitBreaker
from resilience._policies.partition import Partition, sample
from resilience._policies.phases import PhasedScope, has_phases
from resilience._policies.shapes import Gate, Injector, Loop, OnSuccess, Race, Scope, Substitute
from resilience._util.log_once import hook_failed
from resilience.errors import UsageError
from resilience.events._types import AttemptEnded, CallEnded, Event, Mode, TimeoutScope


class Composer:
    """Composes the policies of one pipeline.

    Args:
        policies: outermost first.
        info: the part of the pipeline that policies can read.

    Raises:
        TypeError: a policy has a shape without a driver.
    """

    __slots__ = ("_lists", "info", "policies")

    def __init__(self, policies: tuple[Policy[Any], ...], info: PipelineInfo) -> None:
        for policy in policies:
            if not isinstance(sample(policy), Gate | Loop | Scope | Race | Injector | Substitute | Composite):
                does = "subclass Gate, Loop, Scope, Race or Substitute; a Partition of RetryBudgets is given as budget="
                raise TypeError(f"{policy!r} is of no shape; {does}")
        self.policies = policies
        self.info = info
        self._lists: dict[tuple[Mode, Allowlist], tuple[Allowlist, ...]] = {}

    def result_lists(self, mode: Mode, default: Allowlist = NETWORK_ERRORS) -> tuple[Allowlist, ...]:
        """Return the allowlists that classify returned values: of pipelines, and of the policies that are not off.

        Args:
            mode: the mode of the pipeline and of what is outside.
            default: the allowlist of a pipeline that was given none.
        """
        lists, key = self._lists, (mode, default)
        if key in lists:
            return lists[key]
        own = self.info.failures or default
        found = [own] if own.lists_results else []
        for policy, applies in self._with_modes(mode):
            if isinstance(policy, Composite):
                found += policy.composer.result_lists(applies, default)
            elif applies is not Mode.OFF and (listed := policy.failures) is not None and listed.lists_results:
                found.append(listed)
        lists[key] = tuple(found)
        return lists[key]

    def ignores_results(self) -> bool:
        """Return whether a Loop or a CircuitBreaker acts on failures, and no allowlist classifies returned values."""
        return has_kind((Loop, CircuitBreaker), self.policies) and not self.result_lists(Mode.ENFORCE)

    def forget_result_lists(self) -> None:
        """Clear the cache of `result_lists`, since a policy has changed."""
        self._lists = {}

    def always_has_deadline(self) -> bool:
        """Return whether a Scope in this pipeline is in enforce mode, so that each call has a deadline."""
        return any(
            policy.composer.always_has_deadline() if isinstance(policy, Composite) else isinstance(policy, Scope)
            for policy in self.policies
            if policy.mode is Mode.ENFORCE
        )

    def shortest_timeout(self, mode: Mode = Mode.ENFORCE) -> float | None:
        """Return the seconds of the shortest Timeout; without one, of the shortest `slow_after`; else None."""
        return min(self._expected(mode), default=(True, None))[1]

    def _expected(self, mode: Mode) -> Iterator[tuple[bool, float]]:
        """Yield for each policy that is not off, nested ones included, whether it is no Scope, and the seconds."""
        for policy, applies in self._with_modes(mode):
            if isinstance(policy, Composite):
                yield from policy.composer._expected(applies)
            elif applies is not Mode.OFF and (seconds := expected_seconds(policy)) is not None:
                yield not isinstance(policy, Scope), seconds

    def has_loop(self, mode: Mode) -> bool:
        """Return whether there is a Loop that is not off, in nested pipelines, too."""
        return any(
            policy.composer.has_loop(applies)
            if isinstance(policy, Composite)
            else isinstance(policy, Loop) and applies is not Mode.OFF
            for policy, applies in self._with_modes(mode)
        )

    def _count_scopes(self, mode: Mode) -> int:
        """Return the number of Scopes in enforce mode, nested pipelines included."""
        return sum(
            policy.composer._count_scopes(applies)
            if isinstance(policy, Composite)
            else isinstance(policy, Scope) and applies is Mode.ENFORCE
            for policy, applies in self._with_modes(mode)
        )

    def _with_modes(self, mode: Mode) -> Iterator[tuple[Policy[Any], Mode]]:
        """Yield the policies and the mode that applies to each, given the mode of the pipeline and what is outside."""
        for policy in self.policies:
            yield policy, more_lenient(policy.mode, mode)

    def chain(self, drivers: Drivers, mode: Mode) -> Step:
        """Return the chain of this pipeline as the outermost one; `mode` is that of the pipeline and the process."""
        if mode is Mode.ENFORCE and self.always_has_deadline():
            step = drivers.invoke_with_deadline
        else:
            step = drivers.invoke_attempt if self.has_loop(mode) else drivers.invoke
        allowlists = self.result_lists(mode)
        if allowlists:
            step = drivers.raise_bad_results(step, allowlists)
        several = not self.has_loop(mode) and self._count_scopes(mode) > 1
        return self.compose(ChainBuild(drivers, allowlists, [], [], several), step, mode, looped=False)

    def compose(self, build: ChainBuild, step: Step, mode: Mode, *, looped: bool) -> Step:
        """Return `step` wrapped in the drivers of all policies, the last one innermost.

        Args:
            build: the common data of the chain.
            step: the step inside all policies.
            mode: the mode of the pipeline and of what is outside; the more lenient of it and of a policy's applies.
            looped: whether a Loop is outside, so that this part of the chain sees attempts and not whole calls.
        """
        step = self.with_events(build.drivers, AttemptEnded, step)
        for link in fuse(self._resolve(mode, looped=looped)):
            step = self._fold(build, link, step)
            build.inside.extend(policies_of(link))
        return self.with_events(build.drivers, CallEnded, step)

    def with_events(self, drivers: Drivers, event: type[Event], step: Step) -> Step:
        """Return `step`, wrapped in what observes how it ends; see `observed`."""
        return observed(self.info, drivers, event, step)

    def _resolve(self, mode: Mode, *, looped: bool) -> list[Part]:
        """Return the policies that are not off, and all nested pipelines, outermost first."""
        parts: list[Part] = []
        for policy, own in self._with_modes(mode):
            if isinstance(policy, Composite):
                parts.append(Part(policy, own, looped))
                looped = looped or policy.composer.has_loop(own)
            elif own is not Mode.OFF:
                parts.append(Part(policy, own, looped))
                parts += (Part(limit, Mode.SHADOW, looped) for limit in limits_in_shadow(policy))
                looped = looped or isinstance(policy, Loop)
        return parts

    def _fold(self, build: ChainBuild, link: Link, step: Step) -> Step:
        """Return `step` wrapped in the driver of one link."""
        drivers = build.drivers
        if isinstance(link, GatePair):
            return drivers.gate_pair(link.outer, link.inner, step)
        if isinstance(link, ScopedLoop):
            source = self._source(link.scope, link.seconds, looped=link.looped)
            step = drivers.loop(link.loop, step, self._on_success(build, link.loop), source)
            return self._with_budgets(build, link.loop, step)
        policy, shadow = link.policy, link.mode is Mode.SHADOW
        if isinstance(policy, Composite):
            step = policy.composer.compose(build, step, link.mode, looped=link.looped)
            return drivers.nested(step, policy.composer.info, policy.in_flight.enter, policy.in_flight.exit)
        if isinstance(policy, Loop):
            on_success = self._on_success(build, policy)
            if shadow:
                step = drivers.shadow_loop(policy, step, on_success)
            else:
                step = drivers.loop(policy, step, on_success, None)
            return self._with_budgets(build, policy, step)
        if isinstance(policy, Scope):
            innermost = build.innermost_bounds_attempt and not any(isinstance(one, Scope) for one in build.inside)
            source = self._source(policy, policy.seconds, looped=link.looped or (innermost and not shadow))
            if isinstance(policy, PhasedScope) and has_phases(policy):
                step = (drivers.shadow_phases if shadow else drivers.phases)(policy, step, source.scope, self.info)
            if shadow:
                return drivers.shadow_scope(policy, step, source)
            return (drivers.thread_scope if policy.thread else drivers.scope)(policy, step, source)
        if isinstance(policy, Injector):
            if shadow:
                return drivers.shadow_inject(policy, step)
            faulty = drivers.inject(policy, step)
            return drivers.raise_bad_results(faulty, build.result_lists) if build.result_lists else faulty
        if isinstance(policy, Race):
            on_success = self._on_success(build, policy)
            inside = tuple(one for one in build.inside if type(one).permits_hedge is not Policy.permits_hedge)
            step = (drivers.shadow_race if shadow else drivers.race)(policy, step, on_success, inside)
            return self._with_budgets(build, policy, step)
        if isinstance(policy, Substitute):
            return (drivers.shadow_substitute if shadow else drivers.substitute)(policy, step, self.info)
        gate: Any = policy
        if isinstance(policy, Partition):
            return drivers.keyed_gate(gate, step, shadow)
        gate = ShadowGate(gate) if shadow else gate
        return driver_of(gate, drivers)(gate, step)

    def _on_success(self, build: ChainBuild, loop: Loop | Race) -> OnSuccess | None:
        """Return the loop's `on_success`; None if it has none, or if an inner one calls the same one."""
        try:
            on_success = loop.on_success(self.info)
        except Exception as error:
            hook_failed("on_success of a policy", loop, error)
            return None
        if on_success is None or on_success in build.success_hooks:
            return None
        build.success_hooks.append(on_success)
        return on_success

    def _with_budgets(self, build: ChainBuild, loop: Loop | Race, step: Step) -> Step:
        """Return the step of a loop, wrapped to deposit each success in the budget of its key if there are such."""
        budgets = loop.budgets(self.info)
        if budgets is None or budgets in build.success_hooks:
            return step
        build.success_hooks.append(budgets)
        return build.drivers.keyed_budget(budgets, step)

    def budget_partitions(self) -> list[Policy[Any]]:
        """Return the Partitions of retry budgets that its loops withdraw from."""
        found = (policy.budgets(self.info) for policy in self.policies if isinstance(policy, Loop | Race))
        return [budgets for budgets in found if isinstance(budgets, Partition)]

    def _source(self, scope: Scope, seconds: float | None, *, looped: bool) -> DeadlineSource:
        """Return the source of the deadlines that a Scope sets."""
        return DeadlineSource(TimeoutScope.ATTEMPT if looped else TimeoutScope.CALL, self.info, scope, seconds)


class Composite(Policy[D_co]):
    """A policy that consists of policies: a pipeline, which may be nested in another one."""

    @property
    @abstractmethod
    def composer(self) -> Composer:
        """The composer of its policies."""

    @property
    @abstractmethod
    def in_flight(self) -> InFlight:
        """The calls in flight in this pipeline."""

    def __iter__(self) -> Iterator[RetryAttempt]:
        """Repeat a block of code, as a Retry does; for a pipeline that consists of a Retry alone.

        Raises:
            UsageError: it has other policies, too.
        """
        entry, options = self.entry()
        return iter(entry.retry_block(self._only_loop(), options))

    def __aiter__(self) -> AsyncIterator[RetryAttempt]:
        """Do as `__iter__` does, in a task."""
        entry, options = self.entry()
        return aiter(entry.retry_block(self._only_loop(), options))

    def _only_loop(self) -> Loop:
        policies = self.composer.policies
        if len(policies) == 1 and isinstance(policies[0], Loop):
            return policies[0]
        raise UsageError(
            f"{self.name or 'the pipeline'} has more than a Retry, which a block of code cannot be passed through; "
            "put the block into a function, and decorate that or use `call`"
        )


def has_kind(kinds: type | tuple[type, ...], policies: Iterable[Policy[Any]]) -> bool:
    """Return whether there is a policy of one of these kinds among the policies, or in a nested pipeline."""
    return any(
        has_kind(kinds, policy.composer.policies)
        if isinstance(policy, Composite)
        else isinstance(sample(policy), kinds)
        for policy in policies
    )
