"""Timeout: until when a call, or one attempt of it, may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from resilience._call.call import Call
from resilience._call.settlement import DeferredSettlement
from resilience._policies.shapes import Scope
from resilience._util import validation
from resilience._util.clock import FOREVER
from resilience.errors import BulkheadFullError, RejectReason
from resilience.events._types import Mode, ModeName


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeoutSettings:
    """What a Timeout goes by; see there."""

    seconds: float | None
    share: float | None
    reserve: float
    thread: bool
    max_abandoned: int

    def __post_init__(self) -> None:
        """Check everything."""
        if self.seconds is None and self.share is None:
            raise ValueError("seconds must be a number > 0, or None together with share=; None does not mean for ever")
        if self.seconds is not None:
            object.__setattr__(self, "seconds", validation.number("seconds", self.seconds, above=True))
        if self.share is not None:
            validation.number("share", self.share, above=True, high=1.0)
        validation.number("reserve", self.reserve)
        validation.flag("thread", self.thread)
        validation.integer("max_abandoned", self.max_abandoned, low=1)


class Timeout(Scope):
    """Bound the time: of the whole call where it stands outside a Retry, of each attempt where it stands inside.

    Args:
        seconds: the time, > 0. None: only `share` bounds it.
        share: the part of the remaining time, in (0, 1], that what is inside may take at most.
        reserve: seconds >= 0 of the remaining time to leave for what comes after, such as a fallback.
        thread: run plain calls on a worker thread (context variables included), and leave it behind when time is up.
            Without it nobody can stop a plain function: its late value is returned, and scored as timed out.
        max_abandoned: once so many threads are left behind, >= 1, calls are refused with a BulkheadFullError. Those
            that run already may add to them; a Bulkhead further out bounds the sum.
        name: see `Policy`.
        mode: see `Policy`; in shadow mode a call that would have been cut is reported.

    Raises:
        TypeError, ValueError: a parameter of the wrong type or out of range.

    An awaited call is cancelled at the deadline, and `DeadlineExceededError` is raised. Deadlines only shrink on
    their way in, and only one cut per pipeline is open at a time. `share` and `reserve` change nothing where no
    deadline is in force yet.
    """

    kind = "timeout"
    settings: TimeoutSettings

    def __init__(
        self,
        seconds: float | None,
        *,
        share: float | None = None,
        reserve: float = 0.0,
        thread: bool = False,
        max_abandoned: int = 32,
        name: str | None = None,
        mode: ModeName = Mode.ENFORCE,
    ) -> None:
        super().__init__(
            TimeoutSettings(seconds=seconds, share=share, reserve=reserve, thread=thread, max_abandoned=max_abandoned),
            name=name,
            mode=mode,
        )
        self._abandoned: dict[object, None] = {}
        self._settings_changed()

    def _settings_changed(self) -> None:
        """Keep at hand what each call needs."""
        settings = self.settings
        self._seconds = FOREVER if settings.seconds is None else settings.seconds
        self._plain = settings.share is None and settings.reserve == 0

    def deadline(self, call: Call, now: float) -> float:
        """Return the point in time at which to cut."""
        at = now + self._seconds
        if self._plain or call.deadline == FOREVER:
            return at
        left = call.deadline - now - self.settings.reserve
        return min(at, now + max(0.0, left) * (self.settings.share or 1.0))

    @property
    def seconds(self) -> float | None:
        """What it grants, if that is always the same."""
        return self.settings.seconds if self._plain else None

    @property
    def _expected_seconds(self) -> float | None:
        """What it grants at most."""
        return self.settings.seconds

    @property
    def thread(self) -> bool:
        """Whether plain calls run on a thread that is left behind when time is up."""
        return self.settings.thread

    @property
    def abandoned(self) -> int:
        """How many threads that were left behind still run."""
        return len(self._abandoned)

    def before_thread_call(self, call: Call) -> None:
        """Refuse the call, if too many threads have been left behind."""
        if len(self._abandoned) >= self.settings.max_abandoned:
            raise BulkheadFullError(
                f"{call.operation} was not called: {self.abandoned} earlier calls hang in threads that were left "
                f"behind (max_abandoned={self.settings.max_abandoned}); find out what they wait for",
                policy=call.pipeline.name_of(self),
                pipeline=call.pipeline.name,
                reason=RejectReason.ABANDONED_FULL,
            )

    def on_thread_abandoned(self, thread: DeferredSettlement) -> None:
        """Count an abandoned thread until it ends."""
        place = object()
        self._abandoned[place] = None
        thread.add(lambda _: self._abandoned.pop(place, None))

    def snapshot(self) -> dict[str, Any]:
        """Return how many threads that were left behind still run."""
        return {"abandoned": self.abandoned} if self.thread else {}
