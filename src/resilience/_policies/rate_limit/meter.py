"""The state of a rate limit, and the arithmetic on it: the generic cell rate algorithm."""

from __future__ import annotations

from resilience._util.clock import FOREVER

LATE = 0.005
"""How late a waiting call may be for its slot, in seconds, without loss: timers are late by about that much at most."""
ROUNDING = 1e-8
"""How much too early a slot may be taken, in seconds: more than a time differs from the exact one by rounding."""
ROUNDING_PER_UNIT = 1e-8
"""How much more that is for each unit of a burst, since each call of it is rounded."""

LONG_AGO = -1e300
"""Before all times, and later than minus infinity, to which `Meter.slack` may be set."""


class Charge:
    """What one call has taken from a meter.

    Attributes:
        cost: the units, as far as they are known.
        mark: the reading of the meter right after the call.
        later: while the meter tracks the charge, the greatest time at which a call was admitted after it, minus what
            had been charged by then, in seconds. Plus all that is charged, it is when the bucket would be full if only
            the calls after it had been made.
    """

    __slots__ = ("cost", "later", "mark")

    def __init__(self, cost: float, mark: float = 0.0) -> None:
        self.cost = cost
        self.mark = mark
        self.later = -FOREVER


class Meter:
    """The generic cell rate algorithm (ITU-T I.371), with costs, refunds and debts. All methods need the lock held.

    Args:
        rate: the units in `per` seconds.
        per: the seconds.
        burst: the units in a full bucket.

    Attributes:
        interval: the seconds in which one unit is added.
        burst: the units in a full bucket.
        full_at: when the bucket is full, if nothing more is taken: the "theoretical arrival time".
        refunded: by how many seconds refunds have moved it back so far, so that it plus `full_at` never decreases.
        slack: how long before the bucket is full a call that costs 1 is admitted, in seconds, if that takes no lock;
            otherwise minus infinity. The rate limit sets it.
        tracked: the charges since the bucket was last full whose corrections are to be exact, in order.
    """

    __slots__ = ("_charged", "_void", "burst", "full_at", "interval", "refunded", "rounding", "slack", "tracked")

    def __init__(self, rate: float, per: float, burst: float) -> None:
        self._set(rate, per, burst)
        self.slack = -FOREVER
        self.full_at = LONG_AGO
        self.refunded = 0.0
        self.tracked: dict[Charge, None] = {}
        self._charged = 0.0
        self._void = LONG_AGO

    def _set(self, rate: float, per: float, burst: float) -> None:
        self.interval = per / rate
        self.burst = burst
        self.rounding = min(ROUNDING + burst * ROUNDING_PER_UNIT, self.interval / 2)

    def copy(self) -> Meter:
        """Return a meter with the same state, without tracked charges."""
        other = Meter(1.0, self.interval, self.burst)
        other.full_at = self.full_at
        return other

    def ready_at(self, cost: float) -> float:
        """Return the time from which a call is admitted: the bucket holds its cost, or is full if it costs more."""
        spare = self.burst - cost
        return self.full_at - spare * self.interval if spare > 0 else self.full_at

    def take(self, cost: float, at: float) -> None:
        """Charge a call that is admitted at that time."""
        if at >= self.full_at:  # what was taken before has no influence any more
            self.full_at = at
            if self.tracked:
                self.tracked = {}
        elif self.tracked:
            start = at - self._charged
            for charge in reversed(self.tracked):
                if charge.later >= start:
                    break  # so it is for those before
                charge.later = start
        seconds = cost * self.interval
        self._charged += seconds
        self.full_at += seconds

    def charge(self, charge: Charge, at: float, *, track: bool) -> None:
        """Charge a call that is admitted at that time, and note it in `charge`."""
        self.take(charge.cost, at)
        charge.mark = self.full_at + self.refunded
        if track:
            self.tracked[charge] = None

    def correct(self, charge: Charge, cost: float, now: float) -> None:
        """Change what a call has taken to what it really took; more than before is a debt."""
        change, charge.cost = cost - charge.cost, cost
        tracked = charge in self.tracked
        if not tracked and charge.mark <= self._void:
            return
        seconds = change * self.interval
        full_at = self.full_at
        if tracked:
            # As if the call had cost that in the first place.
            self.full_at = max(full_at + seconds, charge.later + self._charged)
            debt = max(0.0, self.full_at - full_at)
            before = True
            for other in self.tracked:
                before = before and other is not charge
                if before:
                    other.later = max(other.later + seconds, charge.later)
                else:
                    other.mark += debt  # it is not what came after it
        elif change > 0:
            self.take(change, now)
            charge.mark += seconds  # the debt is not what came after it
            return
        else:
            # What came after it is known as a sum only. So no more is refunded than if all of that were taken now.
            later = full_at + self.refunded - charge.mark
            self.full_at = max(full_at + seconds, min(full_at, now + later))
        self.refunded += max(0.0, full_at - self.full_at)

    def available(self, now: float) -> float:
        """Return the units in the bucket, without what comes of rounding; below 0 while there is a debt."""
        return round(self.burst - max(0.0, (self.full_at - now) / self.interval), 6)

    def configure(self, rate: float, per: float, burst: float, now: float) -> None:
        """Change the settings. What is missing in the bucket, in units, is the same as before."""
        old, full_at = self.interval, self.full_at
        self._set(rate, per, burst)
        if self.interval == old:
            return
        scale = self.interval / old
        charged, self._charged = self._charged, self._charged * scale
        self.full_at = _scaled(full_at, scale, now)
        for charge in self.tracked:
            charge.later = _scaled(charge.later + charged, scale, now) - self._charged
        if self.full_at < full_at:
            self.refunded += full_at - self.full_at
        self._void = self.full_at + self.refunded  # the marks of before are in seconds under the old interval

    def forget(self) -> None:
        """Ignore corrections of what was charged before."""
        self._void = max(self._void, self.full_at + self.refunded)
        self.tracked = {}

    def reset(self, now: float) -> None:
        """Fill the bucket."""
        self.forget()
        if self.full_at > now:
            self.refunded += self.full_at - now
            self.full_at = now


def _scaled(full_at: float, scale: float, now: float) -> float:
    """Return when a bucket is full in which as many units are missing, after the interval was scaled."""
    return now + (full_at - now) * scale if full_at > now else full_at
