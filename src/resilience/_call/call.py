"""One call, as the policies see it, and the pipeline and the call site that it belongs to."""

from __future__ import annotations

import contextlib
import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

from resilience._call.budget import RetryBudget
from resilience._call.settlement import DeferredSettlement
from resilience._outcome.allowlist import Allowlist, leaves
from resilience._outcome.network_errors import NETWORK_ERRORS
from resilience._util.clock import ambient_deadline, clock
from resilience.errors import DeadlineExceededError
from resilience.events._bus import Bus, Subscription, deliver
from resilience.events._types import Event, TimeoutScope


class PipelineInfo:
    """What a policy knows of the pipeline it stands in: the name, the failures, the budget, the listeners.

    `failures` is None where the pipeline was given none: then those of the call site count.
    """

    __slots__ = ("__weakref__", "budget", "bus", "failures", "name", "names", "shortest_timeout")

    def __init__(self, name: str, failures: Allowlist | None, budget: RetryBudget | None, bus: Bus) -> None:
        self.name = name
        self.failures = failures
        self.budget = budget
        self.bus = bus
        self.names: dict[int, str] = {}
        self.shortest_timeout: float | None = None
        """Seconds that the shortest Timeout gives an attempt; else what a breaker calls slow; None: nobody says."""

    def name_of(self, policy: object) -> str:
        """Return the name that a policy has in this pipeline."""
        return self.names.get(id(policy), "")

    def publish(self, kind: type[Event], policy: object, call: Call, **facts: Any) -> None:
        """Tell the listeners what a policy did to a call."""
        if wanting := self.bus.listeners_for(kind):
            self.publish_to(wanting, kind, policy, call, **facts)

    def publish_to(
        self, wanting: Sequence[Subscription], kind: type[Event], policy: object, call: Call, **facts: Any
    ) -> None:
        """Tell those whom `bus.heard` has named, for who puts the facts together only if somebody wants them."""
        event = kind(
            at=clock.monotonic(),
            pipeline=self.name,
            policy=self.name_of(policy),
            operation=call.operation,
            target=call.target,
            **facts,
        )
        deliver(event, wanting)


class CallOptions:
    """What is known about the calls of one call site before they are made.

    `idempotent` says whether repeating a call does no harm: True, False, or None for unknown. `failures` are those of
    an integration, such as HTTP's; they count in pipelines that were given none of their own.
    """

    __slots__ = ("failures", "idempotent", "operation", "pipeline", "target")

    def __init__(
        self,
        site: PipelineInfo,
        operation: str | None = None,
        target: str | None = None,
        idempotent: bool | None = None,
        failures: Allowlist = NETWORK_ERRORS,
    ) -> None:
        self.failures = failures
        self.pipeline = site
        self.operation = operation
        self.target = target
        self.idempotent = idempotent


class DeadlineSource:
    """Whose deadline is in force: a scope's in some pipeline, or one that was there when the call came in.

    `word` is what events call it; `seconds` is what it grants in all, None where that varies. `timer` is a place for
    the runtime to keep what watches the time.
    """

    __slots__ = ("__weakref__", "pipeline", "policy", "scope", "seconds", "timer")

    def __init__(
        self, word: TimeoutScope, site: PipelineInfo | None = None, scope: object = None, seconds: float | None = None
    ) -> None:
        self.scope = word
        self.pipeline = site
        self.policy = scope
        self.seconds = seconds
        self.timer: Any = None


INHERITED = DeadlineSource(TimeoutScope.AMBIENT)


class Wakeable(Protocol):
    """Something to wait for: it takes a callable that ends the wait."""

    def add_waker(self, wake: Callable[[], object]) -> bool:
        """Remember `wake`, and call it once at most; False: nothing to wait for, though it may yet be called."""
        ...


