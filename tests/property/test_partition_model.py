"""Any sequence of calls, endings, open breakers, time and updates: a partition against a plain model of it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from resilience import CircuitBreaker, Partition
from resilience._call.members import Member
from resilience.testing import virtual_time
from tests.support.uptime import run_for, uptimes

keys = st.integers(0, 6)
places = st.integers(1, 4)
idles = st.sampled_from([1.0, 5.0, 20.0])


@dataclass(eq=False)
class Own:
    """The policy of one key, as the model sees it."""

    policy: CircuitBreaker
    used_at: float
    users: int = 0
    isolated: bool = False


@dataclass
class Model:
    """What a partition is, said with a dict."""

    max_keys: int
    idle: float
    own: dict[int, Own] = field(default_factory=dict)
    overflow_users: int = 0

    def evict(self, now: float) -> None:
        """Forget whatever is idle: a call with a new key does so, and whoever asks for the state.

        An isolated breaker that is found then counts as used.
        """
        for key, one in list(self.own.items()):
            if one.users or now - one.used_at < self.idle:
                continue
            if one.isolated:
                one.used_at = now
            else:
                del self.own[key]


class PartitionMachine(RuleBasedStateMachine):
    """Does to a partition what the drivers and their callers do, in any order."""

    @initialize(max_keys=places, idle=idles, uptime=uptimes)
    def begin(self, max_keys: int, idle: float, uptime: float) -> None:
        self.stack = ExitStack()
        self.clock = self.stack.enter_context(virtual_time())
        run_for(self.clock, uptime)
        self.partition = Partition(CircuitBreaker, max_keys=max_keys, idle=idle)
        self.model = Model(max_keys, idle)
        self.running: list[tuple[int, Own | None, Member[CircuitBreaker], list[None]]] = []

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            self.stack.close()

    @property
    def now(self) -> float:
        return self.clock.monotonic()

    @rule(key=keys)
    def come(self, key: int) -> None:
        """A call with a key comes in."""
        model = self.model
        member = self.partition.enter_key(key)
        if key not in model.own:
            model.evict(self.now)
            if len(model.own) < model.max_keys:
                assert all(member.policy is not one.policy for one in model.own.values())
                model.own[key] = Own(member.policy, self.now)
        own = model.own.get(key)
        if own is None:
            assert member.policy is self.partition.overflow
            model.overflow_users += 1
        else:
            assert member.policy is own.policy
            own.users += 1
        self.running.append((key, own, member, member.users))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """A call has ended, or the stream that it has left running."""
        _, own, member, users = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        member.leave(users)
        if own is None:
            self.model.overflow_users -= 1
        else:
            own.users -= 1
            own.used_at = self.now

    @precondition(lambda self: self.model.own)
    @rule(data=st.data(), isolated=st.booleans())
    def isolate(self, data: st.DataObject, isolated: bool) -> None:
        own = self.model.own[data.draw(st.sampled_from(sorted(self.model.own)))]
        own.isolated = isolated
        if isolated:
            own.policy.isolate()
        else:
            own.policy.close()

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 4.0, 5.0, 25.0]))
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(max_keys=places)
    def update_max_keys(self, max_keys: int) -> None:
        self.partition.update(max_keys=max_keys)
        self.model.evict(self.now)
        self.model.max_keys = max_keys

    @rule(idle=idles)
    def update_idle(self, idle: float) -> None:
        """The settings are in force before the update asks for the policies, to have the mode reach them."""
        self.partition.update(idle=idle)
        self.model.idle = idle
        self.model.evict(self.now)

    @rule()
    def look(self) -> None:
        """Whoever asks for the state sees nothing that is idle."""
        shown = self.partition.snapshot()["policies"]
        self.model.evict(self.now)
        assert sorted(shown) == sorted(map(str, self.model.own))
        assert len(self.partition) == len(self.model.own)

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "model"):
            return
        found: dict[Any, Member[CircuitBreaker]] = dict(self.partition.found)
        assert found.keys() == self.model.own.keys()
        for key, own in self.model.own.items():
            assert found[key].policy is own.policy
            assert (len(found[key].users), found[key].live) == (own.users, True)
        assert len(self.partition._rest.users) == self.model.overflow_users
        assert self.partition._members._places_taken == len(found)
        assert len(self.partition._members._due) == len(found)


def test_the_partition_does_what_its_model_does() -> None:
    run_state_machine_as_test(
        PartitionMachine,
        settings=settings(derandomize=True, database=None, deadline=None, max_examples=200, stateful_step_count=40),
    )
