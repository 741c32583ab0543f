"""Policies by key are bounded: idle ones are evicted, and never one that is in use or has a state that must last."""

from __future__ import annotations

import gc
import random
import threading
import weakref
from collections.abc import Generator
from typing import Any

import pytest

from resilience import Bulkhead, BulkheadFullError, CircuitBreaker, CircuitOpenError, Partition, Pipeline
from resilience.testing import virtual_time
from resilience.testing._virtual_time import VirtualClock
from tests.support.threads import in_threads, wait_until

IDLE = 600.0


@pytest.fixture
def clock() -> Generator[VirtualClock]:
    with virtual_time() as clock:
        yield clock


def partition_of(max_keys: int, limit: int = 5, idle: float = IDLE, **more: Any) -> Partition[Bulkhead]:
    return Partition(lambda: Bulkhead(limit), by=lambda call: call.args[0], max_keys=max_keys, idle=idle, **more)


def key_of(value: Any) -> Any:
    return value


def keys(partition: Partition[Any]) -> list[str]:
    return list(partition.snapshot()["policies"])


def down() -> None:
    raise ConnectionError


def test_a_policy_is_evicted_once_no_call_has_used_it_for_that_long(clock: VirtualClock) -> None:
    partition = partition_of(5)
    pipeline = Pipeline(partition)
    pipeline.call(key_of, "a")
    clock.advance(IDLE - 1)
    assert keys(partition) == ["a"]
    clock.advance(1)
    assert keys(partition) == []


def test_each_use_begins_the_time_anew(clock: VirtualClock) -> None:
    partition = partition_of(5)
    pipeline = Pipeline(partition)
    for _ in range(5):
        pipeline.call(key_of, "a")
        clock.advance(IDLE - 1)
    assert keys(partition) == ["a"]
    clock.advance(1)
    assert len(partition) == 0


def test_the_time_begins_when_a_call_has_ended(clock: VirtualClock) -> None:
    partition = partition_of(5)
    Pipeline(partition).call(lambda key: clock.advance(10 * IDLE), "a")
    clock.advance(IDLE - 1)

    assert keys(partition) == ["a"]


def test_without_a_place_keys_share_the_overflow_policy(clock: VirtualClock) -> None:
    partition = partition_of(2)
    pipeline = Pipeline(partition)
    for key in ("a", "b", "c", "d"):
        pipeline.call(key_of, key)

    assert keys(partition) == ["a", "b"]
    assert partition.overflow.peak == 1
    clock.advance(IDLE)
    pipeline.call(key_of, "c")
    assert keys(partition) == ["c"]


def test_the_one_that_is_idle_is_found_among_many_that_are_not(clock: VirtualClock) -> None:
    partition = partition_of(1000)
    pipeline = Pipeline(partition)
    for key in range(1000):
        pipeline.call(key_of, key)
    clock.advance(IDLE - 100)
    for key in range(1000):
        if key != 700:
            pipeline.call(key_of, key)
    clock.advance(100)
    pipeline.call(key_of, "new")

    assert len(partition) == 1000
    assert "new" in keys(partition)
    assert "700" not in keys(partition)


def test_one_in_use_is_not_evicted_however_long_that_lasts(clock: VirtualClock) -> None:
    partition = partition_of(1, limit=1)
    pipeline = Pipeline(partition)

    def long(key: str) -> str:
        for _ in range(3):
            clock.advance(10 * IDLE)
            pipeline.call(key_of, "b")
        return "done"

    own = partition.of("a")
    assert pipeline.call(long, "a") == "done"
    assert partition.of("a") is own
    assert keys(partition) == ["a"]
    assert (own.in_flight, partition.overflow.peak) == (0, 1)


def test_a_call_that_comes_in_at_the_moment_of_the_eviction_keeps_it(clock: VirtualClock) -> None:
    class Arriving(list[None]):
        """Is empty when it is looked at first."""

        looked = 0

        def __len__(self) -> int:
            self.looked += 1
            return self.looked - 1

    partition = partition_of(1)
    own = partition.of("a")
    (member,) = partition._members
    member.users = Arriving()
    clock.advance(IDLE)

    assert keys(partition) == ["a"]
    assert member.live
    member.users = []
    assert partition.of("a") is own
    clock.advance(IDLE)
    assert keys(partition) == []


def test_the_next_one_moves_up_behind_one_in_use(clock: VirtualClock) -> None:
    partition = partition_of(3)
    pipeline = Pipeline(partition)

    def long(key: str) -> None:
        pipeline.call(key_of, "b")
        clock.advance(IDLE)
        pipeline.call(key_of, "c")
        assert keys(partition) == ["a", "c"]

    pipeline.call(long, "a")


def test_one_that_is_waited_for_is_in_use() -> None:
    partition = Partition(lambda: Bulkhead(1, queue=1, max_wait=60.0), by=lambda call: call.args[0], idle=1e-9)
    pipeline = Pipeline(partition)
    held = threading.Event()
    own = partition.of("a")

    def hold(key: str) -> bool:
        return held.wait(60.0)

    threads = [threading.Thread(target=pipeline.call, args=(hold, "a")) for _ in range(2)]
    for thread in threads:
        thread.start()
    current = partition.of("a")
    wait_until(lambda: partition.of("a").queued == 1)
    assert partition.of("a").in_flight == 1
    held.set()
    for thread in threads:
        thread.join(60.0)
    assert own.queued == current.queued == 0
    assert keys(partition) == []


