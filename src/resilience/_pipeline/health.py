"""What hinders the calls of a pipeline at present, as plain data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from resilience._call.budget import RetryBudget
from resilience._call.keyed import Keyed
from resilience._policies.breaker.breaker import CircuitBreaker
from resilience._policies.cooldown.cooldown import Cooldown
from resilience._policies.permits import ConcurrencyGate
from resilience._util.redaction import without_credentials
from resilience.events._types import BreakerState, Mode

Problem = dict[str, Any]
OPEN: Final = "open"
ISOLATED: Final = "isolated"
SATURATED: Final = "saturated"
COOLING_DOWN: Final = "cooling_down"
BUDGET_EMPTY: Final = "budget_empty"
DRAINING: Final = "draining"
FAILS_READINESS: Final = frozenset({OPEN, ISOLATED, DRAINING})
"""The problems because of which a critical pipeline is unavailable: it takes no calls."""
MOST_KEYS: Final = 10
"""The number of keys of a Partition that are listed with a problem."""
_LONGEST_KEY: Final = 100


def health_of(pipeline: Any) -> dict[str, Any]:
    """Return the health of one pipeline; see `Pipeline.health`."""
    problems: list[Problem] = []
    if pipeline.in_flight.draining:
        problems.append({"policy": "", "problem": DRAINING})
    for name, policy in pipeline.flattened():
        if pipeline.engine.effective_mode(policy) is Mode.ENFORCE:
            problems += _problems(name, policy)
    if pipeline.budget is not None:
        problems += _problems("budget", pipeline.budget)
    return {"status": "degraded" if problems else "ok", "problems": problems}


def _problems(name: str, policy: Any) -> Iterator[Problem]:
    """Yield the problems of a policy, or of the policies of a Partition: each kind of problem once, with its keys."""
    given = policy
    if not isinstance(given, Keyed):
        problem = _problem(policy)
        if problem is not None:
            yield {"policy": name, **problem}
        return
    by_kind: dict[str, list[str]] = {}
    for key, one in policy.by_key():
        problem = _problem(one)
        if problem is not None:
            by_kind.setdefault(problem["problem"], []).append(without_credentials(key)[:_LONGEST_KEY])
    for kind, keys in by_kind.items():
        yield {"policy": name, "problem": kind, "count": len(keys), "keys": sorted(keys)[:MOST_KEYS]}


def _problem(policy: Any) -> Problem | None:
    """Return the problem of one policy or budget; None if it has none."""
    if isinstance(policy, CircuitBreaker):
        state = policy.snapshot()
        if state["state"] in (BreakerState.OPEN, BreakerState.ISOLATED):
            return {"problem": str(state["state"]), "retry_after": state["retry_after"]}
    elif isinstance(policy, ConcurrencyGate):
        state = policy.snapshot()
        if state["in_flight"] >= state["limit"] and state["queued"] >= policy.settings.queue:
            return {"problem": SATURATED, **{name: state[name] for name in ("in_flight", "limit", "queued")}}
    elif isinstance(policy, Cooldown):
        state = policy.snapshot()
        if state["active"]:
            return {"problem": COOLING_DOWN, "seconds_left": state["seconds_left"]}
    elif isinstance(policy, RetryBudget) and not policy.affordable:
        return {"problem": BUDGET_EMPTY, "tokens": policy.tokens}
    return None
