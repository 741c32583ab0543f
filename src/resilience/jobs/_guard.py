"""What the calls of a job are made through."""

from __future__ import annotations

from typing import Any, Never

from resilience import Caller, Pipeline


def caller_of(pipeline: Caller[Never] | None) -> Caller[Never]:
    """Return the pipeline of a job; for None, one without policies.

    Raises:
        TypeError: it is no pipeline.
    """
    if pipeline is None:
        return Pipeline()
    given: Any = pipeline
    if not isinstance(given, Caller):
        raise TypeError(f"pipeline must be a Pipeline or a policy, not {given!r}")
    return pipeline
