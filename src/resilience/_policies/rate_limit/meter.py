"""The state of a rate limit, and the arithmetic on it: the generic cell rate algorithm."""

from __future__ import annotations

from resilience._util.clock import FOREVER

LATE = 0.005
"""How late a waiting call may be for its slot, in seconds, without loss: timers are late by about that much at most."""
ROUNDING = 1e-8
"""How much too early a slot may be taken, in seconds: more than what a time differs from the exact one by rounding."""


class Charge:
    """What one call has taken from a meter.

    Attributes:
        cost: the units, as far as they are known.
        mark: the units that the meter had charged by then, this call included.
        later: while the meter tracks it, the greatest `at - total * interval` among the calls that came after it: the
            origin that the meter would have if only those had been made.
    """

    __slots__ = ("cost", "later", "mark")

    def __init__(self, cost: float, mark: float = 0.0) -> None:
        self.cost = cost
        self.mark = mark
        self.later = -FOREVER


class Meter:
    """The generic cell rate algorithm (ITU-T I.371), with costs, refunds and debts. All methods need the lock held.

    The theoretical arrival time, at which the bucket is full again, is `origin + total * interval`. Computed from the
    number of units, instead of being advanced with each call, it has no rounding errors that add up.

    Args:
        rate: the units in `per` seconds.
        per: the seconds.
        burst: the units in a full bucket.

    Attributes:
        interval: the seconds in which one unit is added.
        burst: the units in a full bucket.
        spare: `burst - 1`: what is left of a full bucket after a call that costs 1.
        origin: see above; minus infinity if the bucket has been full since the start.
        total: the units charged so far. It never decreases, so that what was charged after a call can be told.
        tracked: the charges since the bucket was last full whose refunds are to be exact, in order.
    """

    __slots__ = ("_corrected", "_void", "burst", "interval", "origin", "spare", "total", "tracked")

    def __init__(self, rate: float, per: float, burst: float) -> None:
        self.interval = per / rate
        self.burst = burst
        self.spare = burst - 1.0
        self.origin = -FOREVER
        self.total = 0.0
        self.tracked: dict[Charge, None] = {}
        self._corrected = 0.0
        self._void = 0.0

    def copy(self) -> Meter:
        """Return a meter with the same state, without tracked charges."""
        other = Meter(1.0, self.interval, self.burst)
        other.origin = self.origin
        other.total = self.total
        return other

    def ready_at(self, cost: float) -> float:
        """Return the time from which a call is admitted: the bucket holds its cost, or is full if it costs more."""
        spare = self.burst - cost
        return self.origin + (self.total - (spare if spare > 0 else 0.0)) * self.interval

    def take(self, cost: float, at: float) -> None:
        """Charge a call that is admitted at that time."""
        start = at - self.total * self.interval
        if start >= self.origin:  # the bucket is full: what was taken before has no influence any more
            self.origin = start
            if self.tracked:
                self.tracked = {}
        elif self.tracked:
            for charge in reversed(self.tracked):
                if charge.later >= start:
                    break  # so it is for those before
                charge.later = start
        self.total += cost

    def charge(self, charge: Charge, at: float, *, track: bool) -> None:
        """Charge a call that is admitted at that time, and note it in `charge`."""
        self.take(charge.cost, at)
        charge.mark = self.total
        if track:
            self.tracked[charge] = None

    def correct(self, charge: Charge, cost: float, now: float) -> None:
        """Change what a call has taken to what it really took; more than before is a debt."""
        change, charge.cost = cost - charge.cost, cost
        if charge.mark <= self._void:
            return
        if charge in self.tracked:
            self._shift(charge, change * self.interval)
        elif change > 0:
            self.take(change, now)
            return
        else:
            # What came after it is known as a number only. So no more is refunded than if all of that were taken now.
            full_at = self.origin + self.total * self.interval
            later = now + (self.total - charge.mark) * self.interval
            self.origin -= full_at - max(full_at + change * self.interval, min(full_at, later))
        self._corrected += change

    def _shift(self, charge: Charge, seconds: float) -> None:
        """Move the origin by a correction of a tracked charge: as if it had cost that in the first place."""
        self.origin = max(self.origin + seconds, charge.later)
        for earlier in self.tracked:
            if earlier is charge:
                break
            earlier.later = max(earlier.later + seconds, charge.later)

    def available(self, now: float) -> float:
        """Return the units in the bucket; below 0 while there is a debt."""
        debt = (self.origin + self.total * self.interval - now) / self.interval
        return self.burst - max(0.0, debt)

    @property
    def taken(self) -> float:
        """The units taken since the start or the last reset, corrections included."""
        return self.total + self._corrected

    def configure(self, rate: float, per: float, burst: float, now: float) -> None:
        """Change the settings. What is missing in the bucket, in units, is the same as before."""
        old, self.interval = self.interval, per / rate
        self.burst = burst
        self.spare = burst - 1.0
        if self.interval != old:
            self.origin = self._converted(self.origin, old, now)
            for charge in self.tracked:
                charge.later = self._converted(charge.later, old, now)

    def _converted(self, origin: float, old: float, now: float) -> float:
        """Return the origin with which as many units are missing as with that one under the old interval."""
        if origin == -FOREVER:
            return origin
        missing = max(0.0, (origin + self.total * old - now) / old)
        return now + (missing - self.total) * self.interval

    def forget(self) -> None:
        """Ignore corrections of what was charged before."""
        self._void = self.total
        self.tracked = {}

    def reset(self) -> None:
        """Fill the bucket."""
        self.forget()
        self.origin = -FOREVER
        self._corrected = -self.total
