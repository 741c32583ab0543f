"""The silences of a result that arrives bit by bit, and its first item: what `first` and `idle` of a Timeout bound."""

from __future__ import annotations

from resilience._call import deadline_errors
from resilience._call.running_call import UNPHASED, DeadlineSource, PhasedCall, Phases
from resilience._util.clock import FOREVER, clock
from resilience.events._types import Mode


class Silences:
    """The bounds of the silences of one result, such as the body of a response. Its head counts as an item.

    Args:
        call: the call, while it makes the attempt.
        has_first: whether the first item has arrived.

    Attributes:
        until: the time until which the item that is waited for must arrive; in the past, after one was too late.
        source: the source of that.
    """

    __slots__ = ("_asked", "_bounds", "_call", "_reported", "source", "until")

    def __init__(self, call: PhasedCall, *, has_first: bool = False) -> None:
        self._call = call
        self._bounds = call.phases.after_first() if has_first else call.phases
        self._reported = call.shadow_phases.after_first() if has_first else call.shadow_phases
        self._asked = FOREVER
        self.until = FOREVER
        self.source = self._bounds.idle_source

    def begin(self) -> float:
        """Begin to wait for an item, and return the time until which it must arrive."""
        self._asked = clock.monotonic()
        self.until, self.source = _bound(self._bounds, self._asked)
        return self.until

    def end(self) -> None:
        """End the wait for an item, which has arrived."""
        now = clock.monotonic()
        if now < self.until:
            self.until = FOREVER
        at, source = _bound(self._reported, self._asked)
        if now >= at:
            self._reported = UNPHASED
            deadline_errors.publish(self._call, source, mode=Mode.SHADOW)
        self._bounds = self._bounds.after_first()
        self._reported = self._reported.after_first()

    def exceeded(self) -> DeadlineSource | None:
        """Return the source of the bound that was exceeded; None if none was."""
        return self.source if clock.monotonic() >= self.until else None


def _bound(phases: Phases, asked: float) -> tuple[float, DeadlineSource]:
    """Return the time until which an item must arrive that is waited for since then, and the source of that."""
    at = asked + phases.idle
    return (phases.first_at, phases.first_source) if phases.first_at <= at else (at, phases.idle_source)
