"""The forecast of a queue: when a call that joins it now will be admitted."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TypeAlias

from resilience._policies.rate_limit.meter import Charge, Meter
from resilience._util.clock import FOREVER

Charges: TypeAlias = "Sequence[tuple[Meter, Charge]]"
"""What a call takes, from each meter."""

State: TypeAlias = "tuple[float, float, float]"


def ready_at(charges: Charges) -> float:
    """Return the time from which all meters admit a call. Lock held."""
    at = -FOREVER
    for meter, charge in charges:
        at = max(at, meter.ready_at(charge.cost))
    return at


class Forecast:
    """The state in which meters will be after the calls that wait in a queue. All methods need the lock held.

    It is brought forward with each call that joins or leaves at the time that was forecast. After any other change of a
    meter or of the queue it does not hold any more.

    Args:
        waiting: what each waiting call takes, in order.
    """

    __slots__ = ("_after", "_last", "_length", "_seen")

    def __init__(self, waiting: Iterable[Charges]) -> None:
        self._after: dict[Meter, Meter] = {}
        self._seen: dict[Meter, State] = {}
        self._last = -FOREVER
        self._length = 0
        for charges in waiting:
            self.joined(charges, self.ready_at(charges))

    def holds(self, queue: Collection[object]) -> bool:
        """Return whether nothing else has changed the queue, or a meter."""
        return self._length == len(queue) and all(_state(meter) == seen for meter, seen in self._seen.items())

    def ready_at(self, charges: Charges) -> float:
        """Return when a call will be admitted that joins the queue now."""
        after = [(self._copy_of(meter), charge) for meter, charge in charges]
        return max(self._last, ready_at(after))

    def joined(self, charges: Charges, at: float) -> None:
        """Bring the forecast forward by a call that has joined the queue, and will be admitted at that time."""
        for meter, charge in charges:
            self._copy_of(meter).take(charge.cost, at)
        self._last = at
        self._length += 1

    def admitted(self, charges: Charges) -> None:
        """Bring the forecast forward by the first call, which was admitted at the time that was forecast."""
        self._length -= 1
        for meter, _ in charges:
            self._seen[meter] = _state(meter)

    def _copy_of(self, meter: Meter) -> Meter:
        if meter not in self._after:
            self._after[meter] = meter.copy()
            self._seen[meter] = _state(meter)
        return self._after[meter]


def _state(meter: Meter) -> State:
    return meter.full_at, meter.interval, meter.burst
