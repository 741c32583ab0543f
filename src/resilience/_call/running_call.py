"""A call as the drivers and integrations see it, with the state that policies do not need."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, ClassVar, Final, NamedTuple, Protocol, TypeVar

from resilience._call.ambient import Ambient, ambient
from resilience._call.call import Call, CallOptions, PipelineInfo
from resilience._call.settlement import DeferredSettlement
from resilience._call.unused import aclose_quietly, close_quietly
from resilience._outcome.ending import OK, Ending
from resilience._outcome.failure import leaves
from resilience._util.clock import FOREVER
from resilience.errors import DeadlineExceededError
from resilience.events._types import TimeoutScope

CallT = TypeVar("CallT", bound="RunningCall")


class DeadlineSource:
    """The source of a deadline: a Timeout, or the deadline that was in force when the call was made.

    Args:
        scope: what the deadline applies to, for events.
        pipeline: the pipeline of the Timeout; None for an inherited deadline.
        policy: the Timeout; None for an inherited deadline.
        seconds: the seconds that the Timeout grants; None if they vary, or for an inherited deadline.
        bounds: what it is, for messages: a deadline, or a limit on a part of a streamed result.

    Attributes:
        bounds_call: whether the deadline applies to the whole call, not to an attempt.
        timer: the timer of the runtime for these deadlines.
    """

    __slots__ = ("__weakref__", "bounds", "bounds_call", "pipeline", "policy", "scope", "seconds", "timer")

    def __init__(
        self,
        scope: TimeoutScope,
        pipeline: PipelineInfo | None = None,
        policy: object = None,
        seconds: float | None = None,
        bounds: str = "deadline",
    ) -> None:
        self.scope = scope
        self.bounds = bounds
        self.pipeline = pipeline
        self.policy = policy
        self.seconds = seconds
        self.bounds_call = scope is not TimeoutScope.ATTEMPT
        self.timer: Any = None


INHERITED = DeadlineSource(TimeoutScope.AMBIENT)
"""The source of ambient deadlines that were in force when the call was made."""
GIVEN = DeadlineSource(TimeoutScope.AMBIENT)
"""The source of deadlines that the caller gave with the call, such as the timeout of an RPC."""
_NOT_JUDGED: Final = (None, None)


class Wakeable(Protocol):
    """An object that threads and tasks can wait for."""

    def add_waker(self, wake: Callable[[], object]) -> bool:
        """Register a callback for the end of the wait, to be called at most once.

        Return False if there is nothing to wait for; the callback may be called all the same.
        """
        ...


class RunningCall(Call):
    """A call that passes through the drivers. Integrations subclass it.

    Attributes:
        deadline_source: the source of `deadline`.
        total_deadline: the deadline of the whole call, a streamed result included, in seconds of the monotonic clock.
        total_deadline_source: the source of `total_deadline`.
        deferred: the settlement of work that continues after the call has returned; None if there is none.
        ending: the ending of the last attempt that raised, for `ending_of`. The entry clears it: otherwise the call
            would keep the exception, and so its frames, alive.
        ambient: what held in the context when the call was made.
        inside: what the latest attempt has set for the code inside of it; None if the function was not called since.
        cancellations: the pending cancellations of the task at the start of the latest attempt, once one was made.
        retries_stopped: whether no further attempt may be made, since the pipeline is drained.
    """

    __slots__ = (
        "_wake", "ambient", "cancellations", "deadline_source", "deferred", "ending", "inside",
        "retries_stopped", "total_deadline", "total_deadline_source",
    )  # fmt: skip

    cancellations: int

    respects_shields: ClassVar[bool] = False
    """Whether the call is not cut inside of a shielded cancel scope of anyio, in which a client cleans up."""

    good: Ending = OK
    """The ending of an attempt that has returned a good value. Integrations set one with a hint of the server."""

    single_attempt: ClassVar[bool] = False
    """Whether the function makes exactly one attempt and does nothing else, such as that of an integration."""

    queued: bool = False
    """Whether the attempt still waits for a resource of the client, such as a pooled connection. If it is cut then, the
    dependency was not called, and the cut is not scored."""

    is_judged: bool = False
    """Whether the result needs no allowlist: it arrives item by item, or an integration has found it good by itself."""

    release_attempt: Callable[[Any], Any] | None = None
    """Releases the resources of the last attempt, such as a connection. It is called with the call before the wait for
    another attempt; for awaited calls it returns an awaitable. It must not raise."""

    def begin(
        self, options: CallOptions, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Set all attributes of a new call."""
        # Not super().begin(): setting its attributes here saves a call for each guarded call.
        self.options = options
        self.pipeline = options.pipeline
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.attempt = 1
        self.calls_made = 0
        around: Ambient = ambient.get()
        if around.outer is None:
            at = around.at
        else:
            around = around.innermost()
            at = around.holding().at
        self.ambient = around
        self.inside: Ambient | None = None
        self.deadline = self.total_deadline = at
        self.deadline_source = self.total_deadline_source = INHERITED
        self.deferred: DeferredSettlement | None = None
        self.ending: Ending | None = None
        self.retries_stopped = False

    def current_deadline(self) -> float:
        """Return `deadline`, or a later one if it was inherited from a call that has ended since."""
        return self.ambient.holding().at if self.deadline_source is INHERITED else self.deadline

    def refresh_deadline(self) -> float:
        """Set `deadline` to the `current_deadline`, after a wait, and return it."""
        self.deadline = self.current_deadline()
        return self.deadline

    def current_total_deadline(self) -> float:
        """Return `total_deadline`, or a later one if it was inherited from a call that has ended since."""
        return self.ambient.holding().at if self.total_deadline_source is INHERITED else self.total_deadline

    def caused_by_deadline(self, error: Exception) -> bool:
        """Return whether an exception that was raised at the deadline or later was caused by the deadline."""
        return all(isinstance(leaf, DeadlineExceededError) for leaf in leaves(error))

    def dispose(self, result: Any) -> None:
        """Release the resources of a result that is not used, such as one of a thread that was abandoned."""
        close_quietly(result)

    async def adispose(self, result: Any) -> None:
        """Release the resources of a result that is not used, in a task."""
        await aclose_quietly(result)

    def copy(self) -> RunningCall:
        """Return a copy, for an attempt that continues independently of the call."""
        return self.copy_state_to(type(self).make(self.options, self.function, self.args, self.kwargs))

    def copy_state_to(self, other: CallT) -> CallT:
        """Copy the state of this call to another one, and return that."""
        other.pipeline = self.pipeline
        other.attempt = self.attempt
        other.calls_made = self.calls_made
        other.deadline = self.deadline
        other.deadline_source = self.deadline_source
        other.total_deadline = self.total_deadline
        other.total_deadline_source = self.total_deadline_source
        return other

    def leave_pipeline(self, outer: PipelineInfo) -> None:
        """Go back to the pipeline around the present one. It judges what is left running by its own allowlist."""
        inner, self.pipeline = self.pipeline, outer
        if self.deferred is not None and inner.failures is not outer.failures:
            self.deferred = self.deferred.judged_by(self.failures)

    def ending_of(self, error: BaseException) -> Ending:
        """Return the ending with an exception, by the allowlist of the pipeline that the call is in.

        It is created once for each exception, and so classified once for all drivers.
        """
        failures = self.pipeline.failures or self.options.failures
        ending = self.ending
        if ending is None or ending.error is not error or ending.allowlist is not failures:
            kind, failure = failures.verdicts.get(error.__class__) or _NOT_JUDGED
            ending = self.ending = Ending(kind, error, failures, failure)
        return ending

    def add_waker(self, wake: Callable[[], object]) -> bool:
        """Register a callback for `stop_retrying`. Return False if that was called already."""
        self._wake: Callable[[], object] | None = wake
        return not self.retries_stopped

    def stop_retrying(self) -> None:
        """End the wait between two attempts, and prevent further attempts."""
        if not self.retries_stopped:
            self.retries_stopped = True
            wake: Callable[[], object] | None = getattr(self, "_wake", None)
            self._wake = None
            if wake is not None:
                with contextlib.suppress(RuntimeError):  # the event loop is closed, or the wait has just ended
                    wake()


