"""The policies of live pipelines, for what is measured about them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from resilience import CombinedRateLimit, Mode, Partition, Pipeline, RateLimit, Retry, Timeout
from resilience._call.call import PipelineInfo
from resilience._pipeline.engine import engines


def live_policies() -> Iterator[tuple[PipelineInfo, str, Any]]:
    """Yield all policies that are not off, those of Partitions one by one, with their pipeline and their name in it."""
    for engine in engines():
        for name, policy in list(engine.info.policies.items()):
            if getattr(policy, "mode", Mode.OFF) is not Mode.OFF:
                for one in members_of(policy):
                    yield engine.info, name, one


def members_of(policy: object) -> list[Any]:
    """Return the policies, or the budgets, of a Partition; of others, a list with the object itself."""
    partition: Any = policy
    return list(partition.policies()) if isinstance(policy, Partition) else [policy]


def waits_for_rate(pipeline: str, policy: str) -> bool:
    """Return whether a policy of that name, in a pipeline of that name, is a rate limit or a part of one."""
    for engine in engines():
        for name, one in engine.info.policies.items() if engine.info.name == pipeline else ():
            first = members_of(one)[0]
            limits = first.limits if isinstance(first, CombinedRateLimit) else ()
            if isinstance(first, RateLimit | CombinedRateLimit) and policy in (name, *(one.name for one in limits)):
                return True
    return False


def attempt_timeout(info: PipelineInfo) -> float | None:
    """Return the seconds of the Timeout of attempts: the innermost, inside of a Retry if there is one; else None."""
    found: float | None = None
    for policy in flattened(info):
        if isinstance(policy, Retry):
            found = None
        elif isinstance(policy, Timeout) and policy.seconds is not None and policy.mode is Mode.ENFORCE:
            found = policy.seconds
    return found


def flattened(info: PipelineInfo) -> Iterator[object]:
    """Yield the policies of a pipeline, outermost first, those of nested pipelines included."""
    for policy in info.policies.values():
        if isinstance(policy, Pipeline):
            yield from (one for _, one in policy.flattened())
        else:
            yield policy
