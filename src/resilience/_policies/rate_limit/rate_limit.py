"""RateLimit: limit how much is asked of a dependency in a time, in calls or in other units such as tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from resilience._call.call import Call
from resilience._policies.base import Recomposable
from resilience._policies.rate_limit.gate import RateGate
from resilience._policies.rate_limit.reservation import Reservation
from resilience._policies.rate_limit.settings import Actual, Cost, RateLimitSettings
from resilience._policies.rate_limit.source import Source
from resilience._policies.rate_limit.tokens import Token
from resilience._util import validation
from resilience._util.clock import FOREVER, clock
from resilience._util.finalizers import pending, put_off, run_pending
from resilience._util.locks import inside_state, state_lock
from resilience.events._types import Mode, ModeName


class RateLimit(RateGate):
    """Admit at most `rate` units in `per` seconds, smoothly: a call that comes too early waits for its slot.

    Args:
        rate: the units that become available in `per` seconds, > 0; a unit is a call, unless `cost` says otherwise.
        per: the seconds, > 0.
        burst: the units that may be taken at once after a quiet time, >= 1. In any interval of T seconds, calls of at
            most `burst + rate / per * T` units are admitted.
        max_wait: the longest wait for a slot, in seconds, >= 0; None for `per`. A call whose slot comes later than
            that, or at its deadline or later, is rejected at once instead of waiting.
        cost: the units that a call takes, > 0, or a function of the `Call` that returns them, >= 0. A call that costs
            more than `burst` waits until `burst` units are available, and leaves a debt, which delays the next calls.
        actual: a function of the result of a call that returns the units, >= 0, that it really took, or None if it does
            not know. Less than the cost is refunded, and more is a debt. A call that fails has taken its cost. Of a
            streamed result, it gets the object that is returned, with what is known of it at its head.
        name: see `Policy`.
        mode: see `Policy`. In shadow mode, a call that would have been rejected or had to wait is reported, admitted at
            once, and not counted.

    Raises:
        TypeError, ValueError: a parameter is of the wrong type or out of range.

    It is the generic cell rate algorithm (ITU-T I.371), which takes the same short time for each call. A call that is
    not admitted raises `RateLimitedError`, whose `retry_after` are the seconds until a slot is free. What a call has
    taken is refunded if the dependency was not called: the wait was cancelled, or an inner policy rejected the call.

    Threads, asyncio tasks and trio tasks may share one rate limit and its queue, first come, first served. `update()`
    works while calls wait. An exception that `cost` raises is raised to the caller; one of `actual` is logged once.
    """

    settings: RateLimitSettings

    def __init__(
        self,
        rate: float,
        per: float = 1.0,
        *,
        burst: float = 1.0,
        max_wait: float | None = None,
        cost: Cost = 1.0,
        actual: Actual | None = None,
        name: str | None = None,
        mode: ModeName = Mode.ENFORCE,
    ) -> None:
        settings = RateLimitSettings(rate=rate, per=per, burst=burst, max_wait=max_wait, cost=cost, actual=actual)
        self.source = Source(settings)
        self._meter = self.source.meter
        self.source.gates.add(self)
        super().__init__(settings, name=name, mode=mode)
        self._is_alone = True
        self._end_change()

    @staticmethod
    def all_of(*limits: RateLimit, name: str | None = None, mode: ModeName = Mode.ENFORCE) -> CombinedRateLimit:
        """Return a gate whose calls take from several rate limits: from all, or from none.

        Args:
            *limits: the rate limits, such as one of requests and one of tokens; at least one, and none twice.
            name: see `Policy`.
            mode: see `Policy`.

        Raises:
            TypeError, ValueError: one of `limits` is not a RateLimit, or is there twice; or there is none.
        """
        return CombinedRateLimit(*limits, name=name, mode=mode)

    def share(self, gate: RateGate) -> None:
        """Let another gate take from this rate limit, too. Internal."""
        self._is_alone = False
        self._begin_change()
        self.source.gates.add(gate)

    @property
    def _sources(self) -> Sequence[Source]:
        return (self.source,)

    @property
    def available(self) -> float:
        """The units that could be taken at once; below 0 while there is a debt."""
        with state_lock:
            available = self._meter.available(clock.monotonic())
        if pending:
            run_pending()
        return available

    def _busy_until(self, now: float) -> float:
        return max(now, self._meter.full_at)

    def reserve(self, cost: float | None = None) -> Reservation[float]:
        """Return a block of code that takes an estimate: `async with limit.reserve(1200) as reserved:`.

        Args:
            cost: the estimated units, >= 0; None for the `cost` of the settings.

        Raises:
            TypeError, ValueError: `cost` is of the wrong type or out of range.

        `reserved.settle(1834)` says what was really used.
        """
        return Reservation(self, {} if cost is None else self.amounts("cost", cost))

    def amounts(self, parameter: str, given: Any) -> dict[Source, float]:
        """Return the units that were given for a reservation. Internal."""
        return {self.source: validation.number(parameter, given)}

    def admit(self, call: Call) -> Token:
        """Take what the call costs, or return a ticket to wait on.

        Raises:
            RateLimitedError: the wait would be longer than the call may wait.
        """
        # The same as what `admit_with` does, for a call that costs 1 and finds no queue; in a fraction of the time.
        meter = self._meter
        now = clock.monotonic()
        # From here to the change of `full_at` there is no call and no loop, so that no other thread, signal handler or
        # finalizer can come between. During the longer changes, which have the lock, `slack` is minus infinity, and no
        # call is admitted here; nor while calls wait, or where calls do not cost 1.
        full_at = meter.full_at
        if full_at - now > meter.slack:
            return super().admit(call)
        if full_at < now:
            full_at = now
        meter.full_at = full_at = full_at + meter.interval
        return call, call.calls_made, full_at + meter.refunded

    def _begin_change(self) -> None:
        self._meter.slack = -FOREVER

    def _end_change(self) -> None:
        meter = self._meter
        if self._is_alone and self.settings.is_plain and not self._waiting and not meter.tracked:
            meter.slack = (meter.burst - 1.0) * meter.interval + meter.rounding

    def _settings_changed(self) -> None:
        """Apply new settings; admit the waiting calls that are due by them."""
        if inside_state():
            put_off(self._settings_changed)
            return
        settings = self.settings
        with state_lock:
            self.source.settings = settings
            self._begin_change()
            self._meter.configure(settings.rate, settings.per, settings.burst, clock.monotonic())
            self._end_change()
        if pending:
            run_pending()
        self._admit_due_everywhere()

    def snapshot(self) -> dict[str, Any]:
        """Return the state, all of the same moment.

        `available` are the units that could be taken at once, below 0 while there is a debt; `wait` the seconds that a
        call which comes now and costs 1 would wait; `queued` the number of calls that wait; `rejected` the number of
        calls rejected since the start or the last reset; `rate`, `per` and `burst` the settings.
        """
        with state_lock:
            settings = self.settings
            state = {
                "available": self._meter.available(clock.monotonic()),
                "wait": round(self._wait_of_one(), 6),
                "queued": len(self._waiting),
                "rejected": self._rejected,
                "rate": settings.rate,
                "per": settings.per,
                "burst": settings.burst,
            }
        if pending:
            run_pending()
        return state

    def reset(self) -> None:
        """Fill the bucket, without debts, and set the counts to 0. Waiting calls keep waiting, if they have to."""
        if inside_state():
            put_off(self.reset)
            return
        with state_lock:
            self._begin_change()
            self._meter.reset(clock.monotonic())
            self._rejected = 0
            self._end_change()
        if pending:
            run_pending()
        self._admit_due_everywhere()


class CombinedRateLimit(RateGate):
    """Admit a call when all of several rate limits admit it; it takes from all of them, or from none.

    `RateLimit.all_of` makes it. The settings are those of each rate limit, `cost` and `actual` included; the longest
    wait is the shortest `max_wait` of them. A rate limit in shadow mode takes from the calls that the others admit, and
    reports in pipelines what it would have rejected; one that is off is left out. Calls that take from one of the rate
    limits by itself have a queue of their own, and may overtake those that wait for all.
    """

    def __init__(self, *limits: RateLimit, name: str | None = None, mode: ModeName = Mode.ENFORCE) -> None:
        given: tuple[Any, ...] = limits
        if not given:
            raise TypeError("all_of needs at least one RateLimit")
        for limit in given:
            if not isinstance(limit, RateLimit):
                raise TypeError(f"all_of takes objects of type RateLimit, not {limit!r}")
        if len(set(given)) < len(given):
            raise ValueError("all_of must not be given the same RateLimit twice")
        self._limits = limits
        super().__init__(None, name=name, mode=mode)
        for limit in limits:
            limit.share(self)

    def _attach(self, pipeline: Recomposable) -> None:
        super()._attach(pipeline)
        for limit in self._limits:
            limit._attach(pipeline)

    @property
    def limits(self) -> tuple[RateLimit, ...]:
        """The rate limits."""
        return self._limits

    @property
    def _sources(self) -> Sequence[Source]:
        return [limit.source for limit in self._limits if limit.mode is Mode.ENFORCE]

    @property
    def observes_results(self) -> bool:
        """True: an `actual` may be set later."""
        return True

    def _busy_until(self, now: float) -> float:
        return max(now, *(limit.source.meter.full_at for limit in self._limits))

    def reserve(self, costs: Mapping[RateLimit, float] | None = None) -> Reservation[Mapping[RateLimit, float]]:
        """Return a block of code that takes estimates: `async with both.reserve({tokens: 1200}) as reserved:`.

        Args:
            costs: the estimated units, >= 0, by rate limit; those that are not named take their own `cost`.

        Raises:
            TypeError, ValueError: a cost is of the wrong type or out of range, or a rate limit is none of these.

        `reserved.settle({tokens: 1834})` says what was really used.
        """
        return Reservation(self, {} if costs is None else self.amounts("costs", costs))

    def amounts(self, parameter: str, given: Any) -> dict[Source, float]:
        """Return the units that were given for a reservation. Internal."""
        if not hasattr(given, "items"):
            raise TypeError(f"{parameter} must be a mapping such as {{tokens: 1200}} of rate limits, not {given!r}")
        found: dict[Source, float] = {}
        for limit, units in given.items():
            if limit not in self._limits:
                raise ValueError(f"{parameter} must name rate limits that were given to all_of, not {limit!r}")
            found[limit.source] = validation.number(f"{parameter}[{limit.name}]", units)
        return found

    def describe(self) -> dict[str, Any]:
        """Return kind, name and mode, and the descriptions of the rate limits, as plain data."""
        return {**super().describe(), "limits": [limit.describe() for limit in self._limits]}

    def snapshot(self) -> dict[str, Any]:
        """Return the state: calls `queued` and `rejected`, and the snapshots of the rate limits."""
        return {
            "queued": len(self._waiting),
            "rejected": self._rejected,
            "limits": [limit.snapshot() for limit in self._limits],
        }

    def reset(self) -> None:
        """Reset all the rate limits."""
        self._rejected = 0
        for limit in self._limits:
            limit.reset()

    def _forget_calls(self) -> None:
        super()._forget_calls()
        for limit in self._limits:
            limit._forget_calls()

    def __repr__(self) -> str:
        return f"RateLimit.all_of({', '.join(map(repr, self._limits))})"
