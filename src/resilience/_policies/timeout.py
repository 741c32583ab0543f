"""Timeout: limit the time of a call, or of each attempt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from resilience._call.call import Call
from resilience._call.settlement import DeferredSettlement
from resilience._policies.phases import PhasedScope
from resilience._util import validation
from resilience._util.clock import FOREVER
from resilience._util.values import Value
from resilience.errors import BulkheadFullError, RejectReason
from resilience.events._types import Mode, ModeName


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TimeoutSettings(Value):
    """The settings of a Timeout; `Timeout` describes each."""

    seconds: float | None
    first: float | None
    idle: float | None
    share: float | None
    reserve: float
    thread: bool
    max_abandoned: int

    def __post_init__(self) -> None:
        """Validate the settings; `seconds`, `first` and `idle` become floats."""
        if self.seconds is None and self.share is None and self.first is None and self.idle is None:
            raise ValueError(
                "seconds must be a number > 0, or None together with share=, first= or idle=; None does not mean for "
                "ever"
            )
        for name in ("seconds", "first", "idle"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, validation.number(name, getattr(self, name), above=True))
        if self.share is not None:
            validation.number("share", self.share, above=True, high=1.0)
        validation.number("reserve", self.reserve)
        validation.flag("thread", self.thread)
        validation.integer("max_abandoned", self.max_abandoned, low=1)

    @property
    def is_plain(self) -> bool:
        """Whether each call gets `seconds`, whatever remains of an outer deadline."""
        return self.share is None and self.reserve == 0


class Timeout(PhasedScope):
    """Limit the time of the whole call if it is outside a Retry, and of each attempt if it is inside.

    Args:
        seconds: the timeout in seconds, > 0. None: only `share`, `first` and `idle` limit the time.
        first: the longest time to the first item of a streamed result, in seconds, > 0; None for no such limit.
        idle: the longest silence of a streamed result before another item, in seconds, > 0; None for no such limit.
            A silence of a plain generator cannot be cut; its next item comes late, and is the last one.
        share: the greatest part of the remaining time that the calls inside may take, in (0, 1]; None for all of it.
        reserve: the seconds of the remaining time to leave for what follows, such as a fallback; >= 0.
        thread: whether to run plain functions on a thread of their own, with the caller's context variables, which is
            abandoned at the deadline; with `acall`, too, so that they do not block the event loop. If False, a plain
            function cannot be stopped: a value that it returns after the deadline is returned to the caller, and scored
            as timed out.
        max_abandoned: the number of abandoned threads, >= 1, from which on calls are rejected with a
            `BulkheadFullError` of reason "abandoned_full". Calls that are running already may exceed it; an outer
            Bulkhead limits the sum.
        name: see `Policy`.
        mode: see `Policy`. In shadow mode, a call that would have been ended at the deadline is reported, and so are a
            late first item and the first long silence.

    Raises:
        TypeError: a parameter is of the wrong type.
        ValueError: a parameter is out of range, or `seconds`, `share`, `first` and `idle` are all None.

    At the deadline an awaited call is cancelled, and `DeadlineExceededError` is raised. An inner Timeout can shorten
    the deadline of an outer one, but not extend it. Within one pipeline only the innermost Timeout cancels, at the
    earliest deadline. `share` and `reserve` have no effect if no deadline is in force yet.

    A streamed result is that of a guarded generator function, whose items are what it yields, or the body of a response
    through an httpx client, whose items are the head of the response and the chunks of the body; the first one that
    counts for `first` is a chunk. Outside a Retry, `seconds` bounds all of it; inside, the time up to the first item of
    a generator, or the head of a response. `first` and `idle` have no effect on other results.
    """

    kind = "timeout"
    _shares_state = True
    settings: TimeoutSettings

    def __init__(
        self,
        seconds: float | None,
        *,
        first: float | None = None,
        idle: float | None = None,
        share: float | None = None,
        reserve: float = 0.0,
        thread: bool = False,
        max_abandoned: int = 32,
        name: str | None = None,
        mode: ModeName = Mode.ENFORCE,
    ) -> None:
        settings = TimeoutSettings(
            seconds=seconds,
            first=first,
            idle=idle,
            share=share,
            reserve=reserve,
            thread=thread,
            max_abandoned=max_abandoned,
        )
        super().__init__(settings, name=name, mode=mode)
        self._abandoned: dict[object, None] = {}

    def deadline(self, call: Call, now: float) -> float:
        """Return the deadline of the calls inside, in seconds of the library's monotonic clock."""
        settings = self.settings  # once, since `update` may replace them meanwhile
        at = now + (FOREVER if settings.seconds is None else settings.seconds)
        if settings.is_plain or call.deadline == FOREVER:
            return at
        left = call.deadline - now - settings.reserve
        return min(at, now + max(0.0, left) * (settings.share or 1.0))

    @property
    def seconds(self) -> float | None:
        """The timeout in seconds, if it is the same for each call; None with `share` or `reserve`."""
        settings = self.settings
        return settings.seconds if settings.is_plain else None

    @property
    def first(self) -> float | None:
        """The longest time to the first item of a streamed result, in seconds; None for no such limit."""
        return self.settings.first

    @property
    def idle(self) -> float | None:
        """The longest silence of a streamed result, in seconds; None for no such limit."""
        return self.settings.idle

    @property
    def _expected_seconds(self) -> float | None:
        """The longest time that it allows, in seconds; None if only `share` limits the time."""
        return self.settings.seconds

    @property
    def _holds_state(self) -> bool:
        return self.thread or type(self) is not Timeout

    @property
    def thread(self) -> bool:
        """Whether plain calls run on a thread of their own, which is abandoned at the deadline."""
        return self.settings.thread

    @property
    def abandoned(self) -> int:
        """The number of abandoned threads that are still running."""
        return len(self._abandoned)

    def before_thread_call(self, call: Call) -> None:
        """Reject the call if `max_abandoned` threads are abandoned and still running.

        Raises:
            BulkheadFullError: with reason "abandoned_full".
        """
        max_abandoned = self.settings.max_abandoned
        if len(self._abandoned) >= max_abandoned:
            raise BulkheadFullError(
                f"{call.operation} was not called: {self.abandoned} earlier calls still run in abandoned threads "
                f"(max_abandoned={max_abandoned}); find out what they wait for",
                policy=call.pipeline.name_of(self),
                pipeline=call.pipeline.name,
                reason=RejectReason.ABANDONED_FULL,
            )

    def on_thread_abandoned(self, thread: DeferredSettlement) -> None:
        """Count an abandoned thread until it ends."""
        key = object()
        self._abandoned[key] = None
        thread.add(lambda _: self._abandoned.pop(key, None))

    def _forget_calls(self) -> None:
        self._abandoned = {}

    def snapshot(self) -> dict[str, Any]:
        """Return `abandoned`, the number of abandoned threads that are still running; empty unless `thread` is True."""
        return {"abandoned": self.abandoned} if self.thread else {}
