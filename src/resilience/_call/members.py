"""The policies or retry budgets of a Partition by their keys, in a bounded number, and which of them is in use.

A call looks its policy up without a lock. It is counted in the policy's `users` until it has ended, its stream
included, so that no policy is evicted that is in use. What is not used any more is found with a heap, ordered by the
time at which each policy may be idle: only a call with a new key looks at it, and at no more than has become due.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable
from functools import partial
from heapq import heapify, heappop, heappush, heapreplace
from typing import Any, Final, Generic, Protocol, TypeVar

from resilience._call.settlement import DeferredSettlement
from resilience._util.clock import FOREVER, clock
from resilience._util.finalizers import pending, run_pending
from resilience._util.locks import holds_any_lock, members, new_lock


class Stateful(Protocol):
    """A policy or a retry budget."""

    def reset(self) -> None:
        """Discard the state."""

    def snapshot(self) -> dict[str, Any]:
        """Return the current state as plain data."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return the settings as plain data."""
        ...


T = TypeVar("T", bound=Stateful)

ONE: Final = (None,)
"""What `users` is extended by for a call."""
CHECKS: Final = 1024
"""How many members a call with a new key checks at most; the next one goes on."""


class Member(Generic[T]):
    """The policy of one key.

    Args:
        key: the key; None for the overflow policy.

    Attributes:
        policy: the policy, or the budget.
        ticket_class: the class of the tickets of a gate; None for a budget.
        users: has one item for each call that uses the policy. `users += ONE` and `del users[-1]` are single atomic
            operations of the interpreter and need no lock.
        used_at: when the last call that used it ended, in seconds of the library's monotonic clock.
        live: whether it is the policy of its key. A call counts itself in and then checks this; an eviction of the
            policy clears this and then checks `users`: so one of the two always sees the other.
        holds_place: whether it is one of the `max_keys`.
        shadow: free for use by the drivers; None at first.
    """

    __slots__ = ("holds_place", "key", "live", "policy", "shadow", "ticket_class", "used_at", "users")

    policy: T

    def __init__(self, key: Any) -> None:
        self.key = key
        self.users: list[None] = []
        self.used_at = clock.monotonic()
        self.live = False
        self.shadow: Any = None
        self.holds_place = False

    def use(self, policy: T) -> None:
        """Set the policy."""
        self.policy = policy
        self.ticket_class: Any = getattr(policy, "ticket_class", None)

    def leave(self, users: list[None], ending: object = None) -> None:
        """Count a call out; `users` is the list in which it is counted, which a fork replaces."""
        del ending
        try:
            self.used_at = clock.monotonic()
        finally:  # also if a Ctrl-C arrives
            del users[-1]

    def leave_after(self, work: DeferredSettlement, users: list[None]) -> None:
        """Count a call out when the work that it has left running has ended."""
        work.add(partial(self.leave, users))


