"""The settings of a rate limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from resilience._call.call import Call
from resilience._util import validation
from resilience._util.values import Value

Cost: TypeAlias = "float | Callable[[Call], float]"
"""The units that a call takes, or a function of the call that returns them."""
Actual: TypeAlias = "Callable[[Any], float | None]"
"""A function of the result of a call that returns the units that it really took; None if it does not tell."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RateLimitSettings(Value):
    """The settings of a RateLimit; `RateLimit` describes each."""

    rate: float
    per: float
    burst: float
    max_wait: float | None
    cost: Cost
    actual: Actual | None

    def __post_init__(self) -> None:
        """Validate the settings; numbers become floats."""
        for name, least in (("rate", 0.0), ("per", 0.0)):
            self._set(name, validation.number(name, getattr(self, name), low=least, above=True))
        self._set("burst", validation.number("burst", self.burst, low=1.0))
        if not validation.is_finite(self.per / self.rate) or self.per / self.rate == 0:
            raise ValueError(f"rate must be such that per / rate is a finite number > 0, not {self.rate!r}")
        if self.max_wait is not None:
            self._set("max_wait", validation.number("max_wait", self.max_wait))
        if not callable(self.cost):
            self._set("cost", validation.number("cost", self.cost, above=True))
        actual: Any = self.actual
        if actual is not None and not callable(actual):
            raise TypeError(f"actual must be a function of the result, or None, not {actual!r}")

    def _set(self, name: str, value: float) -> None:
        object.__setattr__(self, name, value)

    @property
    def longest_wait(self) -> float:
        """The longest wait of a call, in seconds."""
        return self.per if self.max_wait is None else self.max_wait

    @property
    def is_plain(self) -> bool:
        """Whether each call takes 1, and no result is looked at."""
        return self.cost == 1.0 and self.actual is None
