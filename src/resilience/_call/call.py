"""One call, as a policy sees it, and what is known about its pipeline and its call site."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from resilience._call.budget import RetryBudget
from resilience._call.callables import name_of
from resilience._outcome.allowlist import Allowlist
from resilience._outcome.network_errors import NETWORK_ERRORS
from resilience._util.clock import ambient_deadline, clock
from resilience.events._bus import Bus, Subscription, deliver
from resilience.events._types import Event


class PipelineInfo:
    """What a policy knows about the pipeline that it is part of.

    Args:
        name: the name of the pipeline; empty until it has one.
        failures: its allowlist; None where it was given none, so that the allowlist of the call site counts.
        budget: its retry budget; None for no limit.
        bus: its listeners.
    """

    __slots__ = ("__weakref__", "budget", "bus", "failures", "name", "policies", "shortest_timeout")

    def __init__(self, name: str, failures: Allowlist | None, budget: RetryBudget | None, bus: Bus) -> None:
        self.name = name
        self.failures = failures
        self.budget = budget
        self.bus = bus
        self.policies: Mapping[str, object] = {}
        self.shortest_timeout: float | None = None
        """Seconds of the shortest Timeout in the pipeline; without one, of the shortest `slow_after`; else None."""

    def name_of(self, policy: object) -> str:
        """Return the name of a policy in this pipeline; empty if it is not part of it."""
        return next((name for name, one in self.policies.items() if one is policy), "")

    def label(self, policy: object, default: str) -> str:
        """Return a name for messages, such as "breaker of quotes"; `default` where the policy has no name here."""
        name = self.name_of(policy) or default
        return f"{name} of {self.name}" if self.name else name

    def publish(self, kind: type[Event], policy: object, call: Call, **facts: Any) -> None:
        """Publish an event about what a policy did to a call, if anything listens for it."""
        if wanting := self.bus.listeners_for(kind):
            self.publish_to(wanting, kind, policy, call, **facts)

    def publish_to(
        self, wanting: Sequence[Subscription], kind: type[Event], policy: object, call: Call, **facts: Any
    ) -> None:
        """Publish to the subscriptions that `bus.listeners_for` returned, for callers that compute the facts last."""
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

    Args:
        pipeline: the pipeline that the calls go through.
        operation: the name of what is called, for events and metrics; None: the name of the function.
        target: what is called, such as a host; None where it is unknown.
        idempotent: whether a call may be repeated without harm; None where it is unknown.
        failures: the allowlist of an integration, such as HTTP's. It counts in pipelines that were given none.
    """

    __slots__ = ("failures", "idempotent", "operation", "pipeline", "target")

    def __init__(
        self,
        pipeline: PipelineInfo,
        operation: str | None = None,
        target: str | None = None,
        idempotent: bool | None = None,
        failures: Allowlist = NETWORK_ERRORS,
    ) -> None:
        self.pipeline = pipeline
        self.operation = operation
        self.target = target
        self.idempotent = idempotent
        self.failures = failures


class Call:
    """One logical call, as the hooks of a policy see it.

    Attributes:
        function: what is called for each attempt.
        args: its positional arguments.
        kwargs: its keyword arguments.
        attempt: the number of the current attempt, from 1.
        deadline: the point in time, on the monotonic clock of the library, by which the current attempt has to end;
            infinity for no deadline.
        pipeline: the pipeline that the call is in; in a nested pipeline, the inner one.

    A policy reads a call and does not change it. The other attributes are properties.
    """

    __slots__ = ("__weakref__", "args", "attempt", "deadline", "function", "kwargs", "options", "pipeline")

    def __init__(
        self, options: CallOptions, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.options = options
        self.pipeline = options.pipeline
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.attempt = 1
        self.deadline = ambient_deadline.get()

    @property
    def operation(self) -> str:
        """The name of what is called, as events and metrics show it."""
        return self.options.operation or name_of(self.function)

    @property
    def target(self) -> str | None:
        """What is called, such as a host; None where it is unknown."""
        return self.options.target

    @property
    def idempotent(self) -> bool | None:
        """Whether the call may be repeated without harm; None where it is unknown."""
        return self.options.idempotent

    @property
    def failures(self) -> Allowlist:
        """The allowlist of the pipeline that the call is in."""
        own = self.pipeline.failures
        return self.options.failures if own is None else own

    @property
    def replayable(self) -> bool:
        """Whether the request can be sent again; False for a request body that has been consumed."""
        return True

    @property
    def unsent(self) -> bool | None:
        """Whether the client knows that the last attempt sent nothing; None: `Failure.unprocessed` counts."""
        return None
