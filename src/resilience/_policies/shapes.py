"""The five shapes of policies. A policy only makes decisions; the drivers call, wait, and settle.

| shape      | what it decides                                              |
|------------|--------------------------------------------------------------|
| Gate       | whether a call is admitted, and what its ending means        |
| Loop       | whether there is another attempt, and after what delay       |
| Scope      | the deadline of the calls inside                             |
| Race       | when another attempt starts in parallel to the current one   |
| Substitute | what replaces a failure                                      |

To write a policy, subclass a shape and override its hooks. Hooks must not block, sleep, or call the dependency.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Generic, NamedTuple, Never, Protocol, Self, TypeAlias, TypeVar

from resilience._call.block import Block
from resilience._call.budget import RetryBudget
from resilience._call.call import Call, PipelineInfo
from resilience._call.caller import D_co
from resilience._call.entry import RetryAttempt
from resilience._call.keyed import Keyed
from resilience._call.retry_state import RetryState
from resilience._call.settlement import DeferredSettlement
from resilience._call.wait_queue import Ticket
from resilience._outcome.ending import Ending, EndingKind
from resilience._policies.base import Policy
from resilience.errors import RejectedError, RejectReason, UsageError
from resilience.events._policy_types import HedgeResult

Token = TypeVar("Token")


class Gate(Policy[Never], Generic[Token]):
    """A policy that admits or rejects each call, and is called again with the ending of the calls it admitted.

    `Token` is the type that `admit` returns and `settle` receives. It includes `Ticket` for a gate with a queue; a gate
    without a queue has no tickets.
    """

    kind = "gate"
    holds_permit: bool = False
    """Whether a token is a resource that stays in use until the work has ended, such as a permit."""
    ticket_class: type[Ticket] = Ticket
    """The class of the tickets that `admit` returns."""

    def admit(self, call: Call) -> Token:
        """Admit the call and return a token, or return a `Ticket` on which the driver waits.

        A ticket that is granted becomes the token.

        Raises:
            RejectedError: the call is not admitted.
        """
        raise NotImplementedError

    def on_response_head(self, token: Token) -> Token:
        """Called when the head of a streamed result has arrived; return the token to settle at its end."""
        return token

    def settle(self, token: Token, ending: Ending) -> None:
        """Called exactly once for each token that `admit` has returned, with the ending of the call."""

    def rejection(self, call: Call) -> RejectedError:
        """Return the error to raise for a call whose ticket was not granted before `ticket.until`."""
        return RejectedError(
            f"{self.name} did not admit the call within its longest wait",
            policy=call.pipeline.name_of(self),
            pipeline=call.pipeline.name,
            reason=RejectReason.QUEUE_TIMEOUT,
        )

    def calling(self) -> Block[Self]:
        """Return a guard for one block: `with gate.calling():`, or `async with` where it may wait in a task."""
        return Block(self)

    def __enter__(self) -> Self:
        raise UsageError(f"`with {self.name}:` cannot tell its blocks apart; use `with {self.name}.calling():`")

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Never called: `__enter__` raises."""

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Never called: `__aenter__` raises."""


OnSuccess: TypeAlias = "Callable[[], object]"
"""Called after each successful attempt."""


class Loop(Policy[Never]):
    """A policy that may repeat what is inside it."""

    kind = "loop"

    def delay(self, call: Call, ending: Ending, state: RetryState) -> float | Awaitable[float | None] | None:
        """Return the seconds to wait before another attempt, >= 0; None for no other attempt.

        With None, the exception is raised to the caller. For awaited calls, the result may be an awaitable.

        Args:
            call: the call.
            ending: how the attempt ended; `ending.error` is the exception.
            state: the state of this call in this loop.
        """
        raise NotImplementedError

    def on_attempt_rejected(self, call: Call, ending: Ending, error: Exception, state: RetryState) -> None:
        """Called when the next attempt is not made, so that `error` is raised, the last real failure.

        Args:
            call: the call.
            ending: how the attempt ended: a rejection by an inner policy or a passed deadline. If the pipeline is being
                drained, no attempt was tried, and `ending.error` is None.
            error: the failure of the last attempt that was made.
            state: the state of this call in this loop.
        """

    def on_success(self, info: PipelineInfo) -> OnSuccess | None:
        """Return a function to call after each successful attempt in this pipeline; None for no function."""
        del info
        return None

    def budgets(self, info: PipelineInfo) -> Keyed[RetryBudget] | None:
        """Return the Partition of budgets in which each success is deposited; None if there is none."""
        del info
        return None

    def __iter__(self) -> Iterator[RetryAttempt]:
        """Repeat a block of code: `for attempt in retry: with attempt: ...`."""
        entry, options = self.entry()
        return iter(entry.retry_block(self, options))

    def __aiter__(self) -> AsyncIterator[RetryAttempt]:
        """Repeat a block in a task: `async for attempt in retry: async with attempt: ...`."""
        entry, options = self.entry()
        return aiter(entry.retry_block(self, options))


class Scope(Policy[Never]):
    """A policy that sets a deadline for what is inside it."""

    kind = "scope"

    @property
    def seconds(self) -> float | None:
        """The timeout in seconds, if it is the same for each call; None if `deadline` computes it for each call."""
        return None

    @property
    def thread(self) -> bool:
        """Whether plain calls run on a thread of their own, which is abandoned at the deadline."""
        return False

    def before_thread_call(self, call: Call) -> None:
        """Called before a call is run on a thread of its own.

        Raises:
            RejectedError: the call is not to be run.
        """

    def on_thread_abandoned(self, thread: DeferredSettlement) -> None:
        """Called when a thread is abandoned; functions added to `thread` are called when the thread ends."""

    def deadline(self, call: Call, now: float) -> float:
        """Return the deadline of what is inside, in seconds of the library's monotonic clock.

        Args:
            call: the call; `call.deadline` is the deadline in force, and a later one than that has no effect.
            now: the current time on the same clock.
        """
        raise NotImplementedError


class RaceState(Protocol):
    """The state of one race: the attempts that run, and the winner. Attempts are numbered from 1."""

    def should_start(self, now: float) -> bool:
        """Return whether to start another attempt now; if True, it counts as started.

        Args:
            now: the current time on the library's monotonic clock, in seconds.
        """
        ...

    def wait(self, now: float) -> float | None:
        """Return the seconds from `now` until the next attempt is due; None if no other attempt is to be started."""
        ...

    def settle(self, attempt: int, ending: Ending, now: float) -> None:
        """Called when an attempt has ended.

        Args:
            attempt: the number of the attempt.
            ending: how it ended.
            now: the current time on the library's monotonic clock, in seconds.
        """
        ...

    def cancelled(self, attempt: int, now: float) -> None:
        """Called at the time `now` when an attempt was cancelled, since another one has won."""
        ...

    @property
    def winner(self) -> int | None:
        """The number of the attempt whose outcome is that of the call; None while the race goes on."""
        ...

    @property
    def result(self) -> HedgeResult | None:
        """What came of the further attempts; None if none was due."""
        ...


class Race(Policy[Never]):
    """A policy that may run what is inside it several times in parallel."""

    kind = "race"

    def begin(self, call: Call, now: float, permitted: Callable[[], bool]) -> RaceState | None:
        """Return the state of a new race for one call; None to make the call once, as without the policy.

        Args:
            call: the call.
            now: the time at which it begins, in seconds of the library's monotonic clock.
            permitted: returns whether the policies inside permit a further attempt, such as an open breaker does not.
        """
        raise NotImplementedError

    def on_success(self, info: PipelineInfo) -> OnSuccess | None:
        """Return a function to call after each successful call in this pipeline; None for no function."""
        del info
        return None

    def budgets(self, info: PipelineInfo) -> Keyed[RetryBudget] | None:
        """Return the Partition of budgets in which each success is deposited; None if there is none."""
        del info
        return None


class Fault(NamedTuple):
    """A fault that an Injector injects.

    Attributes:
        latency: the delay before it, in seconds, >= 0.
        error: the exception to raise; None to raise none.
        has_result: whether `result` is returned in place of what is inside.
        result: the value to return.
    """

    latency: float = 0.0
    error: Exception | None = None
    has_result: bool = False
    result: Any = None


class Injector(Policy[Never]):
    """A policy that injects faults in place of what is inside it; for tests and drills, see `Chaos`."""

    kind = "injector"

    def inject(self, call: Call) -> Fault | None:
        """Return the fault for a call; None for none."""
        raise NotImplementedError


class Substitute(Policy[D_co]):
    """A policy that replaces the outcome of a failed call."""

    kind = "substitute"

    def should_handle(self, call: Call, ending: Ending) -> bool:
        """Return whether to replace this ending.

        By default it is replaced if the policy's own allowlist lists its exception; without one, if it is a failure, a
        rejection or an exceeded deadline.
        """
        del call
        own = self.failures
        if own is not None:
            return ending.error is not None and own.lists(ending.error)
        rejected = ending.kind is EndingKind.ABANDONED and isinstance(ending.error, Exception)
        return rejected or ending.failure is not None

    def on_result(self, call: Call, result: Any) -> None:
        """Called with each good result that is not a stream."""

    def age(self, call: Call) -> float | None:
        """Return the age in seconds of the replacement for a call, for the event; None if it is no earlier result."""
        del call
        return None

    def replace(self, call: Call, ending: Ending) -> Any:
        """Return the replacement; for awaited calls it may be an awaitable. An exception is raised to the caller."""
        raise NotImplementedError
