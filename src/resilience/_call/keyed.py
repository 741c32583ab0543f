"""One policy or retry budget for each key: how a Partition finds that of a call."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final, Generic

from resilience._call.budget import Inherit, RetryBudget
from resilience._call.members import ONE, Member, Members, T
from resilience._util.clock import clock
from resilience._util.log_once import hook_failed

LONGEST_KEY: Final = 1024
"""The longest string that is kept as a key, in characters or bytes."""
_UNKNOWN: Final = object()


class Keyed(Generic[T]):
    """The policies by key.

    Args:
        factory: makes a policy. Its first one is the overflow policy.
        max_keys: the greatest number of keys with an own policy.
        idle: the seconds after which a policy that no call has used is evicted.

    Attributes:
        key_of: returns the key of a call; None if that is its target.
        overflow: the policy of all keys without an own one.
    """

    key_of: Callable[[Any], Hashable] | None

    def __init__(self, factory: Callable[[], T], max_keys: int, idle: float) -> None:
        self._factory = factory
        self._members: Members[T] = Members(self._kept_until, self._key_failed, max_keys, idle)
        self._rest: Member[T] = Member(None)
        self.overflow = factory()
        self._rest.use(self.overflow)
        self._rest.live = True

    def _configure(self, by: str | Callable[[Any], Hashable], max_keys: int, idle: float) -> None:
        """Use other settings from now on."""
        self._members.configure(max_keys, idle)
        self.key_of = None if isinstance(by, str) else by

    @property
    def found(self) -> Mapping[Hashable, Member[T]]:
        """The members that are there, for drivers; a call that has found one counts itself in, and checks `live`."""
        return self._members.found

    def enter(self, call: Any) -> Member[T]:
        """Return the member for a call, and count the call in. It must be counted out with `leave`."""
        key: Any = _UNKNOWN
        try:
            key = call.target if self.key_of is None else self.key_of(call)
        except Exception as error:
            hook_failed("by= of a Partition", self.key_of, error)
        return self.enter_key(key)

    def enter_key(self, key: Any) -> Member[T]:
        """Return the member for a key, and count a call in. It is made if necessary, and if there is a place."""
        while True:
            member = self._rest if key is _UNKNOWN else self._find(key)
            users = member.users
            users += ONE
            if member.live:
                return member
            del users[-1]
            self._members.wait_for_eviction()

    def _find(self, key: Any) -> Member[T]:
        """Return the member for a key; that of the overflow policy if the key cannot be used or there is no place."""
        try:
            member = self._members.found.get(key)
            if member is None:
                if isinstance(key, str | bytes) and len(key) > LONGEST_KEY:
                    raise ValueError(f"a key must not be longer than {LONGEST_KEY}, and this one has length {len(key)}")
                member = self._members.add(key, lambda: self._make(key))
                if member is not None:
                    self._added(member.policy)
        except Exception as error:
            self._key_failed(error)
            return self._rest
        return member or self._rest

    def _make(self, key: Any) -> T | None:
        """Return a new policy; None if that fails, which is logged once."""
        try:
            policy = self._factory()
            self._adopt(policy, key)
        except Exception as error:
            hook_failed("factory of a Partition", self._factory, error)
            return None
        return policy

    def _key_failed(self, error: Exception) -> None:
        hook_failed("a key of a Partition", self.key_of or self, error)

    def of(self, key: Hashable) -> T:
        """Return the policy of a key, as a call with that key finds it.

        It may be evicted later if no call uses it, so ask for it each time.
        """
        member = self.enter_key(key)
        member.leave(member.users)
        return member.policy

    def policy_of(self, call: Any) -> T:
        """Return the policy of a call, without counting the call in. Used by the library."""
        member = self.enter(call)
        member.leave(member.users)
        return member.policy

    def policies(self) -> list[T]:
        """Return all policies, the overflow policy first."""
        self._members.evict(clock.monotonic())
        return [self.overflow, *(member.policy for member in self._members)]

    def by_key(self) -> list[tuple[str, T]]:
        """Return all policies with the texts of their keys; that of the overflow policy is empty."""
        self._members.evict(clock.monotonic())
        return [("", self.overflow), *((_text(member.key), member.policy) for member in self._members)]

    def reset(self) -> None:
        """Discard the state of all policies."""
        for policy in self.policies():
            policy.reset()

    def snapshot(self) -> dict[str, Any]:
        """Return the state of each policy by its key as `policies`, and that of the overflow policy as `overflow`.

        A key that is not a string is represented by its `repr`.
        """
        self._members.evict(clock.monotonic())
        found = {_text(one.key): one.policy.snapshot() for one in self._members}
        return {"policies": found, "overflow": self.overflow.snapshot()}

    def describe(self) -> dict[str, Any]:
        """Return the settings as plain data, with those of the overflow policy as `policy`."""
        return {"policy": self.overflow.describe()}

    def __len__(self) -> int:
        """Return the number of keys with an own policy."""
        self._members.evict(clock.monotonic())
        return len(self._members.found)

    def __bool__(self) -> bool:
        """Return True, also while there are no keys."""
        return True

    def _forget_calls(self) -> None:
        """Count all calls out, for a forked child."""
        self._rest.users = []
        self._members.forget_calls()

    # Hooks

    def _adopt(self, policy: T, key: Any) -> None:
        """Prepare a new policy, or raise an error if it cannot be used."""

    def _added(self, policy: T) -> None:
        """Called when a policy has got its place among the policies."""

    def _kept_until(self, policy: T, now: float) -> float:
        """Return the time until which the state of a policy must not be lost although no call uses it."""
        del policy
        return now


def check_budget(budget: Any) -> None:
    """Raise a TypeError for what is no `budget=`."""
    one = getattr(budget, "overflow", budget) if issubclass(type(budget), Keyed) else budget
    if not (one is None or isinstance(one, RetryBudget | Inherit)):
        raise TypeError(f"budget must be a RetryBudget, a Partition of RetryBudgets, or None, not {budget!r}")


def _text(key: Any) -> str:
    """Return a key as a string; that of an object whose `repr` fails is the name of its type."""
    try:
        return str(key) if isinstance(key, str) else repr(key)
    except Exception:
        return object.__repr__(key)
