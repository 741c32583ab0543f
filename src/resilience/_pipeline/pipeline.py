"""Pipeline: a sequence of policies around calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar
from weakref import ref

from resilience._call.budget import PIPELINE, Inherit, RetryBudget
from resilience._call.call import CallOptions
from resilience._call.caller import D_co
from resilience._call.entry import Entry
from resilience._call.keyed import check_budget
from resilience._outcome.allowlist import Allowlist, Failures
from resilience._outcome.network_errors import NETWORK_ERRORS
from resilience._pipeline.compose import Composer, Composite
from resilience._pipeline.engine import Engine
from resilience._pipeline.health import health_of
from resilience._pipeline.in_flight import InFlight
from resilience._pipeline.lint import contradictions
from resilience._pipeline.registry import Registry
from resilience._policies.base import Policy, Standalone
from resilience._policies.partition import Partition, partition_hint
from resilience._util.log_once import warn
from resilience.events._bus import Listener, Subscription
from resilience.events._types import Event, Mode, ModeName

PolicyT = TypeVar("PolicyT", bound=Policy[Any])


class Pipeline(Composite[D_co]):
    """A sequence of policies around calls, outermost first.

    Args:
        *policies: the policies, also Pipelines. One object in two pipelines shares its state.
        name: the name in events, log lines and `pipelines()`; None for the name of the first decorated function.
        failures: which outcomes are failures of the dependency; None for those of an integration, or NETWORK_ERRORS.
            Functions that use HTTP need `HTTP_FAILURES`.
        budget: the retry budget of all retries in it; by default a `RetryBudget()` of its own, None for no limit, as
            for batch jobs. Several pipelines may share one budget. A `Partition(RetryBudget)` is a budget for each key.
        mode: "enforce"; "shadow", in which its policies only decide and report; or "off", which leaves them out.

    Raises:
        TypeError: one of `policies` is not a policy or has a shape without a driver, or a value has a wrong type.
        ValueError: two policies were given the same name, the name is empty, or `mode` is not one of the three modes.

    It can decorate functions, coroutine functions, methods and other callables; `call` and `acall` pass single calls
    through it. Threads, asyncio loops and trio runs may use the same object concurrently. Policies that cannot work
    together give a ResilienceWarning.
    """

    kind = "pipeline"

    def __init__(
        self,
        *policies: Policy[D_co],
        name: str | None = None,
        failures: Failures | None = None,
        budget: RetryBudget | Partition[RetryBudget] | Inherit | None = PIPELINE,
        mode: ModeName = Mode.ENFORCE,
    ) -> None:
        super().__init__(name=name, mode=mode)
        given: tuple[Any, ...] = policies
        for policy in given:
            if not isinstance(policy, Policy):
                raise TypeError(f"a Pipeline is made of policies such as Retry(), not {policy!r}")
        check_budget(budget)
        self._by_name = self._names(policies)
        self._engine: Engine[Pipeline[Any]] = Engine(
            policies,
            name or "",
            None if failures is None else Allowlist.of(failures),
            RetryBudget() if isinstance(budget, Inherit) else budget,
            ref(self),
            self._recomposed,
            _registry.register,
        )
        self._engine.info.policies = self._by_name
        for policy in dict.fromkeys(policies):
            policy._attach(self._engine)
        self._engine.open()
        self._options = CallOptions(self._engine.info)
        if name is not None:
            _registry.register(name, self)
        for sentence in contradictions(self.flattened()):
            warn(f"in pipeline {name!r}: {sentence}" if name else sentence)

    @staticmethod
    def _names(policies: tuple[Policy[Any], ...]) -> dict[str, Policy[Any]]:
        """Return the policies by name: the given name, or the kind, numbered when repeated."""
        named: dict[str, Policy[Any]] = {}
        for policy in policies:
            if policy._has_name and named.setdefault(policy.name, policy) is not policy:
                raise ValueError(f"two policies of one pipeline are named {policy.name!r}; give one another name=")
        found: dict[str, Policy[Any]] = {}
        for policy in policies:
            kind = policy._default_name
            name = policy.name if policy._has_name else kind
            number = 1
            while not policy._has_name and (name in named or name in found):
                number += 1
                name = f"{kind}_{number}"
            found[name] = policy
        return found

    @property
    def engine(self) -> Engine[Any]:
        """The engine: the composed chains and the calls in flight. Internal."""
        return self._engine

    @property
    def composer(self) -> Composer:
        """The composer of its policies. Internal."""
        return self._engine.composer

    @property
    def in_flight(self) -> InFlight:
        """The calls in flight in this pipeline. Internal."""
        return self._engine.in_flight

    @property
    def name(self) -> str:
        """The given name, or that of the first decorated function; empty before that."""
        return self._engine.info.name

    @property
    def policies(self) -> tuple[Policy[Any], ...]:
        """The policies, outermost first."""
        return self._engine.composer.policies

    @property
    def budget(self) -> RetryBudget | Partition[RetryBudget] | None:
        """The retry budget, or a Partition with one for each key; None for no limit."""
        own = self._engine.info.budget
        return own if isinstance(own, RetryBudget | Partition) else None

    def flattened(self) -> list[tuple[str, Policy[Any]]]:
        """Return the policies with their names, those of nested pipelines included, outermost first."""
        found: list[tuple[str, Policy[Any]]] = []
        for name, policy in self._by_name.items():
            found += policy.flattened() if isinstance(policy, Pipeline) else [(name, policy)]
        return found

    def entry(self) -> tuple[Entry, CallOptions]:
        """Return the engine and the call options. Internal."""
        return self._engine, self._options

    def _recompose(self) -> None:
        """Recompose this pipeline, and every pipeline that contains it."""
        self._engine.recompose()

    @staticmethod
    def _recomposed(pipeline: Pipeline[Any] | None) -> None:
        """Recompose every pipeline that contains this one."""
        if pipeline is not None:
            Policy._recompose(pipeline)

    def __getitem__(self, name: str) -> Any:
        """Return the policy with that name, such as "retry", also of a nested pipeline.

        Raises:
            KeyError: there is no such policy.
        """
        if name in self._by_name:
            return self._by_name[name]
        for policy in self.policies:
            if isinstance(policy, Pipeline):
                try:
                    return policy[name]
                except KeyError:
                    continue
        raise KeyError(f"{name!r}; there are {', '.join(self._by_name) or 'no policies'}")

    def get(self, kind: type[PolicyT]) -> PolicyT:
        """Return the policy of that type, such as `CircuitBreaker`, also of a nested pipeline.

        Raises:
            LookupError: there is no such policy, or more than one.
        """
        found = [(name, policy) for name, policy in self.flattened() if isinstance(policy, kind)]
        if len(found) == 1:
            return found[0][1]
        names = ", ".join(name for name, _ in found or self.flattened()) or "no policies"
        if found:
            raise LookupError(f"there are {len(found)} policies of type {kind.__name__}: {names}; use pipeline[name]")
        hint = partition_hint(kind, self.flattened())
        raise LookupError(f"there is no policy of type {kind.__name__}; there are {names}{hint}")

    def subscribe(
        self, listener: Listener, *, events: Iterable[type[Event]] = (), when: Callable[[], bool] | None = None
    ) -> Subscription:
        """Call `listener` with the events of this pipeline. The parameters are those of `resilience.subscribe`."""
        return self._engine.info.bus.add(listener, events, when)

    def drain(self, timeout: float) -> bool:
        """Shut down gracefully: reject new calls, end the waits of retries, and wait for the calls in flight.

        Args:
            timeout: the longest time to wait, in seconds, >= 0.

        Returns:
            True if nothing was in flight any more within `timeout`, else False.

        It blocks the thread; use `adrain` in async code. Rejected calls raise a RejectedError with the reason
        "draining". The pipeline rejects calls until `resume` is called.
        """
        return self._engine.in_flight.drain(timeout)

    async def adrain(self, timeout: float) -> bool:
        """Drain as `drain` does, without blocking the event loop."""
        return await self._engine.in_flight.adrain(timeout)

    def resume(self) -> None:
        """Accept calls again after a drain."""
        self._engine.in_flight.set_draining(False)

    def describe(self) -> dict[str, Any]:
        """Return the policies and their settings as plain data, outermost first."""
        info = self._engine.info
        return {
            "kind": self.kind,
            "name": self.name,
            "mode": str(self.mode),
            "failures": repr(info.failures or NETWORK_ERRORS),
            "budget": None if info.budget is None else info.budget.describe(),
            "policies": [{**policy.describe(), "name": name} for name, policy in self._by_name.items()],
        }

    def snapshot(self) -> dict[str, Any]:
        """Return the state as plain data: calls in flight, repetitions by SDKs, the budget, the state of policies."""
        info = self._engine.info
        return {
            "name": self.name,
            "in_flight": len(self._engine.in_flight),
            "draining": self._engine.in_flight.draining,
            "foreign_retries": info.foreign_retries,
            "budget": None if info.budget is None else info.budget.snapshot(),
            "policies": {name: policy.snapshot() for name, policy in self._by_name.items()},
        }

    def health(self) -> dict[str, Any]:
        """Return what hinders calls at present, as plain data for a readiness endpoint.

        `status` is "ok", or "degraded" if there are `problems`. Each of these has the name of the `policy` and the
        `problem`: "open" or "isolated", of a circuit breaker; "saturated", of a bulkhead or adaptive limit with a full
        queue; "cooling_down"; "budget_empty"; or "draining". Of a Partition it has the number of keys that have it as
        `count`, and some of these as `keys`. Policies in shadow mode hinder no calls.
        """
        return health_of(self)

    def reset(self) -> None:
        """Reset all policies and the budget, and accept calls again after a drain."""
        self._engine.reset()

    def __repr__(self) -> str:
        return f"Pipeline({', '.join([*map(repr, self.policies), f'name={self.name!r}'])})"


def _alone(policy: Policy[Any]) -> tuple[Entry, CallOptions]:
    return Pipeline(policy).entry()


Standalone.make = staticmethod(_alone)


_registry: Registry[Pipeline[Any]] = Registry()


def pipelines() -> Mapping[str, Pipeline[Any]]:
    """Return a live mapping of all named pipelines by name; it keeps none alive. Of equal names, the newest counts."""
    return _registry
