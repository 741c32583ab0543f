"""The health of pipelines as plain data, for a readiness endpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from resilience._call.budget import RetryBudget
from resilience._call.keyed import Keyed
from resilience._pipeline.registry import pipelines
from resilience._policies.breaker.breaker import CircuitBreaker
from resilience._policies.cooldown.cooldown import Cooldown
from resilience._policies.permits import ConcurrencyGate
from resilience._util.log_once import first_time, logger
from resilience._util.redaction import without_credentials
from resilience.events._types import BreakerState, Mode

if TYPE_CHECKING:
    from resilience._pipeline.pipeline import Pipeline

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


def health(critical: Iterable[str] = ()) -> dict[str, Any]:
    """Return the health of all named pipelines as plain data, for a readiness endpoint.

        @app.get("/ready")
        def ready() -> Response:
            found = resilience.health(critical=["payments"])
            return JSONResponse(found, 200 if found["ready"] else 503)

    Args:
        critical: the names of the pipelines without which the service cannot serve at all. Name few: an instance that
            is not ready gets no traffic, and if a dependency of all instances is down, none is left to say so.

    Returns:
        `ready`, False if a critical pipeline takes no calls: its circuit breaker is open or isolated, or it is drained.
        `status`: "ok"; "degraded", if a pipeline has a problem; or "unavailable", if it is not ready. `pipelines`: the
        `health()` of each pipeline by its name.

    Raises:
        TypeError: `critical` is a string, or has something else than strings.

    A name in `critical` that no pipeline has is logged once and ignored: the pipeline may not have been made yet.
    """
    names = _names(critical)
    found = {name: pipeline.health() for name, pipeline in pipelines().items()}
    for name in names - found.keys():
        if first_time("unknown critical pipeline", name):
            logger.warning(
                "health(critical=...) names the pipeline %r, which does not exist (this is logged once)", name
            )
    ready = not any(
        problem["problem"] in FAILS_READINESS for name in names & found.keys() for problem in found[name]["problems"]
    )
    degraded = any(one["problems"] for one in found.values())
    status = "unavailable" if not ready else "degraded" if degraded else "ok"
    return {"ready": ready, "status": status, "pipelines": found}


def health_of(pipeline: Pipeline[Any]) -> dict[str, Any]:
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


def _names(critical: Any) -> set[str]:
    """Return the names of critical pipelines, or raise a TypeError."""
    if isinstance(critical, str):
        raise TypeError(f"critical must be a list of names of pipelines, such as [{critical!r}], not a string")
    names: set[Any] = set(critical)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"critical must have names of pipelines, not {name!r}")
    return names


def _problems(name: str, policy: Any) -> Iterator[Problem]:
    """Yield the problems of a policy, or of the policies of a Partition: each kind of problem once, with its keys."""
    if not isinstance(policy, Keyed):
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
