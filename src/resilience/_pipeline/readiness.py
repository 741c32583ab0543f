"""The health of all pipelines, for a readiness endpoint."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from resilience._pipeline.health import FAILS_READINESS
from resilience._pipeline.pipeline import pipelines
from resilience._util.log_once import first_time, logger


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


def _names(critical: Any) -> set[str]:
    """Return the names of critical pipelines, or raise a TypeError."""
    if isinstance(critical, str):
        raise TypeError(f"critical must be a list of names of pipelines, such as [{critical!r}], not a string")
    names: set[Any] = set(critical)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"critical must have names of pipelines, not {name!r}")
    return names
