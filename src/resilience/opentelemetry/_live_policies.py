"""The policies of live pipelines, for what is measured about them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from resilience import CombinedRateLimit, Hedge, Mode, Partition, Pipeline, RateLimit, Retry, RetryBudget, Timeout
from resilience._call.call import PipelineInfo
from resilience._pipeline.engine import engines

OF_PIPELINE: Final = "budget"
"""The name of the retry budget of a pipeline, as if it were a policy."""


def live_policies() -> Iterator[tuple[PipelineInfo, str, Any]]:
    """Yield the policies of all pipelines with a name, with their pipeline and their name in it.

    Policies that are off are left out, and those of a Partition come one by one. Pipelines of one name may share an
    object; it comes once for the name.
    """
    seen: set[tuple[str, str, int]] = set()
    for engine in engines():
        for name, policy in list(engine.info.policies.items()) if engine.info.name else ():
            place = engine.info.name, name, id(policy)
            if place not in seen and getattr(policy, "mode", Mode.OFF) is not Mode.OFF:
                seen.add(place)
                for one in members_of(policy):
                    yield engine.info, name, one


def live_budgets() -> Iterator[tuple[PipelineInfo, str, RetryBudget]]:
    """Yield the budgets that retries and hedges withdraw from, with their pipeline and the name of the policy.

    That of a pipeline comes once, with the name OF_PIPELINE; those of a Partition come one by one.
    """
    seen: set[tuple[str, int]] = set()
    for info, name, policy in live_policies():
        if isinstance(policy, Retry | Hedge):
            budget: object = policy.settings.budget_in(info)
            if (info.name, id(budget)) not in seen:
                seen.add((info.name, id(budget)))
                for one in members_of(budget):
                    if isinstance(one, RetryBudget):
                        yield info, OF_PIPELINE if budget is info.budget else name, one


def members_of(policy: object) -> list[Any]:
    """Return the policies, or the budgets, of a Partition; of others, a list with the object itself."""
    partition: Any = policy
    return list(partition.policies()) if isinstance(policy, Partition) else [policy]


def rate_limits(info: PipelineInfo) -> Iterator[str]:
    """Yield the names of the rate limits of a pipeline, those in a Partition included."""
    for name, policy in info.policies.items():
        if isinstance(_sample_of(policy), RateLimit | CombinedRateLimit):
            yield name


def _sample_of(policy: Any) -> object:
    """Return a policy; for a Partition, one of its policies, which are all made alike."""
    return policy.overflow if issubclass(type(policy), Partition) else policy


def attempt_timeout(info: PipelineInfo) -> float | None:
    """Return the seconds of the innermost Timeout of a pipeline that is not off; None if there is none."""
    found: float | None = None
    for policy in flattened(info):
        if isinstance(policy, Timeout) and policy.seconds is not None and policy.mode is not Mode.OFF:
            found = policy.seconds
    return found


def flattened(info: PipelineInfo) -> Iterator[object]:
    """Yield the policies of a pipeline, outermost first, those of nested pipelines included."""
    for policy in info.policies.values():
        if isinstance(policy, Pipeline):
            yield from (one for _, one in policy.flattened())
        else:
            yield policy
