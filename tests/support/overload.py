"""A dependency that is overloaded, and asks for a pause."""

from __future__ import annotations

from typing import Any

from resilience import Failure, FailureKind


class Overloaded(Exception):
    """The dependency asks for a pause, in seconds."""

    def __init__(self, pause: float = 5.0) -> None:
        super().__init__(pause)
        self.pause = pause


def busy(error: Exception) -> Failure | bool:
    """Return the failure of an exception of the dependency."""
    if isinstance(error, Overloaded):
        return Failure(FailureKind.OVERLOAD, error.pause, counted=False)
    return isinstance(error, ConnectionError)


def overloaded() -> Any:
    """Fail, as a dependency that asks for a pause does."""
    raise Overloaded
