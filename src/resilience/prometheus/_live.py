"""The gauges, as the policies of the live pipelines are at the moment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from resilience import (
    AdaptiveLimit,
    BreakerState,
    Bulkhead,
    CircuitBreaker,
    Cooldown,
    Hedge,
    Mode,
    Partition,
    Pipeline,
    Policy,
    Retry,
    RetryBudget,
    Timeout,
)
from resilience._call.call import PipelineInfo
from resilience._util.locks import members
from resilience._util.log_once import hook_failed
from resilience.prometheus._families import (
    BREAKER_STATE,
    BUDGET_CAPACITY,
    BUDGET_TOKENS,
    BULKHEAD_IN_FLIGHT,
    BULKHEAD_LIMIT,
    BULKHEAD_QUEUED,
    COOLDOWN_ACTIVE,
    COOLDOWN_SECONDS_LEFT,
    QUOTA_EXHAUSTED_RATIO,
    Family,
)
from resilience.prometheus._labels import Labels

OF_PIPELINE = "budget"
"""The value of `policy` for the retry budget of a pipeline."""
LARGEST = {COOLDOWN_SECONDS_LEFT, QUOTA_EXHAUSTED_RATIO}
"""The metrics of which several policies with the same labels have the greatest value; of all others it is the sum."""


class Gauges:
    """The values of the gauges of one moment.

    Args:
        labels: gives the values of labels.

    Attributes:
        values: for each metric, the values by those of its labels.
    """

    def __init__(self, labels: Labels) -> None:
        self._labels = labels
        self._seen: set[tuple[str, str, int]] = set()
        self.values: dict[Family, dict[tuple[str, ...], float]] = {}

    def read(self, infos: Iterable[PipelineInfo]) -> None:
        """Read the policies of pipelines that are not off."""
        for info in infos:
            for name, policy in info.policies.items():
                if getattr(policy, "mode", None) is Mode.OFF:
                    continue
                place = self._labels.pipeline(info.name), self._labels.policy(name)
                try:
                    self._read_all(info, place, policy)
                except Exception as error:  # a subclass of the user's may do what it likes
                    hook_failed("state of a policy", policy, error)

    def _read_all(self, info: PipelineInfo, place: tuple[str, str], policy: object) -> None:
        for key, one in _members_of(policy):
            self._read_policy(place, key, one)
        if isinstance(policy, Retry | Hedge):
            self._read_budget(info, place, policy)

    def _read_policy(self, place: tuple[str, str], key: object, policy: Any) -> None:
        if isinstance(policy, CircuitBreaker) and self._is_new(place, policy):
            now = policy.state
            for state in BreakerState:
                self._add(BREAKER_STATE, (*place, state.value), key, float(state is now))
        elif isinstance(policy, Bulkhead | AdaptiveLimit) and self._is_new(place, policy):
            found = policy.snapshot()
            self._add(BULKHEAD_IN_FLIGHT, place, key, found["in_flight"])
            self._add(BULKHEAD_LIMIT, place, key, found["limit"])
            self._add(BULKHEAD_QUEUED, place, key, found["queued"])
        elif isinstance(policy, Cooldown) and self._is_new(place, policy):
            found = policy.snapshot()
            self._add(COOLDOWN_ACTIVE, place, key, float(found["active"]))
            self._add(COOLDOWN_SECONDS_LEFT, place, key, found["seconds_left"])
            self._add(QUOTA_EXHAUSTED_RATIO, place, key, found["closed_share"])

    def _read_budget(self, info: PipelineInfo, place: tuple[str, str], policy: Retry | Hedge) -> None:
        budget = policy.settings.budget_in(info)
        if budget is not None and budget is info.budget:
            place = place[0], OF_PIPELINE
        if budget is None or not self._is_new(place, budget):
            return
        for key, one in _members_of(budget):
            if isinstance(one, RetryBudget):
                self._add(BUDGET_TOKENS, place, key, one.tokens)
                self._add(BUDGET_CAPACITY, place, key, one.capacity)

    def _is_new(self, place: tuple[str, str], one: object) -> bool:
        """Return whether an object was not read yet: pipelines of one name may share it."""
        seen = (*place, id(one))
        if seen in self._seen:
            return False
        self._seen.add(seen)
        return True

    def _add(self, family: Family, values: tuple[str, ...], key: object, value: float) -> None:
        values = self._labels.with_key(family, values, key)
        found = self.values.setdefault(family, {})
        if family in LARGEST:
            found[values] = max(found.get(values, 0.0), value)
        else:
            found[values] = found.get(values, 0.0) + value


def _members_of(policy: Any) -> Iterator[tuple[object, object]]:
    """Yield a policy or a budget with None; of a Partition all policies with their keys, the overflow policy first."""
    if not issubclass(type(policy), Partition):
        yield None, policy
        return
    policy.policies()  # evicts those that are idle
    yield None, policy.overflow
    for member in members(policy.found.values()):
        yield member.key, member.policy


def attempt_timeout(info: PipelineInfo) -> float | None:
    """Return the seconds of the innermost Timeout of a pipeline that is not off; None if there is none."""
    found: float | None = None
    for policy in _flattened(info):
        if isinstance(policy, Timeout) and policy.mode is not Mode.OFF and policy.seconds is not None:
            found = policy.seconds
    return found


def _flattened(info: PipelineInfo) -> Iterator[Policy[Any]]:
    """Yield the policies of a pipeline, those of nested pipelines included, outermost first."""
    for policy in info.policies.values():
        if isinstance(policy, Pipeline):
            yield from (one for _, one in policy.flattened())
        elif isinstance(policy, Policy):
            yield policy
