"""A call as the drivers and integrations see it: with the state that policies have no use for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, ClassVar, Final, Protocol, TypeVar

from resilience._call.call import Call, CallOptions, PipelineInfo
from resilience._call.settlement import DeferredSettlement
from resilience._outcome.ending import Ending
from resilience._outcome.failure import leaves
from resilience._util.clock import ambient_deadline
from resilience.errors import DeadlineExceededError
from resilience.events._types import TimeoutScope

CallT = TypeVar("CallT", bound="RunningCall")


class DeadlineSource:
    """Where a deadline comes from: a Timeout of some pipeline, or what was in force when the call was made.

    Args:
        scope: what events call it.
        pipeline: the pipeline of the Timeout; None for an inherited deadline.
        policy: the Timeout.
        seconds: the seconds that it grants in all; None where that varies.

    `timer` is for the runtime, which keeps there what watches these deadlines.
    """

    __slots__ = ("__weakref__", "bounds_call", "pipeline", "policy", "scope", "seconds", "timer")

    def __init__(
        self,
        scope: TimeoutScope,
        pipeline: PipelineInfo | None = None,
        policy: object = None,
        seconds: float | None = None,
    ) -> None:
        self.scope = scope
        self.pipeline = pipeline
        self.policy = policy
        self.seconds = seconds
        self.bounds_call = scope is not TimeoutScope.ATTEMPT
        self.timer: Any = None


INHERITED = DeadlineSource(TimeoutScope.AMBIENT)
_NOT_JUDGED: Final = (None, None)


class Wakeable(Protocol):
    """Something to wait for."""

    def add_waker(self, wake: Callable[[], object]) -> bool:
        """Remember `wake`, and call it at most once; False: there is nothing to wait for, and yet it may be called."""
        ...


class RunningCall(Call):
    """A call on its way through the drivers. Integrations subclass it.

    Attributes:
        calls_made: how often the function was called.
        deadline_source: where `deadline` comes from.
        total_deadline: the deadline of the whole call, a streamed result included.
        total_deadline_source: where that comes from.
        deferred: what settles the gates when work ends that the call has left running; None where it left none.
        ending: the ending of the last attempt that raised, judged once for all drivers that the exception passes; see
            `ending_of`. The entry point clears it: a call that kept an exception would keep its frames.
        entry_deadline: the ambient deadline when the call was made.
        retries_stopped: no further attempt must be made, since the pipeline is drained.
    """

    __slots__ = (
        "_wake", "calls_made", "deadline_source", "deferred", "ending", "entry_deadline", "retries_stopped",
        "total_deadline", "total_deadline_source",
    )  # fmt: skip

    cancel_via_anyio: ClassVar[bool] = False
    """Whether a task is cut by a cancel scope of anyio, for a client that shields its clean-up with one."""

    single_attempt: ClassVar[bool] = False
    """Whether the function makes one attempt and does nothing else, as that of an integration."""

    release_attempt: Callable[[], Any] | None = None
    """Releases what the last attempt holds, such as a connection. It is called once another attempt is decided on,
    before the wait; for awaited calls it returns an awaitable. It must not raise."""

    def __init__(
        self, options: CallOptions, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        # Everything that `Call` sets is set here: one call less for each guarded call.
        self.options = options
        self.pipeline = options.pipeline
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.attempt = 1
        self.calls_made = 0
        self.deadline = self.total_deadline = self.entry_deadline = ambient_deadline.get()
        self.deadline_source = self.total_deadline_source = INHERITED
        self.deferred: DeferredSettlement | None = None
        self.ending: Ending | None = None
        self.retries_stopped = False

    @property
    def queued(self) -> bool:
        """Whether this attempt still waits for a resource of the client, such as a pooled connection.

        When it is cut then, nothing was called, and the cut is not scored.
        """
        return False

    def caused_by_deadline(self, error: Exception) -> bool:
        """Return whether an exception that came at the deadline or later was caused by the deadline."""
        return all(isinstance(leaf, DeadlineExceededError) for leaf in leaves(error))

    def dispose(self, result: Any) -> None:
        """Release a result that arrived after its thread was abandoned."""

    def copy(self) -> RunningCall:
        """Return a copy, for an attempt that continues on its own."""
        return self.copy_state_to(RunningCall(self.options, self.function, self.args, self.kwargs))

    def copy_state_to(self, other: CallT) -> CallT:
        """Give another call the state of this one, and return it."""
        other.pipeline = self.pipeline
        other.attempt = self.attempt
        other.calls_made = self.calls_made
        other.deadline = self.deadline
        other.deadline_source = self.deadline_source
        other.total_deadline = self.total_deadline
        other.total_deadline_source = self.total_deadline_source
        return other

    def ending_of(self, error: BaseException) -> Ending:
        """Return the ending that an exception is in the pipeline that the call is in; the same for all drivers."""
        failures = self.pipeline.failures or self.options.failures
        ending = self.ending
        if ending is None or ending.error is not error or ending.allowlist is not failures:
            kind, failure = failures.verdicts.get(error.__class__) or _NOT_JUDGED
            ending = self.ending = Ending(kind, error, failures, failure)
        return ending

    def add_waker(self, wake: Callable[[], object]) -> bool:
        """Wait for `stop_retrying`; False when that has happened already."""
        self._wake: Callable[[], object] | None = wake
        return not self.retries_stopped

    def stop_retrying(self) -> None:
        """End the wait between two attempts, now and in the future."""
        if not self.retries_stopped:
            self.retries_stopped = True
            wake: Callable[[], object] | None = getattr(self, "_wake", None)
            self._wake = None
            if wake is not None:
                with contextlib.suppress(RuntimeError):  # its event loop is closed, or it has just woken by itself
                    wake()