class Call:
    """One logical call: what is called with what, which attempt it is, and until when it may take.

    `attempt` counts from 1, `made` says how often the function was called. `deadline` is a point in time of the
    ambient clock, `limit` says whose it is; `whole` and `whose_whole` are those of the whole call, a streamed result
    included. `site` is the pipeline that the call is in at the moment. `interrupted`: it must not be retried any
    more, since its pipeline is being drained. It never holds an exception: the cycle would keep the user's frames
    alive.
    """

    __slots__ = (
        "__weakref__",
        "_nap",
        "args",
        "attempt",
        "calls_made",
        "deadline",
        "deadline_source",
        "deferred",
        "entry_deadline",
        "function",
        "kwargs",
        "options",
        "pipeline",
        "retries_stopped",
        "total_deadline",
        "total_deadline_source",
    )  # fmt: skip

    cancel_via_anyio: ClassVar[bool] = False
    """Whether a task is to be cut by a cancel scope of anyio: a client that shields its clean-up with one needs it."""

    single_attempt: ClassVar[bool] = False
    """Whether the function makes an attempt and does nothing else, as that of an integration."""

    release_attempt: Callable[[], Any] | None = None
    """Lets go of what the last attempt still holds, such as a connection; called once another one is decided on, before
    the wait. For awaited calls it returns something to be awaited. It must not raise."""

    def __init__(
        self, binding: CallOptions, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.options = binding
        self.pipeline = binding.pipeline
        self.function = function
        self.retries_stopped = False
        self.args = args
        self.kwargs = kwargs
        self.attempt = 1
        self.calls_made = 0
        self.deadline = self.total_deadline = self.entry_deadline = ambient_deadline.get()
        self.deadline_source = self.total_deadline_source = INHERITED
        self.deferred: DeferredSettlement | None = None

    @property
    def operation(self) -> str:
        """What is called, in words that metrics and logs may show."""
        return self.options.operation or name_of(self.function)

    @property
    def target(self) -> str | None:
        """Whom the call goes to, such as a host; None when nobody said."""
        return self.options.target

    @property
    def idempotent(self) -> bool | None:
        """Whether repeating the call does no harm; None when unknown."""
        return self.options.idempotent

    @property
    def failures(self) -> Allowlist:
        """What counts as a failure, in the eyes of the pipeline that the call is in."""
        own = self.pipeline.failures
        return self.options.failures if own is None else own

    @property
    def replayable(self) -> bool:
        """Whether what the call sends can be sent again."""
        return True

    @property
    def queued(self) -> bool:
        """Whether this attempt still waits for something of our own, such as a connection of a client's pool.

        A cut then says that nothing was called, and nobody scores it.
        """
        return False

    @property
    def unsent(self) -> bool | None:
        """Whether this attempt surely sent nothing, where the client knows; None: what the failure says counts."""
        return None

    def caused_by_deadline(self, error: Exception) -> bool:
        """Return whether an exception that came at the deadline, or later, came of the deadline."""
        return all(isinstance(leaf, DeadlineExceededError) for leaf in leaves(error))

    def dispose(self, result: Any) -> None:
        """Let go of a result that nobody waits for any more: the thread that made it was left behind."""

    def copy(self) -> Call:
        """Return a copy, for an attempt that goes on while the call itself does."""
        return self.copy_state_to(Call(self.options, self.function, self.args, self.kwargs))

    def copy_state_to(self, other: Call) -> Call:
        """Bring another call to the state of this one, and return it."""
        other.pipeline = self.pipeline
        other.attempt = self.attempt
        other.calls_made = self.calls_made
        other.deadline = self.deadline
        other.deadline_source = self.deadline_source
        other.total_deadline = self.total_deadline
        other.total_deadline_source = self.total_deadline_source
        return other

    def next_attempt(self) -> None:
        """Begin another attempt."""
        self.attempt += 1
        self.deferred = None

    def add_waker(self, wake: Callable[[], object]) -> bool:
        """Sleep until `interrupt`; False when that has happened already."""
        self._nap: Callable[[], object] | None = wake
        return not self.retries_stopped

    def stop_retrying(self) -> None:
        """End the wait between two attempts, now and in the future."""
        if not self.retries_stopped:
            self.retries_stopped = True
            wake: Callable[[], object] | None = getattr(self, "_nap", None)
            self._nap = None
            if wake is not None:
                with contextlib.suppress(RuntimeError):  # its event loop is closed, or it has just woken by itself
                    wake()


def unwrapped(function: Any) -> Any:
    """Return what a partial, or a partial of a partial, calls in the end."""
    while isinstance(function, functools.partial):
        function = operator.attrgetter("func")(function)
    return function


def name_of(function: Callable[..., Any]) -> str:
    """Return a short name: `Client.get` of a method, `fetch` of a function that is local to another."""
    inner = unwrapped(function)
    name: str = getattr(inner, "__qualname__", type(inner).__qualname__)
    return name.rpartition("<locals>.")[2]
