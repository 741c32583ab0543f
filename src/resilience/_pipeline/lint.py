"""Checks of a pipeline: policies that are valid one by one, but cannot work together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from resilience._policies.base import Policy
from resilience._policies.breaker.breaker import CircuitBreaker
from resilience._policies.hedge import Hedge
from resilience._policies.partition import sample
from resilience._policies.retry.retry import Retry
from resilience._policies.shapes import Gate, Substitute
from resilience._policies.timeout import Timeout


def contradictions(policies: list[tuple[str, Policy[Any]]]) -> Iterator[str]:
    """Yield a sentence for each contradiction between policies, with what to do about it.

    Args:
        policies: the policies with their names, outermost first. A Partition is judged by one of its policies.
    """
    policies = [(name, sample(policy)) for name, policy in policies]
    for index, (name, policy) in enumerate(policies):
        inside = policies[index + 1 :]
        yield from _repeated(name, policy, inside)
        allowlist = policy.failures
        listed = () if allowlist is None else allowlist.rejections
        if listed and not isinstance(policy, Substitute):
            names = ", ".join(kind.__name__ for kind in listed)
            yield (
                f"{name} lists {names}, which has no effect: a rejection is no failure, since the dependency was not "
                "called; leave it out"
            )
        if isinstance(policy, Timeout):
            yield from _too_long_inside(name, policy, inside)
        elif isinstance(policy, CircuitBreaker):
            yield from _breaker(name, policy, policies[:index], inside)
        elif isinstance(policy, Hedge):
            yield from _hedge(name, policy, policies[:index], inside)


def _repeated(name: str, policy: Policy[Any], inside: list[tuple[str, Policy[Any]]]) -> Iterator[str]:
    """Yield a sentence for each policy inside that repeats what this one does."""
    is_gate = issubclass(type(policy), Gate)
    waits = ", so that calls can wait for each other's permits for ever" if is_gate else ""
    for inner_name, inner in inside:
        if inner is policy:
            yield (f"{name} is contained twice (as {inner_name}, too): each call passes it twice{waits}; leave one out")
        elif _both_retry(policy, inner):
            yield (
                f"{inner_name} is inside {name}, which does not repeat what an inner Retry has given up on; leave one "
                "out, or set nested=True on the outer one, so that the attempts multiply"
            )


def _both_retry(outer: Policy[Any], inner: Policy[Any]) -> bool:
    """Return whether both are Retries with more than one attempt, which are not meant to multiply."""
    if not (isinstance(outer, Retry) and isinstance(inner, Retry)):
        return False
    settings = outer.settings
    return 1 not in (settings.attempts, inner.settings.attempts) and not settings.nested


def _too_long_inside(name: str, timeout: Timeout, inside: list[tuple[str, Policy[Any]]]) -> Iterator[str]:
    """Yield a sentence for the bound of the first item, and for each inner Timeout, that is not shorter."""
    settings = timeout.settings
    total, first = settings.seconds, settings.first
    if total is not None and first is not None and first >= total:
        yield f"{name} has first={first:g} s, but ends after {total:g} s; set first to less than that"
    for inner_name, inner in inside:
        seconds = inner.settings.seconds if isinstance(inner, Timeout) else None
        if total is not None and seconds is not None and seconds >= total:
            yield (
                f"{inner_name} ({seconds:g} s) is inside {name} ({total:g} s), which always ends first; "
                "give the inner one less time"
            )


def _hedge(
    name: str,
    hedge: Hedge,
    outside: list[tuple[str, Policy[Any]]],
    inside: list[tuple[str, Policy[Any]]],
) -> Iterator[str]:
    """Yield a sentence for each contradiction between a hedge and other policies."""
    after = hedge.settings.after
    for inner_name, inner in inside:
        if isinstance(inner, Retry) and inner.settings.attempts != 1:
            yield (
                f"{inner_name} is inside {name}, so that each of the attempts that race is repeated, and the load "
                "multiplies; put it outside"
            )
    for other_name, other in (*outside, *inside):
        seconds = other.settings.seconds if isinstance(other, Timeout) else None
        if seconds is not None and isinstance(after, float) and after >= seconds:
            yield (
                f"{name} starts another attempt after {after:g} s, but {other_name} ends the call after {seconds:g} s; "
                "set after to less than that"
            )


def _breaker(
    name: str,
    breaker: CircuitBreaker,
    outside: list[tuple[str, Policy[Any]]],
    inside: list[tuple[str, Policy[Any]]],
) -> Iterator[str]:
    """Yield a sentence for each contradiction between a breaker and its settings or other policies."""
    settings = breaker.settings
    for inner_name, inner in inside:
        if isinstance(inner, Retry):
            yield (
                f"{name} is outside {inner_name}: it sees only the outcome after all retries, and does not stop "
                "them while it is open; put it inside"
            )
    if settings.window_calls is not None and settings.min_calls > settings.window_calls:
        yield (
            f"{name} needs min_calls={settings.min_calls} calls to open by a rate, but its window holds only "
            f"window_calls={settings.window_calls}; set min_calls to that or less"
        )
    if settings.slow_after is None:
        return
    for other_name, other in (*outside, *inside):
        seconds = other.settings.seconds if isinstance(other, Timeout) else None
        if seconds is not None and settings.slow_after >= seconds:
            yield (
                f"{name} counts a call as slow from slow_after={settings.slow_after:g} s on, but {other_name} ends it "
                f"after {seconds:g} s; set slow_after to less than that"
            )
            return
