"""Partition: an independent policy for each key, such as a host or a tenant, in a bounded number."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Generic, Literal, Never, TypeAlias, TypeVar

from resilience._call.block import Block
from resilience._call.budget import RetryBudget
from resilience._call.call import Call, CallOptions
from resilience._call.entry import Entry
from resilience._call.keyed import Keyed
from resilience._call.members import Member
from resilience._outcome.allowlist import Allowlist
from resilience._policies.base import Policy
from resilience._policies.shapes import Gate
from resilience._util import validation
from resilience._util.locks import new_lock
from resilience._util.redaction import without_credentials
from resilience._util.values import Value
from resilience.events._types import Mode, ModeName

T = TypeVar("T", bound="Gate[Any] | RetryBudget")
By: TypeAlias = "Literal['target'] | Callable[[Call], Hashable]"
TARGET: Literal["target"] = "target"
_LONGEST_TARGET = 100


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PartitionSettings(Value):
    """The settings of a Partition; `Partition` describes each."""

    by: By
    max_keys: int
    idle: float

    def __post_init__(self) -> None:
        """Validate the settings; `idle` becomes a float."""
        by: Any = self.by
        if by != TARGET and (not callable(by) or isinstance(by, type)):
            raise TypeError(f'by must be "target" or a callable that takes the call and returns its key, not {by!r}')
        if inspect.iscoroutinefunction(by) or inspect.iscoroutinefunction(type(by).__call__):
            raise TypeError(f"by must be a plain callable, not the coroutine function {by!r}")
        validation.integer("max_keys", self.max_keys, low=1)
        object.__setattr__(self, "idle", validation.number("idle", self.idle, above=True))


class Partition(Keyed[T], Policy[Never], Generic[T]):
    """Use an independent policy for each key, such as a host or a tenant; or an independent retry budget.

        Pipeline(Partition(CircuitBreaker), Partition(lambda: Bulkhead(10), by=tenant), budget=Partition(RetryBudget))

    Args:
        factory: makes the policy of a key. It takes no argument, and returns a new gate each time, such as a
            CircuitBreaker, a Bulkhead or a gate of your own, or a new RetryBudget. It must not block.
        by: "target", the target of the call (given to `bind`, or by an integration; None if there is none), or a
            callable that takes the call and returns its key. It must not block. A key is hashable and equal to itself.
        max_keys: the greatest number of keys with an own policy, >= 1. While there are so many, the calls with other
            keys share one more policy, `overflow`.
        idle: the seconds, > 0, after which a policy is evicted that no call has used. It is kept while a call uses it,
            waits for it, or reads a stream that it guards; a CircuitBreaker also while it is open or isolated.
        name: the name of all its policies in events, errors, log lines and for `pipeline[name]`; None for the name that
            `factory` gives, or else their kind.
        mode: the mode of all its policies; see `Policy`.

    Attributes:
        overflow: the policy of the keys without an own one. It is made first.

    Raises:
        TypeError: `factory` does not return a gate or a RetryBudget, or a value is of the wrong type.
        ValueError: a value is out of range; or `factory` sets a mode, which belongs to the Partition.

    A call for which there is no usable key uses the overflow policy: if `by` raises, or the key is not hashable, fails
    to be compared, or is a string of more than 1024 characters. So does a call with a new key if `factory` raises. The
    error is logged once.

    A policy that is evicted loses its state: the next call with its key begins with a new one. Eviction happens when a
    new key comes or the Partition is asked for its state, needs no thread, and costs constant time per call on average.

    `update` changes the settings of the Partition; `update_policies` those of its policies.
    """

    kind = "partition"
    settings: PartitionSettings

    def __init__(
        self,
        factory: Callable[[], T],
        by: By = TARGET,
        *,
        max_keys: int = 1024,
        idle: float = 600.0,
        name: str | None = None,
        mode: ModeName = Mode.ENFORCE,
    ) -> None:
        given: Any = factory
        if not callable(given) or isinstance(given, Policy):
            raise TypeError(f"factory must be a callable that makes a policy, such as CircuitBreaker, not {factory!r}")
        Policy.__init__(self, PartitionSettings(by=by, max_keys=max_keys, idle=idle), name=name, mode=mode)
        self._updates: dict[str, Any] = {}
        self._update_lock = new_lock()
        super().__init__(factory, max_keys, idle)
        made: Any = self.overflow
        if not isinstance(made, Gate | RetryBudget):
            raise TypeError(
                f"factory must return a gate, such as a CircuitBreaker, or a RetryBudget, not {self.overflow!r}"
            )
        if isinstance(self.overflow, Policy):
            if self.overflow.mode is not Mode.ENFORCE:
                raise ValueError(f'give mode="{self.overflow.mode}" to the Partition, not to each of its policies')
            self._name = self._name or self.overflow._name
        self._adopt(self.overflow, None)
        if isinstance(self.overflow, Policy):
            self.overflow._label_suffix = ", shared by all keys without an own one,"
        self._settings_changed()

    @property
    def _default_name(self) -> str:
        return self.overflow.kind if isinstance(self.overflow, Policy) else self.kind

    @property
    def failures(self) -> Allowlist | None:
        """The allowlist of its policies, their setting `on`; None if they use the pipeline's."""
        return self.overflow.failures if isinstance(self.overflow, Policy) else None

    @property
    def _expected_seconds(self) -> float | None:
        return self.overflow._expected_seconds if isinstance(self.overflow, Policy) else None

    def permits_hedge(self, call: Call) -> bool:
        """Return whether the policy of the key of the call permits it."""
        policy = self.policy_of(call)
        return policy.permits_hedge(call) if isinstance(policy, Policy) else True

    def calling(self, key: Hashable) -> Block[Any]:
        """Return a guard for one block by the policy of a key: `with partition.calling(key):`, or `async with`.

        Raises:
            TypeError: it is a Partition of retry budgets.
        """
        return _KeyBlock(self, key)

    def update_policies(self, **settings: Any) -> None:
        """Change settings of all policies, and of those that are made later, as `update` of each does.

        Args:
            **settings: new values by the name of the parameter of the policy's constructor, but for `mode`.

        Raises:
            TypeError: the policies have no such setting, a value is of the wrong type, or they are retry budgets.
            ValueError: a value is out of range. Then nothing changes.
        """
        if not isinstance(self.overflow, Policy) or "mode" in settings:
            what = (
                "the mode is that of the Partition" if "mode" in settings else "a RetryBudget has no settings to update"
            )
            raise TypeError(f"{what}; it cannot be changed for its policies")
        for policy in self.policies():
            if isinstance(policy, Policy):
                policy._changed(settings)
        with self._update_lock:
            self._updates = {**self._updates, **settings}
            for policy in self.policies():
                if isinstance(policy, Policy):
                    policy.update(**settings)
        self._recompose()

    def describe(self) -> dict[str, Any]:
        """Return kind, name, mode and settings as plain data, and the description of its policies as `policy`."""
        return {**Policy.describe(self), **super().describe()}

    def _settings_changed(self) -> None:
        settings = self.settings
        self._configure(settings.by, settings.max_keys, settings.idle)

    def _recompose(self) -> None:
        for policy in self.policies():
            if isinstance(policy, Policy):
                policy._mode = self._mode
        super()._recompose()

    def _adopt(self, policy: T, key: Any) -> None:
        """Give a new policy the name and the mode of the Partition.

        Raises:
            TypeError: it is of another type than the first one, or it is not new.
        """
        if type(policy) is not type(self.overflow):
            raise TypeError(f"factory must return a {type(self.overflow).__name__} each time, not {policy!r}")
        if not isinstance(policy, Policy):
            if policy is self.overflow and key is not None:
                raise TypeError("factory must return a new RetryBudget each time")
            return
        if policy._partition is not None:
            raise TypeError(
                f"factory must return a new {type(policy).__name__} each time: this one belongs to a Partition"
            )
        if self._updates:
            policy.update(**self._updates)
        policy._name = self._name
        policy._mode = self._mode
        policy._key = key
        policy._partition = self
        if self.settings.by == TARGET and isinstance(key, str):
            policy._target = shown = without_credentials(key)
            policy._label_suffix = f" for {shown if len(shown) <= _LONGEST_TARGET else shown[:_LONGEST_TARGET] + '...'}"

    def _added(self, policy: T) -> None:
        """Give a policy that has got its place what was changed since it was made."""
        if isinstance(policy, Policy):
            with self._update_lock:
                if self._updates:
                    policy.update(**self._updates)
                policy._mode = self._mode

    def _kept_until(self, policy: T, now: float) -> float:
        return policy._busy_until(now) if isinstance(policy, Policy) else now

    def _forget_calls(self) -> None:
        super()._forget_calls()
        for policy in self.policies():
            if isinstance(policy, Policy):
                policy._forget_calls()

    def __repr__(self) -> str:
        shown = Policy.__repr__(self).partition("(")[2]
        return f"Partition(lambda: {self.overflow!r}{', ' if shown != ')' else ''}{shown}"