class Members(Generic[T]):
    """The members by key. All that changes them is done under one lock, which no call with a known key takes.

    The lock is not `state_lock`, since keys may be compared by code of the user.

    Args:
        kept_until: returns the time until which the state of a policy must not be lost although no call uses it, given
            the policy and the current time.
        failed: called with an exception of a key, such as one that cannot be compared.

    Attributes:
        found: the members; read-only.
        max_keys: the greatest number of members.
        idle: the seconds after which a member that no call has used is evicted.
    """

    def __init__(
        self, kept_until: Callable[[T, float], float], failed: Callable[[Exception], object], max_keys: int, idle: float
    ) -> None:
        self.found: dict[Hashable, Member[T]] = {}
        self.configure(max_keys, idle)
        self._kept_until = kept_until
        self._failed = failed
        self._lock = new_lock()
        self._due: list[tuple[float, int, Member[T]]] = []
        self._numbers = itertools.count()
        self._places_taken = 0

    def configure(self, max_keys: int, idle: float) -> None:
        """Use other settings from now on."""
        self.max_keys = max_keys
        self.idle = idle
        self._looked_at = FOREVER  # so that the next look determines anew what is due

    def __iter__(self) -> Any:
        """Iterate over the members that are there now."""
        return iter(members(self.found.values()))

    def wait_for_eviction(self) -> None:
        """Wait until a member that was found not to be live has been evicted, or not."""
        with self._lock:
            pass

    def add(self, key: Any, make: Callable[[], T | None]) -> Member[T] | None:
        """Return a new member for a key, or the one that another thread has added; None if there is no place for it.

        Args:
            key: the key.
            make: makes the policy; None if that fails. Called without a lock.
        """
        now = clock.monotonic()
        if self._nothing_due(now) and self._places_taken >= self.max_keys:
            return None
        # A finalizer or a signal handler may have interrupted a change of the members: it must not change them, too.
        if holds_any_lock():
            return None
        self.evict(now)
        member: Member[T] = Member(key)
        try:
            with self._lock:
                if self._places_taken >= self.max_keys:
                    return None
                self._places_taken += 1
                member.holds_place = True
            policy = make()
            if policy is None:
                return None
            member.use(policy)
            with self._lock:
                other = self.found.get(key)
                if other is not None:
                    return other
                heappush(self._due, (now + self.idle, next(self._numbers), member))
                self.found[key] = member
                member.live = True
            return member
        finally:
            if member.holds_place and not member.live:
                self._free_place(member)
            if pending:  # what a finalizer has deferred that interrupted a locked region
                run_pending()

    def _free_place(self, member: Member[T]) -> None:
        with self._lock:
            if member.holds_place:
                member.holds_place = False
                self._places_taken -= 1

    def _nothing_due(self, now: float) -> bool:
        """Return whether no member is to be checked."""
        first = self._due[:1]
        return bool(first) and now < first[0][0] and not self._is_outdated(now)

    def _is_outdated(self, now: float) -> bool:
        """Return whether all is to be checked anew: the settings were changed, or the clock was set back.

        A clock that was set back by less than `idle` makes members stay by no more than that longer.
        """
        return now < self._looked_at - self.idle

    def evict(self, now: float) -> None:
        """Evict the members that are idle. One that is not is checked again when it may be."""
        if holds_any_lock():
            return
        for _ in range(CHECKS):
            with self._lock:
                done = self._check_next(now)
            if done:
                break
        if pending:
            run_pending()

    def _check_next(self, now: float) -> bool:
        """Check the member that is due next; return whether there is none. The lock is held."""
        if self._is_outdated(now):
            self._schedule(now)
        self._looked_at = now
        due = self._due
        if not due or now < due[0][0]:
            return True
        member = due[0][2]
        if member.holds_place:
            at = self._idle_at(member, now)
            if at > now or not self._remove(member):
                heapreplace(due, (at if at > now else now + self.idle, next(self._numbers), member))
                return False
        heappop(due)
        return False

    def _schedule(self, now: float) -> None:
        """Determine anew when each member is to be checked. The lock is held."""
        found = members(self.found.values())
        for member in found:
            member.used_at = min(member.used_at, now)  # it is later if the clock was set back
        self._due = [(member.used_at + self.idle, next(self._numbers), member) for member in found]
        heapify(self._due)

    def _idle_at(self, member: Member[T], now: float) -> float:
        """Return the time at which a member may be idle; a time until `now` if it is. The lock is held."""
        latest = now + self.idle
        if member.users:
            return latest
        at = max(member.used_at + self.idle, self._kept_until(member.policy, now))
        if at > latest:  # its state must last for an unknown or a long time
            member.used_at = now
            return latest
        return at

    def _remove(self, member: Member[T]) -> bool:
        """Evict a member; return whether that succeeded. The lock is held."""
        member.live = False
        if member.users:  # a call has come in meanwhile
            member.live = True
            return False
        try:
            # With a key that has changed, or does not equal itself, the member stays, and takes up its place.
            if self.found.get(member.key) is member:
                del self.found[member.key]
                member.holds_place = False
                self._places_taken -= 1
                return True
        except Exception as error:
            self._failed(error)
        finally:
            member.live = member.holds_place
        return False

    def forget_calls(self) -> None:
        """Count all calls out, for a forked child: another thread of the parent may have been changing the members."""
        found = members(self.found.values())
        for member in found:
            member.users = []
            member.live = member.holds_place = True
        self._places_taken = len(found)
        self._looked_at = FOREVER
