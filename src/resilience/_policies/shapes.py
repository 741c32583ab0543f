"""The five shapes. A policy is pure decisions in one of them; the drivers call, wait and unwind.

| shape      | what it decides                                              |
|------------|--------------------------------------------------------------|
| Gate       | whether a call is admitted, and what its ending means        |
| Loop       | whether there is another attempt, and after what delay       |
| Scope      | by when the inside has to end                                |
| Race       | when another attempt starts beside the present one           |
| Substitute | what replaces a failure                                      |

To write a policy, subclass a shape and fill in its hooks. Hooks must not block, sleep, or call the dependency.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Generic, Never, Protocol, TypeAlias, TypeVar

from resilience._call.budget import RetryBudget
from resilience._call.call import Call, PipelineInfo
from resilience._call.caller import D_co
from resilience._call.settlement import DeferredSettlement
from resilience._outcome.ending import Ending, EndingKind
from resilience._policies.base import Policy
from resilience._util.clock import FOREVER, clock
from resilience.errors import RejectedError, RejectReason

Token = TypeVar("Token")


class Gate(Policy[Never], Generic[Token]):
    """A policy that admits a call or rejects it, and is told how the call ended.

    `Token` is what `admit` returns and `settle` gets. A gate with a queue has `Ticket` among its tokens; a gate without
    one never sees a ticket.
    """

    kind = "gate"
    holds_permit: bool = False
    """Whether a token stands for something that is in use until the work has ended, such as a permit."""

    def admit(self, call: Call) -> Token:
        """Admit the call and return a token; or raise a RejectedError; or return a `Ticket` to wait on.

        A ticket that was granted becomes the token.
        """
        raise NotImplementedError

    def on_response_head(self, token: Token) -> Token:
        """Take note that the head of a streamed result has come; return the token to settle at its end."""
        return token

    def settle(self, token: Token, ending: Ending) -> None:
        """Called exactly once for each token that `admit` has returned, with the ending of the call."""

    def rejection(self, call: Call) -> RejectedError:
        """Return the error for a call whose ticket was not granted in time."""
        return RejectedError(
            f"{self.name} did not admit the call within its longest wait",
            policy=call.pipeline.name_of(self),
            pipeline=call.pipeline.name,
            reason=RejectReason.QUEUE_TIMEOUT,
        )


class RetryState:
    """The state of one call in a Loop.

    Attributes:
        started: when the first attempt began, in seconds of the monotonic clock.
        attempt_number: how many attempts this loop has made.
        last_wait: the seconds waited before the latest retry; None before the first.
        budget: the budget that has paid for the next attempt; None where none has.
        last_mark: the number of the last given-up mark before the latest attempt; see `retry_marks`.
        shadow: whether the loop only reports what it would do.
        strategy_state: for the loop itself.
    """

    __slots__ = (
        "_scope_deadline", "attempt_number", "budget", "last_mark", "last_wait", "shadow", "started", "strategy_state",
    )  # fmt: skip

    def __init__(self, started: float, scope_deadline: Callable[[], float], *, shadow: bool = False) -> None:
        self._scope_deadline = scope_deadline
        self.shadow = shadow
        self.budget: RetryBudget | None = None
        self.strategy_state: Any = None
        self.started = started
        self.attempt_number = 0
        self.last_mark = 0
        self.last_wait: float | None = None

    def fits(self, call: Call, wait: float) -> bool:
        """Return whether a wait of so many seconds ends before the deadline, those of cancel scopes included."""
        if wait == 0 and call.deadline == FOREVER:
            return True
        end = clock.monotonic() + wait
        return end < call.deadline and (wait == 0 or end < self._scope_deadline())


OnSuccess: TypeAlias = "Callable[[], object]"
"""What a loop does after each successful attempt."""


class Loop(Policy[Never]):
    """A policy that may have its inside called again."""

    kind = "loop"

    def delay(self, call: Call, ending: Ending, state: RetryState) -> float | Awaitable[float | None] | None:
        """Return the seconds to wait before another attempt, 0 for at once; None to let the ending pass.

        For awaited calls it may return an awaitable of that. `ending.error` is what was raised.
        """
        raise NotImplementedError

    def on_attempt_rejected(self, call: Call, ending: Ending, error: Exception, state: RetryState) -> None:
        """Called when another attempt was rejected by a policy further in, so that the earlier `error` is raised."""

    def on_success(self, info: PipelineInfo) -> OnSuccess | None:
        """Return what to run after each successful attempt in this pipeline; None for nothing."""
        del info
        return None


class Scope(Policy[Never]):
    """A policy that bounds the time of its inside."""

    kind = "scope"

    @property
    def seconds(self) -> float | None:
        """The seconds that it grants, if that is always the same; None where it depends on the time that is left."""
        return None

    @property
    def thread(self) -> bool:
        """Whether plain calls run on a thread that is abandoned when time is up."""
        return False

    def before_thread_call(self, call: Call) -> None:
        """Called before a call is given to a thread; it may raise a RejectedError."""

    def on_thread_abandoned(self, thread: DeferredSettlement) -> None:
        """Called when a thread was abandoned; `thread` ends when the thread does."""

    def deadline(self, call: Call, now: float) -> float:
        """Return the point in time by which the inside has to end; both times are of the monotonic clock.

        `call.deadline` is the deadline in force; a later one than that changes nothing.
        """
        raise NotImplementedError


class RaceState(Protocol):
    """One race: which attempts run, and which has won."""

    def should_start(self, now: float) -> bool:
        """Return whether to start another attempt now; True counts it as started."""
        ...

    def wait(self, now: float) -> float | None:
        """Return the seconds until the next start is due; None when only completions matter."""
        ...

    def settle(self, attempt: int, ending: Ending, now: float) -> None:
        """Called when an attempt has ended."""
        ...

    @property
    def winner(self) -> int | None:
        """The attempt whose outcome is that of the call; None while the race is on."""
        ...


class Race(Policy[Never]):
    """A policy that may run its inside several times at once. No driver exists yet; a pipeline refuses it."""

    kind = "race"

    def begin(self, call: Call, now: float) -> RaceState:
        """Start a race for one call."""
        raise NotImplementedError


class Substitute(Policy[D_co]):
    """A policy that replaces an outcome."""

    kind = "substitute"

    def should_handle(self, call: Call, ending: Ending) -> bool:
        """Return whether to replace this ending: by default a failure, a rejection, or an exceeded deadline."""
        del call
        rejected = ending.kind is EndingKind.ABANDONED and isinstance(ending.error, Exception)
        return rejected or ending.failure is not None

    def replace(self, call: Call, ending: Ending) -> Any:
        """Return the replacement; for awaited calls it may be an awaitable. What it raises is raised to the caller."""
        raise NotImplementedError
