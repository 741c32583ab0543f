"""What is wrong with a pipeline whose parts are right, each by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from resilience._policies.base import Policy
from resilience._policies.breaker.breaker import CircuitBreaker
from resilience._policies.retry.retry import Retry
from resilience._policies.timeout import Timeout


def contradictions(policies: list[tuple[str, Policy[Any]]]) -> Iterator[str]:
    """Yield a sentence for each thing that cannot work together, with what to do about it.

    Args:
        policies: the policies with their names, outermost first.
    """
    for place, (name, policy) in enumerate(policies):
        further_in = policies[place + 1 :]
        if isinstance(policy, Timeout):
            yield from _too_long_inside(name, policy, further_in)
        elif isinstance(policy, CircuitBreaker):
            yield from _breaker(name, policy, policies[:place], further_in)


def _too_long_inside(name: str, timeout: Timeout, further_in: list[tuple[str, Policy[Any]]]) -> Iterator[str]:
    total = timeout.settings.seconds
    for inner_name, inner in further_in:
        seconds = inner.settings.seconds if isinstance(inner, Timeout) else None
        if total is not None and seconds is not None and seconds >= total:
            yield (
                f"{inner_name} ({seconds:g} s) stands inside {name} ({total:g} s), which always ends first; "
                "give the inner one less time"
            )


def _breaker(
    name: str,
    breaker: CircuitBreaker,
    further_out: list[tuple[str, Policy[Any]]],
    further_in: list[tuple[str, Policy[Any]]],
) -> Iterator[str]:
    settings = breaker.settings
    for inner_name, inner in further_in:
        if isinstance(inner, Retry):
            yield (
                f"{name} stands outside {inner_name}: it sees only what is left after all retries, and does not stop "
                "them while it is open; put it inside"
            )
    if settings.window_calls is not None and settings.min_calls > settings.window_calls:
        yield (
            f"{name} wants min_calls={settings.min_calls} before it judges, but its window holds only "
            f"window_calls={settings.window_calls}; its failure rate never opens it"
        )
    if settings.slow_after is None:
        return
    for other_name, other in (*further_out, *further_in):
        if (
            isinstance(other, Timeout)
            and other.settings.seconds is not None
            and settings.slow_after >= other.settings.seconds
        ):
            yield (
                f"{name} calls slow what takes {settings.slow_after:g} s (slow_after), but {other_name} cuts after "
                f"{other.settings.seconds:g} s; make slow_after less than that"
            )
            return
