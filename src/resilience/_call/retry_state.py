"""The state of one call in a Loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from resilience._call.ambient import NOTHING, Ambient
from resilience._call.budget import RetryBudget
from resilience._call.call import Call
from resilience._util.clock import FOREVER, clock


class RetryState:
    """The state of one call in a Loop, comparable to tenacity's RetryCallState.

    Attributes:
        started: the time at which the first attempt began, in seconds of the library's monotonic clock.
        attempt_number: the number of attempts that this loop has made, >= 1 when `delay` is called.
        last_wait: the seconds waited before the latest retry; None before the first retry.
        budget: the budget from which a token for the next attempt was withdrawn; None if none was.
        inside: what the code inside of the latest attempt knew by its context.
        cancellations: the pending cancellations of the task at the start of the first attempt; None if not known yet.
        shadow: whether the loop only reports what it would do.
        settings: the settings of the loop when the chain of the call was composed, by which it ends; None if unknown.
        strategy_state: free for use by the policy; None at first.
    """

    __slots__ = (
        "_scope_deadline", "attempt_number", "budget", "cancellations", "inside", "last_wait", "settings", "shadow",
        "started", "strategy_state",
    )  # fmt: skip

    def __init__(
        self,
        started: float,
        scope_deadline: Callable[[], float],
        *,
        shadow: bool = False,
        settings: Any = None,
    ) -> None:
        self._scope_deadline = scope_deadline
        self.shadow = shadow
        self.settings = settings
        self.budget: RetryBudget | None = None
        self.strategy_state: Any = None
        self.started = started
        self.attempt_number = 0
        self.inside: Ambient = NOTHING
        self.cancellations: int | None = None
        self.last_wait: float | None = None

    def fits(self, call: Call, wait: float) -> bool:
        """Return whether a wait of `wait` seconds ends before all deadlines, those of cancel scopes included."""
        if wait == 0 and call.deadline == FOREVER:
            return True
        end = clock.monotonic() + wait
        return end < call.deadline and (wait == 0 or end < self._scope_deadline())