class _KeyBlock(Block[Any]):
    """A block that the policy of a key guards, and that counts as a use of it.

    Args:
        partition: the Partition.
        key: the key.
    """

    __slots__ = ("_key", "_member", "_partition", "_users")

    def __init__(self, partition: Partition[Any], key: Hashable) -> None:
        if not isinstance(partition.overflow, Policy):
            raise TypeError("a Partition of retry budgets guards no blocks")
        super().__init__(partition)
        self._partition = partition
        self._key = key
        self._member: Member[Any] | None = None
        self._users: list[None] = []

    def __enter__(self) -> Any:
        used = self._used
        try:
            return super().__enter__()
        except BaseException:
            if not used:
                self._leave()
            raise

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            super().__exit__(kind, error, traceback)
        finally:
            self._leave()

    async def __aenter__(self) -> Any:
        used = self._used
        try:
            return await super().__aenter__()
        except BaseException:
            if not used:
                self._leave()
            raise

    def _begin(self) -> tuple[Entry, CallOptions]:
        if not self._used:
            self._member = self._partition.enter_key(self._key)
            self._users = self._member.users
            self._gate = self._member.policy
        return super()._begin()

    def _leave(self) -> None:
        member, self._member = self._member, None
        if member is not None:
            member.leave(self._users)


def sample(policy: Policy[Any]) -> Any:
    """Return the policy; for a Partition, one of its policies or budgets, which are all made alike."""
    return getattr(policy, "overflow", policy) if issubclass(type(policy), Partition) else policy


def partition_hint(kind: type, policies: list[tuple[str, Policy[Any]]]) -> str:
    """Return what to add to an error about a missing policy of a type, if there is a Partition of such; else ""."""
    names = [name for name, policy in policies if isinstance(sample(policy), kind)]
    return f"; {names[0]} is a Partition with one for each key: use its of(key)" if names else ""