class Phases(NamedTuple):
    """The bounds of the parts of a result that arrives bit by bit.

    Attributes:
        first_at: the time until which the first item must have arrived, in seconds of the monotonic clock.
        first_source: the source of that.
        idle: the longest silence before another item, in seconds.
        idle_source: the source of that.
    """

    first_at: float = FOREVER
    first_source: DeadlineSource = INHERITED
    idle: float = FOREVER
    idle_source: DeadlineSource = INHERITED

    def shortened(self, other: Phases) -> Phases:
        """Return the shorter bounds of the two."""
        first = self if self.first_at <= other.first_at else other
        idle = self if self.idle <= other.idle else other
        return Phases(first.first_at, first.first_source, idle.idle, idle.idle_source)

    def after_first(self) -> Phases:
        """Return the bounds once the first item has arrived."""
        return self if self.first_at == FOREVER else self._replace(first_at=FOREVER)


UNPHASED: Final = Phases()
"""No bounds."""


class PhasedCall(RunningCall):
    """A call whose result may arrive bit by bit.

    Attributes:
        phases: the bounds of its parts.
        shadow_phases: those of Timeouts in shadow mode, which are reported only.
    """

    __slots__ = ("phases", "shadow_phases")

    def begin(
        self, options: CallOptions, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Set all attributes of a new call."""
        super().begin(options, function, args, kwargs)
        self.phases = self.shadow_phases = UNPHASED

    def copy_state_to(self, other: CallT) -> CallT:
        """Copy the state of this call to another one, and return that."""
        if isinstance(other, PhasedCall):
            other.phases, other.shadow_phases = self.phases, self.shadow_phases
        return super().copy_state_to(other)


class StreamedCall(PhasedCall):
    """A call whose result arrives item by item, and whose attempt ends with the first one."""

    __slots__ = ()

    is_judged = True