class TestBreakers:
    @pytest.fixture
    def partition(self, clock: VirtualClock) -> Partition[CircuitBreaker]:
        return Partition(
            lambda: CircuitBreaker(consecutive_failures=1, open_for=5000.0, max_open_for=9000.0),
            by=lambda call: call.operation,
            max_keys=1,
            idle=IDLE,
        )

    def trip(self, partition: Partition[CircuitBreaker]) -> CircuitBreaker:
        with pytest.raises(ConnectionError):
            Pipeline(partition).call(down)
        return partition.of("down")

    def test_an_open_one_is_not_evicted(self, partition: Partition[CircuitBreaker], clock: VirtualClock) -> None:
        own = self.trip(partition)
        clock.advance(3000.0)
        for number in range(100):
            Pipeline(partition).bind(operation=str(number)).call(int)

        assert keys(partition) == ["down"]
        assert own.state == "open"
        with pytest.raises(CircuitOpenError):
            Pipeline(partition).call(down)

    def test_it_is_evicted_when_its_open_time_has_passed(
        self, partition: Partition[CircuitBreaker], clock: VirtualClock
    ) -> None:
        self.trip(partition)
        clock.advance(9000.0)
        Pipeline(partition).call(int)

        assert keys(partition) == ["int"]

    def test_an_isolated_one_is_kept_until_it_is_closed(
        self, partition: Partition[CircuitBreaker], clock: VirtualClock
    ) -> None:
        own = partition.of("down")
        own.isolate()
        clock.advance(1e6)
        assert keys(partition) == ["down"]
        own.close()
        clock.advance(IDLE)
        assert keys(partition) == []


def test_a_policy_that_is_evicted_loses_its_state(clock: VirtualClock) -> None:
    partition = partition_of(5)
    own = partition.of("a")
    clock.advance(IDLE)
    assert partition.of("a") is own  # nothing has needed its place
    clock.advance(IDLE)
    partition.of("b")
    assert partition.of("a") is not own


def test_a_clock_that_is_set_back_evicts_nothing_at_once_and_something_later() -> None:
    partition = partition_of(1)
    with virtual_time() as clock:
        clock.advance(1e9)
        partition.of("a")
    with virtual_time() as clock:
        partition.of("b")
        assert keys(partition) == ["a"]
        clock.advance(IDLE)
        partition.of("b")
        assert keys(partition) == ["b"]


def test_max_keys_and_idle_can_be_changed(clock: VirtualClock) -> None:
    partition = partition_of(1)
    partition.of("a")
    partition.update(max_keys=3)
    for key in ("b", "c", "d"):
        partition.of(key)
    assert keys(partition) == ["a", "b", "c"]
    partition.update(max_keys=1)
    partition.of("d")
    assert keys(partition) == ["a", "b", "c"]
    clock.advance(10.0)
    partition.update(idle=5.0)
    assert partition.of("d") is not partition.overflow
    assert keys(partition) == ["d"]


def test_a_key_that_has_changed_keeps_its_place_and_breaks_nothing(clock: VirtualClock) -> None:
    class Changing:
        number = 1

        def __hash__(self) -> int:
            return self.number

    key = Changing()
    partition = partition_of(2)
    partition.of(key)
    key.number = 2
    clock.advance(IDLE)
    for other in ("a", "b"):
        partition.of(other)
        clock.advance(IDLE)

    assert len(partition) == 1


def test_100_000_keys_never_hold_more_than_max_keys_policies(clock: VirtualClock) -> None:
    alive: weakref.WeakSet[Bulkhead] = weakref.WeakSet()
    most = 0

    def factory() -> Bulkhead:
        nonlocal most
        alive.add(bulkhead := Bulkhead(5))
        if len(alive) > most:
            most = len(alive)
        return bulkhead

    partition = Partition(factory, by=lambda call: call.args[0], max_keys=64, idle=1.0)
    pipeline = Pipeline(partition)
    for number in range(100_000):
        pipeline.call(key_of, number)
        if number % 100 == 0:
            clock.advance(0.3)
            gc.collect(0)

    assert len(partition) <= 64
    assert len(vars(partition)["_members"]._due) <= 64
    gc.collect()
    assert len(alive) <= 64 + 1


@pytest.mark.usefixtures("frequent_switches")
def test_threads_never_see_two_policies_of_a_key_at_once() -> None:
    """Each key has one permit: two policies of it would let two calls in at once."""
    partition = Partition(lambda: Bulkhead(1), by=lambda call: call.args[0], max_keys=4, idle=1e-9)
    pipeline = Pipeline(partition)
    inside: dict[int, list[int]] = {key: [] for key in range(6)}
    wrong: list[int] = []

    def work(key: int) -> None:
        inside[key].append(1)
        if len(inside[key]) > 1:
            wrong.append(key)
        inside[key].pop()

    def storm(seed: int) -> int:
        chance = random.Random(seed)
        made = 0
        for _ in range(1500):
            key = chance.randrange(6)
            member = partition.enter_key(key)
            own = member is not partition._rest
            users = member.users
            try:
                if own:
                    pipeline.call(work, key)
                    made += 1
            except BulkheadFullError:
                made += 1
            finally:
                member.leave(users)
        return made

    assert sum(in_threads(8, storm)) > 0
    assert wrong == []
    assert partition._members._places_taken <= 4
    assert all(bulkhead.in_flight == 0 for bulkhead in partition.policies())
    assert keys(partition) == []
    assert partition._members._places_taken == 0
