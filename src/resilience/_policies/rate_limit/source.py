"""A rate limit as the gates see it that take from it."""

from __future__ import annotations

from typing import Protocol
from weakref import WeakSet

from resilience._call.call import Call
from resilience._policies.rate_limit.meter import Meter
from resilience._policies.rate_limit.settings import RateLimitSettings
from resilience._util import validation


class Waiting(Protocol):
    """A gate in whose queue calls may wait."""

    @property
    def waits_since(self) -> float:
        """When the first waiting call has joined the queue, on the library's clock; infinity if none waits."""
        ...

    def admit_due(self) -> None:
        """Admit the waiting calls that are due."""
        ...


class Source:
    """One rate limit as its gates see it.

    Args:
        settings: the settings of the rate limit.

    Attributes:
        settings: the settings.
        meter: the state.
        gates: the gates that take from the meter, whose queues are to be looked at after a refund.
    """

    __slots__ = ("gates", "meter", "settings")

    def __init__(self, settings: RateLimitSettings) -> None:
        self.settings = settings
        self.meter = Meter(settings.rate, settings.per, settings.burst)
        self.gates: WeakSet[Waiting] = WeakSet()

    def cost_of(self, call: Call) -> float:
        """Return what a call takes. An exception of the function that was given as the cost is raised.

        Raises:
            TypeError, ValueError: the function has not returned a number >= 0.
        """
        cost = self.settings.cost
        return validation.number("what cost returns", cost(call)) if callable(cost) else cost
