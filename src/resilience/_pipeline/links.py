"""The links of a chain: the policies of a pipeline with their modes, joined where one closure can drive two of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from resilience._drivers.drivers import Drivers, observes_results
from resilience._outcome.allowlist import Allowlist
from resilience._policies.base import Policy
from resilience._policies.phases import has_phases
from resilience._policies.rate_limit.rate_limit import CombinedRateLimit, RateLimit
from resilience._policies.shapes import Gate, Loop, Scope
from resilience.events._types import Mode

_LENIENCY = (Mode.ENFORCE, Mode.SHADOW, Mode.OFF)


def more_lenient(one: Mode, other: Mode) -> Mode:
    """Return the more lenient of two modes: off, then shadow, then enforce."""
    return max(one, other, key=_LENIENCY.index)


class ChainBuild(NamedTuple):
    """The common data of one chain, nested pipelines included.

    Attributes:
        drivers: the family of drivers.
        result_lists: the allowlists that classify returned values.
        success_hooks: the `on_success` of the inner loops, or their budgets by key, so that two Retries with one budget
            deposit in it once.
        inside: the policies in enforce mode that were composed so far, innermost first.
        innermost_bounds_attempt: whether the innermost Scope bounds the attempt, although no Loop is outside it.
    """

    drivers: Drivers
    result_lists: tuple[Allowlist, ...]
    success_hooks: list[object]
    inside: list[Policy[Any]]
    innermost_bounds_attempt: bool


class Part(NamedTuple):
    """A policy of a chain and the mode that applies: enforce or shadow. `looped` is whether a Loop is outside it."""

    policy: Policy[Any]
    mode: Mode
    looped: bool


class GatePair(NamedTuple):
    """Two adjacent gates that are driven by one closure."""

    outer: Gate[Any]
    inner: Gate[Any]


class ScopedLoop(NamedTuple):
    """A Loop and the Scope directly around it, driven by one closure. `looped` is whether a Loop is outside them.

    `seconds` is the timeout of the Scope, read once, since an `update` may change it while a chain is composed.
    """

    scope: Scope
    loop: Loop
    looped: bool
    seconds: float


Link: TypeAlias = "Part | GatePair | ScopedLoop"


def policies_of(link: Link) -> list[Policy[Any]]:
    """Return the policies of a link that are in enforce mode."""
    if isinstance(link, GatePair):
        return [link.inner, link.outer]
    if isinstance(link, ScopedLoop):
        return [link.loop, link.scope]
    return [link.policy] if link.mode is Mode.ENFORCE else []


def fuse(parts: Sequence[Part]) -> list[Link]:
    """Join adjacent policies that one closure can drive, and return the links, innermost first.

    Args:
        parts: the policies, outermost first.
    """
    links: list[Link] = []
    for part in reversed(parts):
        inner = links[-1] if links else None
        joined = _joined(part, inner) if isinstance(inner, Part) else None
        if joined is None:
            links.append(part)
        else:
            links[-1] = joined
    return links


def _joined(outer: Part, inner: Part) -> Link | None:
    """Return the link of two adjacent parts, or None if no closure can drive both."""
    if outer.mode is not Mode.ENFORCE or inner.mode is not Mode.ENFORCE:
        return None
    first, second = outer.policy, inner.policy
    if observes_results(first) or observes_results(second):
        return None
    if isinstance(first, Gate) and isinstance(second, Gate):
        return GatePair(first, second)
    if isinstance(first, Scope) and isinstance(second, Loop):
        seconds = first.seconds
        if seconds is None or first.thread or has_phases(first):
            return None
        return ScopedLoop(first, second, outer.looped, seconds)
    return None


def limits_in_shadow(policy: Policy[Any]) -> list[RateLimit]:
    """Return the rate limits in shadow mode of a combined one; none for other policies."""
    limits = policy.limits if isinstance(policy, CombinedRateLimit) else ()
    return [limit for limit in limits if limit.mode is Mode.SHADOW]
