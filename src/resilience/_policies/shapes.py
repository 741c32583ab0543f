"""The five shapes. A policy is pure decisions in one of them; the drivers do the calling, waiting and unwinding.

| shape      | it decides                                            |
|------------|-------------------------------------------------------|
| Gate       | may this call go in, and what does its ending tell    |
| Loop       | is another attempt worth it, and when                 |
| Scope      | until when may what is inside take                    |
| Race       | when does another attempt start beside this one       |
| Substitute | what stands in for a failure                          |

To write a policy, subclass a shape and fill in its hooks. Hooks must not block, sleep, or call out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Generic, Never, Protocol, TypeAlias, TypeVar

from resilience._call.budget import RetryBudget
from resilience._call.call import Call, PipelineInfo
from resilience._call.caller import D_co
from resilience._call.settlement import DeferredSettlement
from resilience._call.wait_queue import Ticket
from resilience._outcome.ending import Ending, EndingKind
from resilience._policies.base import Policy
from resilience._util.clock import FOREVER, clock
from resilience.errors import RejectedError, RejectReason

Token = TypeVar("Token")


class Gate(Policy[Never], Generic[Token]):
    """A policy that lets a call in, or not, and hears how it ended."""

    kind = "gate"
    holds_permit: bool = False
    """Whether a token stands for something that is in use for as long as the work goes on, such as a permit."""

    def admit(self, call: Call) -> Token | Ticket:
        """Let the call in and return a token; or raise a RejectedError; or return a ticket to wait on.

        A ticket that was granted becomes the token.
        """
        raise NotImplementedError

    def on_response_head(self, token: Token | Ticket) -> Token | Ticket:
        """Hear that the head of a streamed result has come; return the token to settle with at its end."""
        return token

    def settle(self, token: Token | Ticket, ending: Ending) -> None:
        """Hear how the call ended: exactly once for each token that `admit` gave and the driver took."""

    def rejection(self, call: Call) -> RejectedError:
        """Return the error for a call whose ticket was not granted in time."""
        return RejectedError(
            f"{self.name} did not let the call in within its longest wait",
            policy=call.pipeline.name_of(self),
            pipeline=call.pipeline.name,
            reason=RejectReason.QUEUE_TIMEOUT,
        )


class RetryState:
    """How one call has fared in a Loop: attempts made, when the first began, the last wait.

    `stamp` is the number of the last given-up mark before the latest attempt (see `given_up`). `payer`: what has paid
    for the next attempt, if anything did. `state`: a place for the loop itself. `shadow`: the loop may only say what it
    would do.
    """

    __slots__ = (
        "_horizon",
        "attempt_number",
        "budget",
        "last_mark",
        "last_wait",
        "shadow",
        "started",
        "strategy_state",
    )

    def __init__(self, started: float, horizon: Callable[[], float], *, shadow: bool = False) -> None:
        self._horizon = horizon
        self.shadow = shadow
        self.budget: RetryBudget | None = None
        self.strategy_state: Any = None
        self.started = started
        self.attempt_number = 0
        self.last_mark = 0
        self.last_wait: float | None = None

    def fits(self, call: Call, wait: float) -> bool:
        """Return whether a wait that begins now ends before the deadline; those of cancel scopes count, too."""
        if wait == 0 and call.deadline == FOREVER:
            return True
        end = clock.monotonic() + wait
        return end < call.deadline and (wait == 0 or end < self._horizon())


OnSuccess: TypeAlias = "Callable[[], object]"
"""What a loop does after each successful attempt."""


class Loop(Policy[Never]):
    """A policy that may have what is inside it called again."""

    kind = "loop"

    def delay(self, call: Call, ending: Ending, series: RetryState) -> float | Awaitable[float | None] | None:
        """Return the seconds to wait before another attempt, 0 for at once; None to let the ending out.

        For awaited calls it may return an awaitable of that.
        `ending.error` is what was raised, `series.number` says how many attempts this loop has made.
        """
        raise NotImplementedError

    def on_attempt_rejected(self, call: Call, ending: Ending, error: Exception, series: RetryState) -> None:
        """Hear that another attempt was wanted but refused further in, so that the earlier `error` comes out."""

    def on_success(self, site: PipelineInfo) -> OnSuccess | None:
        """Return what to run after each successful attempt in this pipeline; None for nothing."""
        del site
        return None


class Scope(Policy[Never]):
    """A policy that bounds the time of what is inside it."""

    kind = "scope"

    @property
    def seconds(self) -> float | None:
        """What it grants, if that is always the same; None where it depends on what is left."""
        return None

    @property
    def thread(self) -> bool:
        """Whether plain calls run on a thread that is left behind when time is up."""
        return False

    def before_thread_call(self, call: Call) -> None:
        """Refuse the call, if too many threads have been left behind."""

    def on_thread_abandoned(self, errand: DeferredSettlement) -> None:
        """Hear that a thread was left behind; `errand` ends when it does."""

    def deadline(self, call: Call, now: float) -> float:
        """Return the point in time at which to cut; both times are of the ambient clock.

        `call.deadline` is the one that is in force around it; a later one than that changes nothing.
        """
        raise NotImplementedError


class RaceState(Protocol):
    """One race: which attempts run, which won."""

    def should_start(self, now: float) -> bool:
        """Return whether to start another attempt now; True counts it as started."""
        ...

    def wait(self, now: float) -> float | None:
        """Return the seconds until the next start is due; None when only completions matter."""
        ...

    def settle(self, attempt: int, ending: Ending, now: float) -> None:
        """Hear how an attempt ended."""
        ...

    @property
    def winner(self) -> int | None:
        """The attempt whose outcome is the call's; None while the race is on."""
        ...


class Race(Policy[Never]):
    """A policy that may run what is inside it several times at once."""

    kind = "race"

    def begin(self, call: Call, now: float) -> RaceState:
        """Start a race for one call."""
        raise NotImplementedError


class Substitute(Policy[D_co]):
    """A policy that puts something in the place of an outcome that is no good."""

    kind = "substitute"

    def should_handle(self, call: Call, ending: Ending) -> bool:
        """Return whether to replace this ending: by default a failure, a rejection or a deadline."""
        del call
        rejected = ending.kind is EndingKind.ABANDONED and isinstance(ending.error, Exception)
        return rejected or ending.failure is not None

    def replace(self, call: Call, ending: Ending) -> Any:
        """Return the value to put in its place; on async calls it may be an awaitable. What it raises comes out."""
        raise NotImplementedError
