"""A call as the policies see it, with its options and the pipeline that it is in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, TypeAlias

from resilience._call.ambient import ambient_deadline
from resilience._call.budget import RetryBudget
from resilience._call.callables import name_of
from resilience._call.keyed import Keyed
from resilience._outcome.allowlist import Allowlist
from resilience._outcome.network_errors import NETWORK_ERRORS
from resilience._util.clock import clock
from resilience._util.locks import state_lock
from resilience._util.named_counts import NamedCounts
from resilience._util.redaction import without_credentials
from resilience.events._bus import Bus, Subscription
from resilience.events._delivery import deliver
from resilience.events._types import Event

AnyBudget: TypeAlias = "RetryBudget | Keyed[RetryBudget] | None"
"""A retry budget, or one for each key; None for no limit."""


foreign_retries = NamedCounts()
"""The requests that SDKs around the pipelines of the process have repeated by themselves, by the pipeline's name."""


class PipelineInfo:
    """The attributes of a pipeline that its policies use.

    Args:
        name: the name of the pipeline; empty if it has none.
        failures: its allowlist; None if none was given, in which case the allowlist of the CallOptions applies.
        budget: its retry budget, or one for each key; None for no limit.
        bus: the subscriptions to its events.
    """

    __slots__ = (
        "__weakref__", "budget", "bus", "failures", "foreign_retries", "ignores_results", "name", "policies",
        "reads_hints", "shortest_timeout",
    )  # fmt: skip

    def __init__(self, name: str, failures: Allowlist | None, budget: AnyBudget, bus: Bus) -> None:
        self.name = name
        self.failures = failures
        self.budget = budget
        self.bus = bus
        self.policies: Mapping[str, object] = {}
        self.shortest_timeout: float | None = None
        """The shortest Timeout in the pipeline, in seconds; if it has none, the shortest `slow_after`, or None."""
        self.foreign_retries = 0
        """The number of requests that an SDK around the pipeline has repeated by itself."""
        self.reads_hints = False
        """Whether a policy of the pipeline reads the hints of good endings, such as a Cooldown does."""
        self.ignores_results = False
        """Whether the pipeline acts on failures, but no allowlist in it classifies the results of plain functions."""

    def count_foreign_retry(self) -> None:
        """Count a request that an SDK around the pipeline repeats by itself."""
        with state_lock:
            self.foreign_retries += 1
        foreign_retries.add(self.name)

    def name_of(self, policy: object) -> str:
        """Return the name of a policy in this pipeline; empty if the policy is not part of it.

        A limit of a combined rate limit has its own name.
        """
        whole = getattr(policy, "_partition", None) or policy
        names = [name for name, one in self.policies.items() if one is policy or one is whole]
        if names:
            return names[-1]
        limits = {id(limit): limit for one in self.policies.values() for limit in getattr(one, "limits", ())}
        return getattr(limits.get(id(policy)), "name", "")

    def label(self, policy: object, default: str) -> str:
        """Return a name for messages, such as "breaker of quotes"; `default` replaces the name of an unknown policy."""
        name = self.name_of(policy) or default
        suffix: str = getattr(policy, "_label_suffix", "")
        return f"{name} of {self.name}{suffix}" if self.name else name + suffix

    def budget_for(self, call: Call) -> RetryBudget | None:
        """Return the retry budget of a call; None for no limit."""
        budget = self.budget
        return budget.policy_of(call) if isinstance(budget, Keyed) else budget

    def publish(self, kind: type[Event], policy: object, call: Call, key: object = None, **facts: Any) -> None:
        """Publish an event of type `kind` about a policy and a call, if a listener wants it; see `listeners_for`."""
        if wanting := self.bus.listeners_for(kind, key):
            self.publish_to(wanting, kind, policy, call, **facts)

    def publish_to(
        self, wanting: Sequence[Subscription], kind: type[Event], policy: object, call: Call, **facts: Any
    ) -> None:
        """Publish to the subscriptions that `bus.listeners_for` returned, which the caller has checked already."""
        event = kind(
            at=clock.monotonic(),
            pipeline=self.name,
            policy=self.name_of(policy),
            operation=call.operation,
            target=call.shown_target,
            **facts,
        )
        deliver(event, wanting)


class CallOptions:
    """The options that the calls of one call site share.

    Args:
        pipeline: the pipeline that the calls go through.
        operation: the name of the operation, for events and log lines; None for the name of the function.
        target: the dependency that is called, such as a host; None if unknown.
        idempotent: whether a call may safely be repeated; None if unknown.
        failures: the allowlist of an integration, such as that for HTTP; it applies in pipelines without an own one.
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
    """One logical call, as the hooks of a policy see it. Hooks must not change it.

    Attributes:
        function: the function that is called for each attempt.
        args: its positional arguments.
        kwargs: its keyword arguments.
        attempt: the number of the current attempt, from 1.
        calls_made: how often the function was called so far.
        deadline: the time by which the current attempt has to end, in seconds of the library's monotonic clock;
            infinity for no deadline.
        pipeline: the pipeline that the call is in; if pipelines are nested, the inner one.
        options: the options of the call site.
    """

    __slots__ = (
        "__weakref__",
        "args",
        "attempt",
        "calls_made",
        "deadline",
        "function",
        "kwargs",
        "options",
        "pipeline",
    )

    @classmethod
    def make(
        cls, options: CallOptions, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Self:
        """Return a call of `function(*args, **kwargs)`."""
        call = cls()
        call.begin(options, function, args, kwargs)
        return call

    def begin(
        self, options: CallOptions, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Set all attributes of a new call. Not `__init__`, with which creating an object takes 60 ns more."""
        self.options = options
        self.pipeline = options.pipeline
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.attempt = 1
        self.calls_made = 0
        self.deadline = ambient_deadline()

    @property
    def operation(self) -> str:
        """The name of the operation, as events and log lines show it: by default that of the function."""
        return self.options.operation or name_of(self.function)

    @property
    def target(self) -> str | None:
        """The dependency that is called, such as a host; None if unknown."""
        return self.options.target

    @property
    def shown_target(self) -> str | None:
        """The target as events and log lines show it: without the user info and the query of a URL."""
        target = self.target
        return None if target is None else without_credentials(target)

    @property
    def idempotent(self) -> bool | None:
        """Whether the call may safely be repeated; None if unknown."""
        return self.options.idempotent

    @property
    def hedgeable(self) -> bool:
        """Whether a second attempt may be made while the first one runs: only if the call is explicitly idempotent."""
        return self.idempotent is True

    @property
    def failures(self) -> Allowlist:
        """The allowlist of the pipeline that the call is in, or else that of its options."""
        own = self.pipeline.failures
        return self.options.failures if own is None else own

    @property
    def replayable(self) -> bool:
        """Whether the request can be sent again; False if its body was consumed and cannot be read again."""
        return True

    @property
    def unsent(self) -> bool | None:
        """Whether the last attempt sent nothing, if the client knows; None to rely on `Failure.unprocessed`."""
        return None
