"""Small policies, for tests of the drivers and of pipelines."""

from __future__ import annotations

from typing import Any

from resilience import (
    Call,
    DeferredSettlement,
    Ending,
    Gate,
    Pipeline,
    RejectedError,
    RejectReason,
    Retry,
    Substitute,
    backoff,
)
from resilience._policies.shapes import Scope
from tests.support.turnstile import Turnstile


def retrying(**more: Any) -> Pipeline[Any]:
    """Return a pipeline that only retries, without waits."""
    return Pipeline(Retry(wait=backoff.none()), **more)


class Closed(Gate[None]):
    """Refuses every call."""

    kind = "closed"

    def admit(self, call: Call) -> None:
        raise RejectedError("closed", reason=RejectReason.ISOLATED, retry_after=3.0)


class Hurry(Scope):
    """Gives each call so many seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def deadline(self, call: Call, now: float) -> float:
        del call
        return now + self._seconds


class Noting(Gate[str]):
    """Notes how calls end, and may raise then."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error = error
        self.endings: list[str] = []

    def admit(self, call: Call) -> str:
        return "token"

    def settle(self, token: str, ending: Ending) -> None:
        assert token == "token"
        self.endings.append(ending.kind)
        if self.error is not None:
            raise self.error


class Holding(Turnstile):
    """Its permits are in use as long as something goes on."""

    holds_permit = True


class Streaming(Gate[None]):
    """Innermost: what is called leaves something running, whether it returns or raises."""

    def __init__(self, *, known: bool = False, every: bool = True) -> None:
        super().__init__()
        self.known = known
        self.every = every
        self.left: list[DeferredSettlement] = []

    def admit(self, call: Any) -> None:
        if self.every or not self.left:
            call.deferred = DeferredSettlement(known=self.known)
            self.left.append(call.deferred)


class Instead(Substitute[Any]):
    """Puts a value, or what a function returns, in the place of every failure."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    def replace(self, call: Call, ending: Ending) -> Any:
        return self.value() if callable(self.value) else self.value


class Stale(Substitute[str]):
    """Puts "stale" in the place of every failure."""

    def replace(self, call: Call, ending: Ending) -> str:
        return "stale"
