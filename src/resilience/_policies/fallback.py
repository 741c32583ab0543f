"""Fallback: replace a failure, a rejection or a passed deadline by another value."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from resilience._call.call import Call
from resilience._outcome.allowlist import Allowlist, Failures
from resilience._outcome.ending import Ending
from resilience._policies.shapes import Substitute
from resilience._util.values import MISSING, Value
from resilience.events._types import Mode, ModeName

D = TypeVar("D")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FallbackSettings(Value):
    """The settings of a Fallback; `Fallback` describes each."""

    compute: Callable[[Exception], Any] | None
    value: Any
    on: Any

    def __post_init__(self) -> None:
        """Validate the settings."""
        given: Any = self.compute
        if (given is None) is (self.value is MISSING):
            raise TypeError("Fallback takes exactly one of the two: a function that computes the value, or value=")
        if given is not None and not callable(given):
            raise TypeError(f"compute must be a callable that takes the exception, not {given!r}; a constant is value=")
        if self.on is not None:
            object.__setattr__(self, "on", Allowlist.of(self.on))


class Fallback(Substitute[D]):
    """Replace a failure, a rejection by a policy, or a passed deadline by another value.

    Args:
        compute: called with the exception; returns the value, or, for awaited calls, an awaitable of it. A bad result
            is passed as a `BadResult`, whose `result` is what the function returned. What it raises is raised to the
            caller.
        value: the value, in place of `compute`. Each caller gets the same object.
        on: what is replaced; None for every failure by the pipeline's allowlist, every rejection, and every deadline
            that passed, also before the call was made. An allowlist that is given here may list rejections, such as
            `CircuitOpenError`, and then nothing is replaced that it does not list.
        name: see `Policy`.
        mode: see `Policy`. In shadow mode, a replacement is reported but not made.

    Raises:
        TypeError: both `compute` and `value` are given, or neither; or one is of the wrong type.

    Usually it is the outermost policy. Other exceptions, such as those of a caller's mistake, are not replaced. The
    policies inside have seen the failure; those outside see a good call. An awaitable that `compute` returns is bounded
    by the deadline around the Fallback; with `Timeout(reserve=...)` inside, time is left for it. The type of a
    decorated function includes the type of the value.
    """

    kind = "fallback"
    _shares_state = True
    settings: FallbackSettings

    @overload
    def __init__(
        self,
        compute: Callable[[Exception], Awaitable[D]],
        *,
        on: Failures | None = None,
        name: str | None = None,
        mode: ModeName = Mode.ENFORCE,
    ) -> None: ...
    @overload
    def __init__(
        self,
        compute: Callable[[Exception], D],
        *,
        on: Failures | None = None,
        name: str | None = None,
        mode: ModeName = Mode.ENFORCE,
    ) -> None: ...
    @overload
    def __init__(
        self, *, value: D, on: Failures | None = None, name: str | None = None, mode: ModeName = Mode.ENFORCE
    ) -> None: ...
    def __init__(
        self,
        compute: Callable[[Exception], Any] | None = None,
        *,
        value: Any = MISSING,
        on: Failures | None = None,
        name: str | None = None,
        mode: ModeName = Mode.ENFORCE,
    ) -> None:
        super().__init__(FallbackSettings(compute=compute, value=value, on=on), name=name, mode=mode)

    def replace(self, call: Call, ending: Ending) -> Any:
        """Return the value, or what `compute` returns."""
        settings = self.settings
        error: Any = ending.error  # always an Exception: drivers call substitutes for nothing else
        return settings.value if settings.compute is None else settings.compute(error)

    @property
    def _holds_state(self) -> bool:
        return type(self) is not Fallback
